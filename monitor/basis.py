"""What the discriminant that tells a window from the reference is linear in (`domain.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from monitor.values import Codes
from registry.metrics import Array
from registry.yardstick import Features

MOST_CROSSED = 24
"""Numbers that are multiplied by one another, the first ones: 276 products."""

FLAGS = 8
"""Codes of a category that count."""


class Columns:
    """(n, d) rows by column, each in its order too, which several bases ask for: values that come in order find their
    places among others in a third of the time."""

    def __init__(self, rows: Features) -> None:
        self.values = np.ascontiguousarray(rows.T)

    def __len__(self) -> int:
        return int(self.values.shape[1])

    @cached_property
    def order(self) -> Codes:
        """Positions (d, n) from each column's least value to its largest, NaN last."""
        return np.argsort(self.values, axis=1)


class Basis:
    """Learnt from (n, d) rows of the reference: ranks among these of numbers, from -.5 to .5 and 0 where missing, their
    squares, their products by pairs, what is missing, and frequent codes."""

    def __init__(self, rows: Columns, categorical: Sequence[bool]) -> None:
        codes = np.asarray(categorical, dtype=np.bool_)
        self._numbers, self._codes = np.flatnonzero(~codes), np.flatnonzero(codes)
        self._ranks = [Ranks(rows.values[place]) for place in self._numbers]
        self._frequent = [_frequent(rows.values[place]) for place in self._codes]

    def expand(self, rows: Columns) -> Features:
        """(k, n) numbers of n rows."""
        several, n = len(self._numbers), len(rows)
        crossed = min(MOST_CROSSED, several)
        sizes = several, several, crossed * (crossed - 1) // 2, len(rows.values), *(len(one) for one in self._frequent)
        out = np.empty((sum(sizes), n))  # filled part by part: to put parts together copies them all
        ranks, squares, products, missing, *flags = np.split(out, np.cumsum(sizes)[:-1])
        for place, (column, known) in enumerate(zip(self._numbers, self._ranks, strict=True)):
            order = rows.order[column]
            ranks[place, order] = known.of(rows.values[column][order])
        np.multiply(ranks, ranks, out=squares)
        start = 0
        for place in range(crossed - 1):
            end = start + crossed - 1 - place
            np.multiply(ranks[place], ranks[place + 1 : crossed], out=products[start:end])
            start = end
        missing[:] = np.isnan(rows.values)
        for part, frequent, column in zip(flags, self._frequent, self._codes, strict=True):
            part[:] = frequent[:, None] == rows.values[column]
        return out


class Ranks:
    """The mid-ranks of (n,) numbers, from -.5 to .5; NaN count for nothing.

    >>> Ranks(np.array([1.0, 2.0, 2.0, 4.0])).of(np.array([0.0, 2.0, 3.0, np.nan])).tolist()
    [-0.5, 0.0, 0.25, 0.0]
    """

    def __init__(self, known: Array) -> None:
        values, counts = np.unique(known[~np.isnan(known)], return_counts=True)
        ends, total = counts.cumsum(), max(1, int(counts.sum()))
        self._values = np.append(values, np.nan)
        self._between = np.append(0, ends) / total - 0.5
        self._at = np.append((2 * ends - counts) / (2 * total) - 0.5, 0.0)

    def of(self, asked: Array) -> Array:
        """The ranks of (m,) numbers, 0 of NaN; quickest where these come in order."""
        places = np.searchsorted(self._values[:-1], asked, "left")
        ranks = np.where(self._values[places] == asked, self._at[places], self._between[places])
        return np.where(np.isnan(asked), 0.0, ranks)


def _frequent(known: Array) -> Array:
    values, counts = np.unique(known[~np.isnan(known)], return_counts=True)
    return np.asarray(values[np.argsort(-counts, kind="stable")[:FLAGS]], dtype=np.float64)
