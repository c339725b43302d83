"""What the discriminant that tells a window from the reference is linear in (`domain.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from monitor.borders import SortedColumns
from monitor.values import Codes, Marks
from registry.metrics import Array
from registry.yardstick import Features

MOST_CROSSED = 24
"""Numbers that are multiplied by one another, the first ones: 276 products."""

FLAGS = 8
"""Codes of a category that count."""


@dataclass(frozen=True)
class Placed:
    """n rows: where each of k numbers lies on its scale (k, n), codes of c categories (c, n), and what is missing of
    all columns (d, n)."""

    places: Codes
    codes: Array
    missing: Marks

    def __len__(self) -> int:
        return int(self.missing.shape[1])

    def halves(self) -> tuple[Placed, Placed]:
        """The rows up to the middle, and those from there on."""
        middle = len(self) // 2
        return self._cut(slice(middle)), self._cut(slice(middle, None))

    def _cut(self, rows: slice) -> Placed:
        return Placed(self.places[:, rows], self.codes[:, rows], self.missing[:, rows])


class Scales:
    """The different values that (n, d) reference rows have in each column of numbers, and the places of others beside
    them: 2 j + 1 at the j-th value, 2 j below it and above the one before, and a last place for what is missing. Places
    of one column follow those of the columns before it. They tell the ranks in any part of these rows (`Ranks`)."""

    def __init__(self, rows: Features, categorical: Sequence[bool]) -> None:
        codes = np.asarray(categorical, dtype=np.bool_)
        self._numbers, self._codes = np.flatnonzero(~codes), np.flatnonzero(codes)
        known = [np.unique(column[~np.isnan(column)]) for column in rows[:, self._numbers].T]
        self._values = SortedColumns(known)
        self.starts = np.cumsum([0, *(2 * len(one) + 2 for one in known)])

    def place(self, rows: Features) -> Placed:
        """Where (n, d) rows lie."""
        columns = np.ascontiguousarray(rows.T)
        missing = np.isnan(columns)
        numbers = columns[self._numbers]
        places = self._values.below(numbers)
        same = self._values.hold(numbers, places)
        places *= 2
        places += same
        places += self.starts[:-1, None]
        np.copyto(places, self.starts[1:, None] - 1, where=missing[self._numbers])
        return Placed(places, columns[self._codes], missing)


class Ranks:
    """The mid-ranks among n rows, from -.5 to .5 and 0 where missing, of whatever lies on the same scales.

    >>> scales = Scales(np.array([[1.0], [2.0], [2.0], [4.0]]), [False])
    >>> known, asked = (scales.place(np.array(rows)) for rows in ([[1.0], [2.0], [2.0], [4.0]], [[0.0], [2.0], [3.0]]))
    >>> Ranks(scales, known).of(asked).tolist()
    [[-0.5, 0.0, 0.25]]
    """

    def __init__(self, scales: Scales, rows: Placed) -> None:
        starts, ends = scales.starts[:-1], scales.starts[1:]
        counts = np.bincount(rows.places.ravel(), minlength=int(scales.starts[-1]))
        counts[ends - 1] = 0  # what is missing counts for nothing
        sums = np.append(0, counts.cumsum())
        total, sizes = np.maximum(1, sums[ends] - sums[starts]), ends - starts
        below = 2 * (sums[1:] - np.repeat(sums[starts], sizes)) - counts
        self._table = below / np.repeat(2 * total, sizes) - 0.5
        self._table[ends - 1] = 0.0

    def of(self, rows: Placed, out: Array | None = None) -> Array:
        """The ranks (k, n) of n rows."""
        made: Array = self._table.take(rows.places, out=out, mode="clip")  # none is beyond the table; clip copies less
        return made


class Basis:
    """Learnt from n rows of the reference: ranks among these of numbers, their squares, their products by pairs,
    frequent codes, and what is missing."""

    def __init__(self, scales: Scales, rows: Placed) -> None:
        self._ranks = Ranks(scales, rows)
        self._frequent = [_frequent(codes) for codes in rows.codes]

    def expand(self, rows: Placed, *, lacking: bool = True) -> Features:
        """(k, n) numbers of n rows; unless `lacking`, without those of the missing values, the last ones."""
        several, n = len(rows.places), len(rows)
        crossed = min(MOST_CROSSED, several)
        flagged, marks = [len(one) for one in self._frequent], len(rows.missing) if lacking else 0
        ends = [*accumulate([0, several, several, crossed * (crossed - 1) // 2, *flagged, marks])]
        out = np.empty((ends[-1], n))  # filled part by part: to put parts together copies them all
        ranks, squares, products, *flags, missing = (out[start:end] for start, end in pairwise(ends))
        self._ranks.of(rows, ranks)
        np.multiply(ranks, ranks, out=squares)
        start = 0
        for place in range(crossed - 1):
            end = start + crossed - 1 - place
            np.multiply(ranks[place], ranks[place + 1 : crossed], out=products[start:end])
            start = end
        for part, frequent, codes in zip(flags, self._frequent, rows.codes, strict=True):
            part[:] = frequent[:, None] == codes
        missing[:] = rows.missing[:marks]
        return out


def _frequent(known: Array) -> Array:
    values, counts = np.unique(known[~np.isnan(known)], return_counts=True)
    return np.asarray(values[np.argsort(-counts, kind="stable")[:FLAGS]], dtype=np.float64)
