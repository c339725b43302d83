"""Warm starts: what a former model hands down to a new search, and when it is no longer trusted.

Candidates are handed down through `SearchSpace.fit`. Weights go to networks that differ in sizes only (`morphism.py`),
matched by the names of columns and categories, so that a new category or a vanished column costs its own weights only.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from registry.schema import Frozen
from retrain.families.base import Candidate, Network
from retrain.families.embeddings import InputEncoder
from retrain.search.inputs import Layout
from retrain.search.morphism import BY_COLUMN, FIRST, FREQUENCIES, TABLE, akin, distance, morph

Item = TypeVar("Item")

ENOUGH = 3
KEEP = 0.8


class Elder(Frozen):
    """A member whose weights may be inherited: what it is, and how its columns are laid out. Members of different
    generations have preparations of their own, with categories in another order."""

    candidate: Candidate
    layout: Layout


class PriorMembers(Frozen):
    """The prior's members by the prefix of their weights."""

    by_prefix: dict[str, Elder]

    def nearest(self, candidate: Candidate) -> str | None:
        """The prefix of the member whose weights fit a candidate best; None where none is akin."""
        akins = [prefix for prefix, elder in self.by_prefix.items() if akin(elder.candidate, candidate)]
        return min(akins, key=lambda prefix: distance(self.by_prefix[prefix].candidate, candidate), default=None)


def interleave(prior: Sequence[Item], fresh: Sequence[Item]) -> list[Item]:
    """One from the prior, then a fresh one, as long as there are any.

    >>> interleave(["p0", "p1", "p2"], ["f0", "f1"])
    ['p0', 'f0', 'p1', 'f1', 'p2']
    """
    turns = zip_longest(prior, fresh)
    return [item for turn in turns for item in turn if item is not None]


def guard_fires(prior: Sequence[float], fresh: Sequence[float], *, greater_is_better: bool) -> bool:
    """Whether fresh candidates beat the prior's, by the best and by the median, after enough of each.

    >>> guard_fires([0.6, 0.61, 0.62], [0.63, 0.62, 0.64], greater_is_better=True)
    True
    """
    if min(len(prior), len(fresh)) < ENOUGH:
        return False
    sign = 1 if greater_is_better else -1
    old, new = [sign * score for score in prior], [sign * score for score in fresh]
    return max(new) > max(old) and statistics.median(new) > statistics.median(old)


def inherit(
    network: Network, weights: Mapping[str, Tensor], old: Layout, new: Layout, *, keep: float = KEEP
) -> dict[str, Tensor] | None:
    """The state a network of layout `new` begins with, given the weights of an akin one under layout `old`. None when
    the architectures differ in more than sizes.

    `keep` below 1 shrinks what is handed down towards the network's own random initialisation (shrink and perturb,
    Ash & Adams 2020), which mends the poorer generalisation of networks that are trained on.
    """
    state = {name: value.clone() for name, value in network.state_dict().items()}
    shaped = morph(network, weights)
    if shaped is None:
        return None
    pairs = _axes(network, weights, old, new)
    for name, value in state.items():
        handed = _matched(value, shaped[name], BY_COLUMN.get(name, 0), *pairs.get(name, (None, None)))
        if handed is None:
            return None
        state[name] = keep * handed + (1 - keep) * value if value.is_floating_point() and keep < 1 else handed
    return state


Keys = Sequence[tuple[str, ...]] | None


def _axes(network: Network, weights: Mapping[str, Tensor], old: Layout, new: Layout) -> dict[str, tuple[Keys, Keys]]:
    """By parameter with an axis of columns: the names of its entries under both layouts."""
    if not isinstance(network.inputs, InputEncoder):
        return {}  # it reads an image alone
    wide, narrow = network.inputs.widths
    before = weights[TABLE].shape[1] if TABLE in weights else narrow
    return {
        TABLE: (_table_keys(old), _table_keys(new)),
        FREQUENCIES: ([(name,) for name in old.numeric], [(name,) for name in new.numeric]),
        FIRST: (_input_keys(old, wide, before), _input_keys(new, wide, narrow)),
    }


def _table_keys(layout: Layout) -> list[tuple[str, ...]]:
    """Row names of the embedding table: unknown and missing of a column by their code, others by their category."""
    return [
        (column, *key)
        for column, categories in layout.categorical
        for key in [("code", "0"), ("code", "1"), *(("category", one) for one in categories)]
    ]


def _input_keys(layout: Layout, wide: int, narrow: int) -> list[tuple[str, ...]]:
    numeric: list[tuple[str, ...]] = [("numeric", name, str(part)) for name in layout.numeric for part in range(wide)]
    return numeric + [("word", name, str(part)) for name, _ in layout.categorical for part in range(narrow)]


def _matched(value: Tensor, given: Tensor, axis: int, old: Keys, new: Keys) -> Tensor | None:
    """`given` in the shape of `value`; entries along the named axis that `given` lacks stay as they are in `value`."""
    if old is None or new is None:
        return given.to(value.dtype) if given.shape == value.shape else None
    value, given = value.movedim(axis, 0), given.movedim(axis, 0)
    if value.shape[1:] != given.shape[1:] or len(old) != len(given) or len(new) != len(value):
        return None
    places = {key: place for place, key in enumerate(old)}
    here = torch.tensor([row for row, key in enumerate(new) if key in places], dtype=torch.int64)
    there = torch.tensor([places[key] for key in new if key in places], dtype=torch.int64)
    out = value.clone()
    out[here] = given[there].to(value.dtype)
    return out.movedim(0, axis)
