"""Where the champion is worse than it was: a slice of the rows that is found, not named beforehand.

A tree of depth `DEPTH` is grown on half of the labelled rows, in blocks of time, of the window and of the reference. A
row's badness is how far it pulls the task's metric to the bad side (`Metric.influence`). A node's excess is

    mean badness of the window's rows in it - mean badness of the reference's rows in it

and the split that makes two nodes' excesses differ most is taken, as a causal tree does with the effect of a treatment
(Athey & Imbens 2016). The leaf of the surest excess is then judged on the other half of either side, which had no say
in the choice: the figure is honest. What is worse everywhere alike shows no slice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitor.measurements import Measurement
from monitor.performance import beside, task_metric
from monitor.views import Measure, Side, View
from registry.metrics import BLOCKS, Array
from registry.schema import Column, Schema

DEPTH = 2
LEAST_LABELS = 400
LEAST_SHARE = 0.05
"""Smallest share of the window's rows in a leaf."""

LEAST_KNOWN = 10
"""Fewest reference rows in a leaf."""

MOST_ROWS = 2_000
"""Rows of a side that the tree is grown on, evenly spread."""

CUTS = 15
"""Most places at which a number is cut, and most categories that are set apart."""

Rows = npt.NDArray[np.bool_]
Read = tuple[npt.NDArray[Any], Rows]
"""A column's numbers or names (n,), and where there are any."""


@dataclass(frozen=True)
class Condition:
    """What a row of a slice fulfils, in the words that name it. A row without a value is on neither side of a cut."""

    column: str
    sign: str
    value: float | str | None = None

    def __str__(self) -> str:
        match self.value:
            case None:
                return f"{self.column} {self.sign}"
            case str():
                return f"{self.column} {self.sign} {self.value}"
            case _:
                return f"{self.column} {self.sign} {self.value:.10g}"

    @property
    def opposite(self) -> Condition:
        """The other side of the same cut."""
        return Condition(self.column, _OPPOSITE[self.sign], self.value)

    def holds(self, inputs: Mapping[str, Read]) -> Rows:
        """Which of n rows fulfil it, (n,)."""
        values, there = inputs[self.column]
        if self.value is None:
            return ~there if self.sign == "missing" else there
        if isinstance(self.value, str):
            same = np.asarray(values == self.value, dtype=np.bool_)
            return there & (same if self.sign == "=" else ~same)
        above = np.asarray(values > self.value)
        return there & (above if self.sign == ">" else ~above)


_OPPOSITE = {">": "<=", "<=": ">", "=": "!=", "!=": "=", "missing": "there", "there": "missing"}

Slice = tuple[Condition, ...]


def _names(values: pd.Series[Any]) -> pd.Series[Any]:
    """Truths as the words they are written in; categories as they are."""
    return values.map({0.0: "false", 1.0: "true"}) if pd.api.types.is_numeric_dtype(values) else values


def read(inputs: pd.DataFrame, schema: Schema, names: Collection[str] | None = None) -> dict[str, Read]:
    """The columns of n conformed rows that a condition can be about, or those of these names."""
    out: dict[str, Read] = {}
    for column in schema.of("numeric", "boolean", "categorical"):
        if names is not None and column.name not in names:
            continue
        values = inputs[column.name]
        plain = values if column.kind == "numeric" else _names(values)
        out[column.name] = plain.to_numpy(), values.notna().to_numpy()
    return out


def in_words(conditions: Slice) -> str:
    """The slice, each cut that a later one makes idle left out.

    >>> in_words((Condition("temp", ">", 20.0), Condition("temp", ">", 21.5)))
    'temp > 21.5'
    """
    kept: dict[object, Condition] = {}
    for one in conditions:
        kept[(one.column, one.sign, one.value if one.sign == "!=" else None)] = one
    return " and ".join(str(one) for one in kept.values())


def cuts(inputs: pd.DataFrame, schema: Schema) -> list[Condition]:
    """One side of every cut that is tried: numbers at quantiles, rounded to a hundredth of their spread so that the
    words are exact; categories one against the rest; missing against there. Moments are left out."""
    return [one for column in schema.columns for one in _cuts(inputs[column.name], column)]


def _cuts(values: pd.Series[Any], column: Column) -> Iterator[Condition]:
    present = values.dropna()
    if column.kind in ("datetime", "text") or not len(present):
        return
    if len(present) < len(values):
        yield Condition(column.name, "missing")
    if column.kind == "numeric":
        yield from (Condition(column.name, ">", float(place)) for place in _places(present.to_numpy(dtype=np.float64)))
    else:
        names = _names(present).value_counts().index[:CUTS]
        yield from (Condition(column.name, "=", str(name)) for name in names[: 1 if len(names) <= 2 else None])


def _places(values: Array) -> Array:
    places = np.quantile(values, np.arange(1, CUTS + 1) / (CUTS + 1), method="lower")
    spread = float(places[-1] - places[0])
    digits = 2 - int(np.floor(np.log10(spread))) if spread > 0 else 10
    return np.unique(np.round(places, digits))


@dataclass(frozen=True)
class Half:
    """Rows that a tree is grown on: their inputs and their badness (n,)."""

    inputs: pd.DataFrame
    badness: Array


@dataclass(frozen=True)
class Ground:
    """What a tree needs of the reference, the same for every window: a half of its rows, all conditions that are tried,
    each half of them the opposites of the other, and which rows fulfil them (c, n)."""

    half: Half
    conditions: tuple[Condition, ...]
    held: Rows


