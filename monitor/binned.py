"""All columns of a window in the bins that the reference sets, and how far each has moved: at once, as a small window
has more columns than rows in a bin, and to ask numpy takes longer than what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from monitor.borders import SortedColumns
from monitor.distribution import BINS, Distance, Distribution, distribution_of
from monitor.evidence import part_of
from monitor.significance import smirnov_ps
from monitor.values import Codes, Numbers
from monitor.views import Side, View
from registry.metrics import Array

FEW = 2_048
"""Most rows of a window whose numbers are placed for all columns at once: of more, a column is enough to do."""


@dataclass(frozen=True)
class Bins:
    """The distributions of columns in the reference, by name: of numbers first."""

    known: Mapping[str, Distribution]

    @cached_property
    def starts(self) -> Codes:
        """Where the bins of each column begin among those of all, and where all end, (k + 1,)."""
        return np.cumsum([0, *(one.size for one in self.known.values())])

    @cached_property
    def numbers(self) -> int:
        """How many columns hold numbers."""
        return sum(one.edges is not None for one in self.known.values())

    def count(self, side: Side) -> dict[str, Codes]:
        """Rows by bin of each column of a side."""
        if len(side) > FEW:
            return {name: one.count(side.column(name)) for name, one in self.known.items()}
        columns = dict(list(self.known.items())[: self.numbers])
        table, gone = np.empty((len(columns), len(side))), np.empty(len(columns), dtype=np.int64)
        for row, name in enumerate(columns):
            values = side.column(name)
            if not isinstance(values, Numbers):
                raise TypeError(f"column {name!r} holds no numbers")
            table[row], gone[row] = values.array, len(values) - values.there
        starts = self.starts[: self.numbers + 1]
        places = self._edges.below(table)
        places += starts[:-1, None]
        counts = np.bincount(places.ravel(), minlength=int(starts[-1]))
        counts[starts[:-1]] -= gone  # below NaN is no border
        each = (counts[start:end] for start, end in pairwise(starts.tolist()))
        found = dict(zip(columns, each, strict=True))
        names = {name: one.count(side.column(name)) for name, one in self.known.items() if name not in found}
        return found | names

    def distances(self, counts: Mapping[str, Codes], doubt: float, stride: float) -> dict[str, Distance | None]:
        """`Distribution.distance` of each column."""
        rows = {name: sum(one.tolist()) for name, one in counts.items()}  # bins are few
        names = [name for name, one in self.known.items() if one.edges is not None and one.total and rows[name]]
        others = self.known.keys() - set(names)
        found = {name: self.known[name].distance(counts[name], doubt=doubt, stride=stride) for name in others}
        if not names:
            return found
        known = [self.known[name] for name in names]
        there, sizes = np.array([rows[name] for name in names]), [one.size for one in known]
        starts = np.cumsum([0, *sizes])
        summed = np.concatenate([counts[name] for name in names]).cumsum()
        before = np.append(0, summed)[starts[:-1]]
        apart = (summed - before.repeat(sizes)) / there.repeat(sizes)
        apart -= np.concatenate([one.below for one in known])
        gaps = np.maximum(np.maximum.reduceat(apart, starts[:-1]), -np.minimum.reduceat(apart, starts[:-1]))
        units = there / np.array([one.effect(rows[name], stride) for name, one in zip(names, known, strict=True)])
        off = np.array([one.off(doubt) for one in known])
        chances = smirnov_ps(gaps, np.maximum(1.0, units), off, BINS)
        for name, gap, chance, unit in zip(names, gaps.tolist(), chances.tolist(), units.tolist(), strict=True):
            found[name] = Distance(gap, part_of(chance, unit))
        return found

    @cached_property
    def _edges(self) -> SortedColumns:
        edges: list[Array] = [one.edges for one in self.known.values() if one.edges is not None]
        return SortedColumns(edges)


def bins_of(view: View) -> Bins:
    """Those of all columns but moments, which always move on."""
    return view.once("bins", lambda: _bins(view))


def _bins(view: View) -> Bins:
    names = [one.name for one in view.manifest.data_schema.columns if one.kind != "datetime"]
    known = {name: known_column(view, name) for name in names}
    return Bins(dict(sorted(known.items(), key=lambda pair: pair[1].edges is None)))


def known_column(view: View, name: str) -> Distribution:
    """The distribution of a column in the reference."""
    return view.once(f"distribution of {name}", lambda: distribution_of(view.reference.column(name)))


def counts_of(view: View, name: str) -> Codes:
    """A column's rows of the window in the bins of the reference."""
    return _counts(view)[name]


def distance_of_column(view: View, name: str) -> Distance | None:
    """How far a column has moved; None where the window, or the reference, has no value."""
    return view.here("distances of columns", lambda: _distances(view))[name]


def _distances(view: View) -> dict[str, Distance | None]:
    return bins_of(view).distances(_counts(view), view.doubt, view.stride)


def _counts(view: View) -> dict[str, Codes]:
    return view.here("counts of columns", lambda: bins_of(view).count(view.window))
