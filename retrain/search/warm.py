"""Warm starts: what a former model hands down to a new search, and when it is no longer trusted.

Candidates are handed down through `SearchSpace.fit`. Weights go to a network of the same architecture, matched by the
names of columns and categories, so that a new category or a vanished column costs its own weights only.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor

from registry.schema import Frozen
from retrain.families.base import TabularNet
from retrain.search.plan import Layout

Item = TypeVar("Item")

ENOUGH = 3
KEEP = 0.8

TABLE = "inputs.words.table.weight"
FREQUENCIES = "inputs.numbers.frequencies"
FIRST = "first.weight"


class PriorLayouts(Frozen):
    """How the columns of a prior's weights are laid out, by the prefix of a member's weights: members of different
    generations have preparations of their own, with categories in another order."""

    by_member: dict[str, Layout]


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
    network: TabularNet, weights: Mapping[str, Tensor], old: Layout, new: Layout, *, keep: float = KEEP
) -> dict[str, Tensor] | None:
    """The state a network of layout `new` begins with, given the weights of the same architecture under layout `old`.
    None when the architectures differ.

    `keep` below 1 shrinks what is handed down towards the network's own random initialisation (shrink and perturb,
    Ash & Adams 2020), which mends the poorer generalisation of networks that are trained on.
    """
    state = {name: value.clone() for name, value in network.state_dict().items()}
    if set(state) != set(weights):
        return None
    pairs = _axes(network, old, new)
    for name, value in state.items():
        handed = _matched(value, weights[name], *pairs.get(name, (0, None, None)))
        if handed is None:
            return None
        state[name] = keep * handed + (1 - keep) * value if value.is_floating_point() and keep < 1 else handed
    return state


Keys = Sequence[tuple[str, ...]] | None


def _axes(network: TabularNet, old: Layout, new: Layout) -> dict[str, tuple[int, Keys, Keys]]:
    """By parameter: the axis whose entries bear names, and these names under both layouts."""
    wide, narrow = network.inputs.widths
    return {
        TABLE: (0, _table_keys(old), _table_keys(new)),
        FREQUENCIES: (0, [(name,) for name in old.numeric], [(name,) for name in new.numeric]),
        FIRST: (1, _input_keys(old, wide, narrow), _input_keys(new, wide, narrow)),
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