def ground(half: Half, schema: Schema) -> Ground:
    """The ground of a reference's half: its quantiles and most frequent categories are what is cut at."""
    found = cuts(half.inputs, schema)
    conditions = (*found, *(one.opposite for one in found))
    return Ground(half, conditions, _held(half.inputs, conditions, schema))


def _held(inputs: pd.DataFrame, conditions: Sequence[Condition], schema: Schema) -> Rows:
    columns = read(inputs, schema)
    return np.array([one.holds(columns) for one in conditions], dtype=np.bool_).reshape(-1, len(inputs))


class Growth:
    """A tree being grown on one half of the window and one of the reference."""

    def __init__(self, window: Half, reference: Ground, schema: Schema) -> None:
        self._sides = (window, reference.half)
        self._conditions = reference.conditions
        self._held = [_held(window.inputs, reference.conditions, schema), reference.held]
        self._least = (LEAST_SHARE * len(window.inputs), float(LEAST_KNOWN))

    def worst(self) -> Slice:
        """The leaf whose excess is the surest; empty where nothing can be split."""
        whole: list[Rows] = [np.ones(len(side.inputs), dtype=bool) for side in self._sides]
        leaves = [leaf for leaf in self._leaves((), whole, DEPTH) if leaf[1]]
        return max(leaves, default=(0.0, ()), key=lambda leaf: leaf[0])[1]

    def _leaves(self, path: Slice, node: list[Rows], depth: int) -> Iterator[tuple[float, Slice]]:
        """Excess in standard errors, but for a factor, and path of each leaf below a node."""
        split = self._best(node) if depth else None
        if split is None:
            counts, excess = self._sums([np.ones((1, len(rows)), dtype=bool) for rows in node], node)
            yield float(excess[0] * np.sqrt(_weight(counts)[0])), path
            return
        for place in (split, split + len(self._conditions) // 2):
            inside = [rows & held[place] for rows, held in zip(node, self._held, strict=True)]
            yield from self._leaves((*path, self._conditions[place]), inside, depth - 1)

    def _best(self, node: list[Rows]) -> int | None:
        """The cut of a node whose sides' excesses differ most, by the errors they would have with equal variances."""
        counts, excess = self._sums(self._held, node)
        enough = (counts >= np.array(self._least)[:, None]).all(axis=0).reshape(2, -1).all(axis=0)
        if not enough.any():
            return None
        weights = _weight(counts).reshape(2, -1)
        gains = np.diff(excess.reshape(2, -1), axis=0)[0] ** 2 * _weight(weights)
        return int(np.argmax(np.where(enough, gains, -1.0)))

    def _sums(self, held: Sequence[Rows], node: list[Rows]) -> tuple[Array, Array]:
        """Rows of window and reference (2, c) that fulfil each of c conditions in a node, and their excess (c,)."""
        inside = [each[:, rows].astype(np.float64) for each, rows in zip(held, node, strict=True)]
        sums = [each @ side.badness[rows] for each, side, rows in zip(inside, self._sides, node, strict=True)]
        counts = np.array([each.sum(axis=1) for each in inside])
        means = np.array(sums) / np.maximum(counts, 1)
        return counts, np.asarray(means[0] - means[1], dtype=np.float64)


def _weight(counts: Array) -> Array:
    """Of two samples (2, c): the rows that a mean with the same error as their difference has, but for a factor."""
    return np.asarray(counts.prod(axis=0) / np.maximum(counts.sum(axis=0), 1e-9), dtype=np.float64)


class FoundSlices(Measure):
    """The task's metric in the slice where the champion seems worst, beside the same on the reference: it explains a
    model that is worse, and says nothing of whether one is."""

    name: ClassVar[str] = "slice_performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, on rows that had no say in choosing its slice; its subject is the slice in words."""
        if min(int(side.labelled.sum()) for side in (view.window, view.reference)) < LEAST_LABELS:
            return [self._none(f"needs {LEAST_LABELS} labels of each side")]
        known = view.once(self.name, lambda: _ground(view))
        mine = _searched(view, view.window)
        if mine is None or known is None:
            return [self._none(f"{task_metric(view).name} is undefined on half of the rows")]
        found = Growth(mine, known, view.tellable).worst()
        if not found:
            return [self._none("nothing to split by")]
        schema = view.tellable
        return [beside(view, self.name, in_words(found), lambda side: _inside(side, found, schema))]

    def _none(self, why: str) -> Measurement:
        return Measurement(name=self.name, note=why)


def _searching(side: Side) -> Rows:
    """Which of the champion's rows (m,) the tree is grown on: every other block of labelled ones."""
    places = side.labelled.cumsum() - 1
    blocks = places * BLOCKS // max(1, int(side.labelled.sum()))
    return np.asarray(side.labelled & (blocks % 2 == 0))


def _inside(side: Side, found: Slice, schema: Schema) -> Rows:
    """Which of the champion's rows (m,) are in the slice and were not searched."""
    columns = read(side.inputs[side.own], schema, {one.column for one in found})
    return np.asarray(np.logical_and.reduce([~_searching(side), *(one.holds(columns) for one in found)]))


def _ground(view: View) -> Ground | None:
    half = _searched(view, view.reference)
    return None if half is None else ground(half, view.tellable)


def _searched(view: View, side: Side) -> Half | None:
    """The rows the tree is grown on; None where the metric is undefined on them."""
    rows = np.flatnonzero(_searching(side))
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    metric = task_metric(view)
    badness = metric.gain(0, 1) * metric.influence(side.labels[rows], side.scores.take(rows).scores)
    if not np.isfinite(badness).all():
        return None
    return Half(side.inputs[side.own].iloc[rows].reset_index(drop=True), badness)
