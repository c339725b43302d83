"""Weights of a network given to one of another size (network morphism).

A wider layer copies units in turn, and what reads a unit shares its weight among the copies; a layer more passes on
what it gets. Both keep the function as far as activation and normalisation let them (Net2Net, Chen, Goodfellow & Shlens
2016, arXiv 1511.05641; Wei et al. 2016 for residual blocks). A narrower or shallower network takes the slices that
there are, and is merely better than a random one. Units of convolutions are their channels.

Networks put together from operations (cells, chains) are akin where at least half of these are the same at the same
places, and take over the weights of those, by name: a child of evolution differs from its parent in one operation,
which alone begins anew (Real et al. 2019, arXiv 1802.01548; Cai et al. 2018 for weights that are kept across edits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from retrain.families.base import Candidate, Network
from retrain.families.catalogue import FAMILIES
from retrain.families.parameters import KEPT
from retrain.families.picture import TABLE_WIDTH, PictureNet

TABLE = "inputs.words.table.weight"
FREQUENCIES = "inputs.numbers.frequencies"
FIRST = "first.weight"
BY_COLUMN = {TABLE: 0, FREQUENCIES: 0, FIRST: 1}
"""The axis of a parameter whose entries stand for columns: not a size of the network's."""

PIXELS = ("mean", "std")
"""Buffers with an entry for each channel of an image: not a size of the network's either."""

SIZES = ("depth", "width", "expansion", "category_cap", "cells", "stem_width", "blocks", KEPT)
ALIKE = ("activation", "normalisation", "numeric_embedding", "frequencies", "pieces", "coarse", "squeeze")
SHARED = 0.5
"""The least share of its operations that an akin network of operations has from the other."""


def akin(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates' networks compute alike but for their sizes; or, where they are put together from
    operations, in half of these or more, and in one width.

    >>> small, large = (Candidate(family="mlp", choices={"width": width, "activation": "relu"}) for width in (64, 128))
    >>> akin(small, large), akin(small, Candidate(family="resnet", choices={}))
    (True, False)
    """
    if one.family != other.family or any(one.choices.get(name) != other.choices.get(name) for name in ALIKE):
        return False
    own, others = _parts(one), _parts(other)
    if not own and not others:
        return True
    same = len(own.items() & others.items()) >= SHARED * max(len(own), len(others))
    return same and one.choices.get("width") == other.choices.get("width")


def distance(one: Candidate, other: Candidate) -> float:
    """By how much akin networks differ: the sum of the logarithms of the ratios of their sizes, and the number of
    places at which their operations differ."""
    pairs = [(one.choices.get(name), other.choices.get(name)) for name in SIZES]
    sizes = sum(abs(math.log(float(a) / float(b))) for a, b in pairs if a is not None and b is not None)
    own, others = _parts(one), _parts(other)
    return sizes + sum(own.get(place) != others.get(place) for place in own.keys() | others.keys())


def _parts(candidate: Candidate) -> dict[str, str]:
    """By place; none where a candidate of another version's space lacks a dimension."""
    try:
        return next((one.parts(candidate.choices) for one in FAMILIES if one.name == candidate.family), {})
    except KeyError:
        return {}


def morph(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights of an akin network in the sizes of `network`, but for the axes of columns; None where the networks
    differ in more, or in the number of outputs. Layers that `weights` lacks are made to pass on in `network` itself,
    and operations that it lacks, or has in another shape, keep the weights that they have in `network`."""
    own = network.state_dict()
    levels = {name for name in own.keys() - weights.keys() if network.level_of(name) is not None}
    parts = {name for name in own if network.is_part(name) and _shape(weights.get(name)) != own[name].shape}
    added = levels | parts
    dropped = {name for name in weights.keys() - own.keys() if _may_lack(network, name)}
    if own.keys() - added != weights.keys() - dropped - parts:
        return None
    for level in sorted({network.level_of(name) or 0 for name in levels}):
        network.pass_on(level)
    outputs = {
        name for name, one in network.named_parameters() if one is network.last.weight or one is network.last.bias
    }
    beside = TABLE_WIDTH if isinstance(network, PictureNet) and network.first is not None else 0
    out = {name: own[name].clone() for name in added}
    for name in own.keys() - added:
        ends = name in outputs
        given = _resized(name, weights[name], own[name].shape, ends=ends, beside=beside if ends else 0)
        if given is None:
            return None
        out[name] = given
    return out


def _may_lack(network: Network, name: str) -> bool:
    return network.level_of(name) is not None or network.is_part(name)


def _shape(weight: Tensor | None) -> torch.Size | None:
    return None if weight is None else weight.shape


def _resized(name: str, given: Tensor, shape: torch.Size, *, ends: bool, beside: int) -> Tensor | None:
    """None where no units make the one of the other. `ends`: it gives the outputs; then the last `beside` units that it
    reads are of another kind than the others, and stay."""
    alike = 2 if given.dim() == 4 and name not in PIXELS else 0  # a kernel has units, and a size
    if given.dim() != len(shape) or (given.dim() > 2 and given.shape[alike:] != shape[alike:]):
        return None
    for axis, size in enumerate(shape):
        before = given.shape[axis]
        if BY_COLUMN.get(name) == axis or before == size:
            continue
        if ends and axis == 0:
            return None
        if name == TABLE:  # a wider embedding adds nothing at first
            given = given[:, :size] if size < before else torch.nn.functional.pad(given, (0, size - before))
            continue
        units = _units(size, before, beside if axis == 1 else 0)
        given = given.index_select(axis, units)
        if axis == 1 and size > before:
            given = given / torch.bincount(units)[units].view(-1, *[1] * (given.dim() - 2))
    return given


def _units(size: int, before: int, fixed: int) -> Tensor:
    """Which former unit each of so many copies: all in turn, but for the last `fixed`.

    >>> _units(5, 3, 1).tolist()
    [0, 1, 0, 1, 2]
    """
    return torch.cat([torch.arange(size - fixed) % (before - fixed), torch.arange(before - fixed, before)])
