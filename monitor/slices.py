"""Where the champion is worse than it was: a slice of the rows that is found, not named beforehand.

A tree of depth `DEPTH` is grown on half of the labelled rows, in blocks of time, of the window and of the reference. A
row's badness is how far it pulls the task's metric to the bad side (`Metric.influence`). A node's excess is

    mean badness of the window's rows in it - mean badness of the reference's rows in it

and the split that makes two nodes' excesses differ most is taken, as a causal tree does with the effect of a treatment
(Athey & Imbens 2016). The leaf of the surest excess is then judged on the other half of either side, which had no say
in the choice: the figure is honest. What is worse everywhere alike shows no slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from monitor.conditions import Codebook, Coding, Condition, Positions, Rows, Slice, cuts, in_words
from monitor.measurements import Measurement
from monitor.performance import beside, task_metric
from monitor.values import Codes, Marks
from monitor.views import Measure, Side, View
from registry.metrics import BLOCKS, Array
from registry.schema import Schema

DEPTH = 2
LEAST_LABELS = 400
LEAST_SHARE = 0.05
"""Smallest share of the window's rows in a leaf."""

LEAST_KNOWN = 10
"""Fewest reference rows in a leaf."""

MOST_ROWS = 2_000
"""Rows of a side that the tree is grown on, evenly spread."""


@dataclass(frozen=True)
class Half:
    """Rows that a tree is grown on: their codes (d, n), each column's beyond those of the columns before it, and their
    badness (n,)."""

    codes: Codes
    badness: Array
    _whole: list[tuple[Array, Array]] = field(default_factory=list, init=False, repr=False, compare=False)

    def within(self, rows: Rows, size: int) -> tuple[Array, Array]:
        """How many of these rows (n,) have each of so many codes, and the sums of their badness, (s,)."""
        everything = bool(rows.all())
        if everything and self._whole:
            return self._whole[0]
        codes, badness = self.codes, self.badness
        if not everything:
            chosen = np.flatnonzero(rows)
            codes, badness = codes.take(chosen, axis=1), badness.take(chosen)
        places = codes.ravel()
        counts = np.bincount(places, minlength=size).astype(np.float64)
        sums = np.bincount(places, np.broadcast_to(badness, codes.shape).ravel(), minlength=size)
        found = counts, np.asarray(sums, dtype=np.float64)
        if everything:
            self._whole.append(found)
        return found


@dataclass(frozen=True)
class Ground:
    """What a tree needs of the reference, the same for every window: all conditions that are tried, each half of them
    the opposites of the other, of which column each is (c,), which codes fulfil them (c, s), how columns are coded, and
    a half of the reference's rows."""

    conditions: tuple[Condition, ...]
    columns: Codes
    held: Marks
    codebook: Codebook
    half: Half

    def add_up(self, by_code: Array) -> Array:
        """Of numbers by code (k, s) the sums by condition (k, c): few codes fulfil any, and at least one."""
        codes, starts = self._fulfilling
        return np.asarray(np.add.reduceat(by_code.take(codes, axis=1), starts, axis=1), dtype=np.float64)

    @cached_property
    def _fulfilling(self) -> tuple[Codes, Codes]:
        """The codes that fulfil each condition, one after another, and where those of each begin."""
        rows, codes = np.nonzero(self.held)
        return codes, np.searchsorted(rows, np.arange(len(self.held)))


def ground(side: Side, rows: Positions, badness: Array, schema: Schema) -> Ground:
    """The ground of these own rows of a reference: its quantiles and most frequent categories are what is cut at."""
    found = cuts(side.inputs.iloc[side.positions[rows]].reset_index(drop=True), schema)
    conditions = (*found, *(one.opposite for one in found))
    by_column = {name: [one for one in found if one.column == name] for name in schema.names}
    book = Codebook([Coding(one, by_column[one.name]) for one in schema.columns if by_column[one.name]])
    place = {one.name: number for number, one in enumerate(book.codings)}
    held = np.zeros((len(conditions), int(book.starts[-1])), dtype=np.bool_)
    for row, one in enumerate(conditions):
        coding = book.codings[place[one.column]]
        start = book.starts[place[one.column]]
        held[row, start : start + coding.size] = coding.held(one)
    columns = np.array([place[one.column] for one in conditions], dtype=np.int64)
    return Ground(conditions, columns, held, book, half(side, rows, badness, book))


def half(side: Side, rows: Positions, badness: Array, book: Codebook) -> Half:
    """These of a side's own rows as a tree reads them."""
    return Half(book.code(side.column, side.positions[rows]), badness)


