"""Weights of a network given to one of another size (network morphism).

A wider layer copies units in turn, and what reads a unit shares its weight among the copies; a layer more passes on
what it gets. Both keep the function as far as activation and normalisation let them (Net2Net, Chen, Goodfellow & Shlens
2016, arXiv 1511.05641; Wei et al. 2016 for residual blocks). A narrower or shallower network takes the slices that
there are, and is merely better than a random one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from retrain.families.base import Candidate, Network

TABLE = "inputs.words.table.weight"
FREQUENCIES = "inputs.numbers.frequencies"
FIRST = "first.weight"
BY_COLUMN = {TABLE: 0, FREQUENCIES: 0, FIRST: 1}
"""The axis of a parameter whose entries stand for columns: not a size of the network's."""

SIZES = ("depth", "width", "expansion", "category_cap")
ALIKE = ("activation", "normalisation", "numeric_embedding", "frequencies", "pieces")


def akin(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates' networks compute alike but for their sizes.

    >>> small, large = (Candidate(family="mlp", choices={"width": width, "activation": "relu"}) for width in (64, 128))
    >>> akin(small, large), akin(small, Candidate(family="resnet", choices={}))
    (True, False)
    """
    return one.family == other.family and all(one.choices.get(name) == other.choices.get(name) for name in ALIKE)


def distance(one: Candidate, other: Candidate) -> float:
    """By how much the sizes of akin networks differ: the sum of the logarithms of their ratios."""
    pairs = [(one.choices.get(name), other.choices.get(name)) for name in SIZES]
    return sum(abs(math.log(float(a) / float(b))) for a, b in pairs if a is not None and b is not None)


def morph(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights of an akin network in the sizes of `network`, but for the axes of columns; None where the networks
    differ in more, or in the number of outputs. Layers that `weights` lacks are made to pass on in `network` itself."""
    own = network.state_dict()
    added = {name for name in own.keys() - weights.keys() if network.level_of(name) is not None}
    dropped = {name for name in weights.keys() - own.keys() if network.level_of(name) is not None}
    if own.keys() - added != weights.keys() - dropped:
        return None
    for level in sorted({network.level_of(name) or 0 for name in added}):
        network.pass_on(level)
    outputs = {
        name for name, one in network.named_parameters() if one is network.last.weight or one is network.last.bias
    }
    out = {name: own[name].clone() for name in added}
    for name in own.keys() - added:
        given = _resized(name, weights[name], own[name].shape, ends=name in outputs)
        if given is None:
            return None
        out[name] = given
    return out


def _resized(name: str, given: Tensor, shape: torch.Size, *, ends: bool) -> Tensor | None:
    if given.dim() != len(shape) or (given.dim() > 2 and given.shape != shape):
        return None  # convolutions of other sizes begin anew
    for axis, size in enumerate(shape):
        before = given.shape[axis]
        if BY_COLUMN.get(name) == axis or before == size:
            continue
        if ends and axis == 0:
            return None
        if name == TABLE:  # a wider embedding adds nothing at first
            given = given[:, :size] if size < before else torch.nn.functional.pad(given, (0, size - before))
            continue
        units = torch.arange(size) % before
        given = given.index_select(axis, units)
        if axis == 1 and size > before:
            given = given / torch.bincount(units)[units]
    return given
