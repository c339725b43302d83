"""A column as measures read it: numbers, or codes of names. Each is made once a side, however many measures ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.conforming import TEXT
from registry.metrics import Array

Codes: TypeAlias = npt.NDArray[np.int64]
Marks: TypeAlias = npt.NDArray[np.bool_]

TELLING = 3
"""Columns that are looked at first for rows that repeat one another."""

_SPARE = 2  # bits by which slots are more than rows
_CHUNK = 8192  # rows whose hashes stay in the processor's cache
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbours end far apart (Knuth 1973, 6.4)


@dataclass(frozen=True)
class Numbers:
    """(n,) numbers, NaN where missing."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def missing(self) -> Marks:
        """Where nothing is."""
        return np.isnan(self.array)

    @cached_property
    def there(self) -> int:
        """How many are not missing."""
        return len(self) - int(np.count_nonzero(self.missing))

    @cached_property
    def present(self) -> Array:
        """The numbers that are there."""
        return self.array[~self.missing] if self.there < len(self) else self.array

    def outside(self, low: float, high: float) -> Codes:
        """Which rows have a number below the one or above the other; looked up once, as several measures ask."""
        if (low, high) not in self._outside:
            marks = self.array < low
            marks |= self.array > high
            self._outside[low, high] = np.flatnonzero(marks)
        return self._outside[low, high]

    @cached_property
    def _outside(self) -> dict[tuple[float, float], Codes]:
        return {}

    def most_frequent(self) -> tuple[float, int] | None:
        """A number that more than half of those there are, and how many these are; None without such. If there is one,
        it stands in the middle."""
        if not len(self.present):
            return None
        middle = float(np.partition(self.present, len(self.present) // 2)[len(self.present) // 2])
        count = int((self.present == middle).sum())
        return (middle, count) if 2 * count > len(self.present) else None

    def hits(self, value: object) -> int:
        """How many rows have this number."""
        return int((self.present == value).sum())

    def changes(self) -> int:
        """How often a number differs from the one before."""
        return int(np.count_nonzero(self.present[1:] != self.present[:-1]))

    def digest(self, rows: slice) -> npt.NDArray[np.uint64]:
        """A number for each of these rows that is the same for the same value."""
        return (self.array[rows] + 0.0).view(np.uint64)  # -0.0 becomes 0.0


@dataclass(frozen=True)
class Names:
    """(n,) places in `names`, -1 where missing."""

    codes: Codes
    names: pd.Index

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def missing(self) -> Marks:
        """Where nothing is."""
        return np.asarray(self.codes < 0)

    @cached_property
    def there(self) -> int:
        """How many are not missing."""
        return len(self) - int(np.count_nonzero(self.missing))

    @cached_property
    def present(self) -> Codes:
        """The codes that are there."""
        return self.codes[~self.missing] if self.missing.any() else self.codes

    @cached_property
    def counts(self) -> Codes:
        """Rows of each name."""
        return np.bincount(self.present, minlength=len(self.names))

    def most_frequent(self) -> tuple[object, int] | None:
        """A name that more than half of the rows have that have one, and how many these are; None without such."""
        if not len(self.present):
            return None
        place = int(self.counts.argmax())
        count = int(self.counts[place])
        return (self.names[place], count) if 2 * count > len(self.present) else None

    def hits(self, value: object) -> int:
        """How many rows have this name."""
        place = int(self.names.get_indexer(pd.Index([value]))[0])
        return int(self.counts[place]) if place >= 0 else 0

    def changes(self) -> int:
        """How often a name differs from the one before."""
        return int(np.count_nonzero(self.present[1:] != self.present[:-1]))

    def digest(self, rows: slice) -> npt.NDArray[np.uint64]:
        """A number for each of these rows that is the same for the same name of this column."""
        return self.codes[rows].astype(np.uint64)


@dataclass(frozen=True)
class Texts(Numbers):
    """(n,) numbers of characters, NaN where missing, and what they are of."""

    names: Names

    def digest(self, rows: slice) -> npt.NDArray[np.uint64]:
        """A number for each of these rows that is the same for the same text."""
        return self.names.digest(rows)


Values: TypeAlias = Numbers | Names


def values_of(column: pd.Series[Any]) -> Values:
    """A conformed column: numbers and truth values as they are, moments in seconds, texts by their characters, anything
    else as names."""
    if column.dtype.kind in "fiub":
        return Numbers(column.to_numpy(dtype=np.float64))
    if column.dtype.kind == "M":
        since = column - pd.Timestamp(0).as_unit("us")  # nanoseconds end in 2262, and 9999-12-31 is a common "never"
        return Numbers(np.asarray(since.dt.total_seconds(), dtype=np.float64))
    if column.dtype == TEXT:
        return Texts(np.asarray(column.str.len(), dtype=np.float64), names_of(column))
    return names_of(column)


def places_of(names: pd.Index, known: Mapping[Any, int]) -> Codes:
    """The place of each name (n,), -1 of one that is not known; an index takes a tenth of a millisecond to look at any.

    >>> places_of(pd.Index(["a", "b"]), {"b": 3}).tolist()
    [-1, 3]
    """
    return np.array([known.get(name, -1) for name in names.tolist()], dtype=np.int64)


def names_of(values: Any) -> Names:
    """(n,) values of any kind as names; None and NaN are missing."""
    codes, names = pd.factorize(values)
    return Names(np.asarray(codes, dtype=np.int64), pd.Index(names))


def repeats(columns: Sequence[Values]) -> int:
    """How many rows are the same as an earlier one in every column; rows are told apart by 64 bits of a hash. Where the
    first `TELLING` columns tell all of them apart, the others are not looked at."""
    if not columns or not len(columns[0]):
        return 0
    mixed = np.zeros(len(columns[0]), dtype=np.uint64)
    for some in (columns[:TELLING], columns[TELLING:]):
        _mix(mixed, some)
        if not (same := _again(mixed)):
            break
    return same


def _again(hashes: npt.NDArray[np.uint64]) -> int:
    """How many of (n,) hashes have come before. Each is written into the slot of its leading bits, of which there are
    more than hashes: one that is still there was alone, or the last; the few others are told apart, with those that
    took their slots."""
    slots = (hashes >> np.uint64(64 - _SPARE - len(hashes).bit_length())).view(np.int64)
    rows, last = np.arange(len(hashes), dtype=np.int32), np.empty(1 << (_SPARE + len(hashes).bit_length()), np.int32)
    last[slots] = rows
    stayed = last.take(slots)
    lost = stayed != rows
    marks = lost.copy()
    marks[stayed.take(np.flatnonzero(lost))] = True  # by a mask it takes longer
    some = hashes.take(np.flatnonzero(marks))
    return len(some) - len(pd.unique(some))


def _mix(mixed: npt.NDArray[np.uint64], columns: Sequence[Values]) -> None:
    """Add columns to the hashes of rows (n,)."""
    for start in range(0, len(mixed), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part = mixed[rows]
        for one in columns:
            part ^= one.digest(rows)
            part *= _MIX
            part ^= part >> np.uint64(29)


def spaced(count: int, most: int) -> Codes:
    """At most so many positions among `count`, evenly spaced from the first to the last.

    >>> spaced(5, 3).tolist(), spaced(2, 3).tolist(), spaced(0, 3).tolist()
    ([0, 2, 4], [0, 1], [])
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)