class Growth:
    """A tree being grown on one half of the window and one of the reference."""

    def __init__(self, window: Half, reference: Ground) -> None:
        self._ground, self._sides = reference, (window, reference.half)
        self._least = np.array([[LEAST_SHARE * len(window.badness)], [LEAST_KNOWN]])

    def worst(self) -> Slice:
        """The leaf whose excess is the surest; empty where nothing can be split."""
        whole: list[Rows] = [np.ones(len(side.badness), dtype=bool) for side in self._sides]
        leaves = [leaf for leaf in self._leaves((), whole, DEPTH) if leaf[1]]
        return max(leaves, default=(0.0, ()), key=lambda leaf: leaf[0])[1]

    def _leaves(self, path: Slice, node: list[Rows], depth: int) -> Iterator[tuple[float, Slice]]:
        """Excess in standard errors, but for a factor, and path of each leaf below a node."""
        split = self._best(node) if depth else None
        if split is None:
            bad = [side.badness[rows] for side, rows in zip(self._sides, node, strict=True)]
            means = [float(one.mean()) if len(one) else 0.0 for one in bad]
            yield (means[0] - means[1]) * math.sqrt(_weight(*map(len, bad))), path
            return
        for place in (split, split + len(self._ground.conditions) // 2):
            held, column = self._ground.held[place], self._ground.columns[place]
            inside = [rows & held[side.codes[column]] for rows, side in zip(node, self._sides, strict=True)]
            yield from self._leaves((*path, self._ground.conditions[place]), inside, depth - 1)

    def _best(self, node: list[Rows]) -> int | None:
        """The cut of a node whose sides' excesses differ most, by the errors they would have with equal variances."""
        counts, excess = self._sums(node)
        enough = (counts >= self._least).all(axis=0).reshape(2, -1).all(axis=0)
        if not enough.any():
            return None
        held, others = excess.reshape(2, -1)
        gains = (others - held) ** 2 * _weight(*_weight(*counts).reshape(2, -1))
        return int(np.argmax(np.where(enough, gains, -1.0)))

    def _sums(self, node: list[Rows]) -> tuple[Array, Array]:
        """Rows of window and reference (2, c) in a node that fulfil each condition, and their excess (c,): counted once
        by code, and added up by condition."""
        size = self._ground.held.shape[1]
        found = [side.within(rows, size) for side, rows in zip(self._sides, node, strict=True)]
        counts, sums = self._ground.add_up(np.concatenate(list(zip(*found, strict=True)))).reshape(2, 2, -1)
        means = sums / np.maximum(counts, 1)
        return counts, np.asarray(means[0] - means[1], dtype=np.float64)


def _weight(first: Array | float, second: Array | float) -> Array:
    """Of two samples of so many rows, one pair or (c,): the rows that a mean with the same error as their difference
    has, but for a factor."""
    return np.asarray(first * second / np.maximum(first + second, 1e-9), dtype=np.float64)


@dataclass(frozen=True)
class Found:
    """A slice in words, and of the champion's rows of window and reference (m,) which are in it, and which had a say in
    where it is."""

    subject: str
    window: tuple[Rows, Rows]
    reference: tuple[Rows, Rows]


class FoundSlices(Measure):
    """The task's metric in the slice where the champion seems worst, beside the same on the reference: it explains a
    model that is worse, and says nothing of whether one is."""

    name: ClassVar[str] = "slice_performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, on rows that had no say in choosing its slice; its subject is the slice in words."""
        found = slice_found(view)
        if isinstance(found, str):
            return [Measurement(name=self.name, note=found)]
        return [beside(view, self.name, found.subject, lambda side: _judged(view, side, found))]


def slice_found(view: View) -> Found | str:
    """The slice of a window where the champion seems worst, looked for once; or why there is none."""
    return view.here("slice", lambda: _look(view))


def _look(view: View) -> Found | str:
    if min(int(side.labelled.sum()) for side in (view.window, view.reference)) < LEAST_LABELS:
        return f"needs {LEAST_LABELS} labels of each side"
    known = view.once("ground of slices", lambda: _ground(view))
    mine = _searched(view, view.window)
    if mine is None or known is None:
        return f"{task_metric(view).name} is undefined on half of the rows"
    found = Growth(half(view.window, *mine, known.codebook), known).worst()
    if not found:
        return "nothing to split by"
    sought = view.once("rows that slices are sought in", lambda: _searching(view.reference))
    inside = [
        np.logical_and.reduce([one.holds(side.column(one.column)) for one in found])[side.own]
        for side in (view.window, view.reference)
    ]
    return Found(in_words(found), (inside[0], _searching(view.window)), (inside[1], sought))


def _judged(view: View, side: Side, found: Found) -> Rows:
    """Which of the champion's rows (m,) are in the slice, and had no say in where it is."""
    inside, sought = found.reference if side is view.reference else found.window
    return np.asarray(inside & ~sought)


def _searching(side: Side) -> Rows:
    """Which of the champion's rows (m,) the tree is grown on: every other block of labelled ones."""
    labelled = np.flatnonzero(side.labelled)
    marks, ends = np.zeros(len(labelled), dtype=np.bool_), -(-np.arange(BLOCKS + 1) * len(labelled) // BLOCKS)
    for start, end in zip(ends[:-1:2], ends[1::2], strict=True):
        marks[start:end] = True
    if len(labelled) == len(side.labelled):
        return marks
    out = np.zeros(len(side.labelled), dtype=np.bool_)
    out[labelled] = marks
    return out


def _ground(view: View) -> Ground | None:
    found = _searched(view, view.reference)
    return None if found is None else ground(view.reference, *found, view.tellable)


def _searched(view: View, side: Side) -> tuple[Positions, Array] | None:
    """The rows the tree is grown on, by their place among the champion's, and their badness; None where the metric is
    undefined on them."""
    rows = np.flatnonzero(_searching(side))
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    metric = task_metric(view)
    badness = metric.gain(0, 1) * metric.influence(side.labels[rows], side.scores.scores[rows])
    return (rows, badness) if np.isfinite(badness).all() else None
