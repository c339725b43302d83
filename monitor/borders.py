"""Between which borders numbers lie, by a table: a window has as many numbers to place as rows times columns.

The way from the first border to the last is cut into equal cells, and a number's cell is one multiplication. All
borders of earlier cells are below it, all of later ones are not; with those of its own cell it is compared. Rounding
cannot change that: subtraction, multiplication and truncation keep the order of numbers, and borders find their cells
as numbers do. So the places are those of a bisection, at a quarter of its time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from registry.metrics import Array

CELLS = 2_048
MOST_SHARING = 4
"""Borders that may share a cell: where more do, as in a heavy tail, bisection is no slower."""

FINE = 16_384
"""Cells of which many numbers at once are told by theirs alone."""

MANY = 8_192
"""Fewest of them: of fewer that is no faster."""

UNSURE = 255
"""Instead of a place, that of numbers in a cell with a border; borders are fewer."""

CROWDED = 32
"""One number in so many may be unsure: of more, as of whole numbers, all are compared with the borders of cells."""

WIDEST = 2.0**30
"""A cell far beyond the last one, and still a number of 32 bits."""

CHUNK = 32_768
"""Numbers that are counted at once: what is reckoned on the way stays in the processor's cache."""

Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Borders:
    """Increasing borders (b,).

    >>> Borders(np.array([0.0, 1.0, 5.0])).places(np.array([-1.0, 0.0, 0.5, 1.0, 9.0])).tolist()
    [0, 0, 1, 1, 3]
    """

    def __init__(self, borders: Array) -> None:
        self._borders = borders
        self._rounds: list[Array] = []
        self._fine: _Fine | None = None
        self._scale = _scale(borders)
        if not self._scale:
            return
        self._fine = _Fine(borders) if len(borders) < UNSURE and _scale(borders, FINE) else None
        cells = self._cells(borders)
        sharing = np.bincount(cells, minlength=CELLS + 1)
        if sharing.max() > MOST_SHARING:
            return
        self._before = (sharing.cumsum() - sharing).astype(np.int64)
        rank = np.arange(len(borders)) - self._before[cells]
        self._rounds = [np.full(CELLS + 1, np.inf) for _ in range(int(sharing.max()))]
        for border, cell, place in zip(borders, cells, rank, strict=True):
            self._rounds[place][cell] = border

    def places(self, numbers: Array) -> Places:
        """How many borders are below each of (n,) numbers; of NaN any."""
        out = np.empty(len(numbers), dtype=np.int64)
        for start in range(0, len(numbers), CHUNK):
            out[start : start + CHUNK] = self._placed(numbers[start : start + CHUNK])
        return out

    def count(self, numbers: Array, missing: int = 0) -> Places:
        """How many of the numbers have 0, 1, ... b borders below them, (b + 1,). So many of them are NaN, which are not
        counted."""
        if missing and not self._rounds:
            return self.count(numbers[~np.isnan(numbers)])
        out = np.zeros(len(self._borders) + 1, dtype=np.int64)
        for start in range(0, len(numbers), CHUNK):
            out += _counted(self._placed(numbers[start : start + CHUNK]), len(out))
        out[0] -= missing  # a NaN is in the first cell, and above no border
        return out

    def _placed(self, numbers: Array) -> Places | Bytes:
        """`places`, as bytes where most numbers are told by their cells."""
        if self._fine is not None and len(numbers) >= MANY:
            if (found := self._fine.places(numbers)) is not None:
                return found
            self._fine = None  # the next ones are likely to be such, too
        if not self._rounds:
            return np.asarray(np.searchsorted(self._borders, numbers, side="left"), dtype=np.int64)
        cells = self._cells(numbers)
        out = self._before.take(cells, mode="clip")
        for borders in self._rounds:
            out += numbers > borders.take(cells, mode="clip")
        return out

    def _cells(self, numbers: Array) -> Places:
        """The cell of each number, at most the last one; what lies below the first border, or is NaN, has one below
        the first cell."""
        with np.errstate(over="ignore", invalid="ignore"):  # endless is as good as far
            scaled = numbers - self._borders[0]
            scaled *= self._scale
            np.minimum(scaled, CELLS, out=scaled)
            return np.asarray(scaled.astype(np.int64))


class _Fine:
    """So many cells that few numbers lie in one that has a border: these are bisected, the others told by their cell
    alone. No border is in the first cell, or in the last, but by rounding."""

    def __init__(self, borders: Array) -> None:
        self._borders, self._scale = borders, _scale(borders, FINE)
        with np.errstate(over="ignore"):
            self._lowest = borders[0] - 2 / self._scale
        cells = np.minimum(self._cells(borders), FINE + 3)
        sharing = np.bincount(cells, minlength=FINE + 4)
        self._table = np.where(sharing > 0, UNSURE, sharing.cumsum()).astype(np.uint8)

    def places(self, numbers: Array) -> Bytes | None:
        """How many borders are below each of (n,) numbers, and 0 below NaN; None where too many have to be bisected."""
        out = self._table.take(self._cells(numbers), mode="clip")  # what lies beyond is as the first cell, or the last
        unsure = np.flatnonzero(out == UNSURE)
        if len(unsure) * CROWDED > len(out):
            return None
        some = numbers.take(unsure)
        out[unsure] = np.where(np.isnan(some), 0, np.searchsorted(self._borders, some, side="left"))
        return out

    def _cells(self, numbers: Array) -> npt.NDArray[np.int32]:
        """The cell of each number; what lies below all, or is NaN, has 0 or less."""
        with np.errstate(over="ignore", invalid="ignore"):  # endless is as good as far
            scaled = numbers - self._lowest
            scaled *= self._scale
            if np.fmax.reduce(scaled, initial=0.0) > WIDEST:
                np.minimum(scaled, WIDEST, out=scaled)
            return np.asarray(scaled.astype(np.int32))


def _counted(places: Places | Bytes, size: int) -> Places:
    """How many of the places are 0, 1, ... `size` - 1: bytes by pairs: to count takes longer than to join."""
    half, odd = divmod(len(places), 2)
    if places.dtype != np.uint8 or odd:
        return np.bincount(places, minlength=size)
    pairs = places[:half].astype(np.uint16)
    pairs *= np.uint16(size)
    pairs += places[half:]
    table = np.bincount(pairs, minlength=size * size).reshape(size, size)
    return np.asarray(table.sum(axis=0) + table.sum(axis=1))


class SortedColumns:
    """Increasing finite values (v_i,) of each of k columns; how many are below each of other numbers is told for all
    columns at once, as a small window has more columns than numbers in one. From where a cell's values begin it is
    bisected, in as many steps as the fullest cell of any column takes: at worst a bisection of all.

    >>> values, numbers = SortedColumns([np.array([1.0, 2.0]), np.array([0.0, 5.0])]), np.array([[2.0], [9.0]])
    >>> (below := values.below(numbers)).tolist(), values.hold(numbers, below).tolist()
    ([[1], [2]], [[True], [False]])
    """

    def __init__(self, columns: Sequence[Array]) -> None:
        self._lowest = np.array([one[0] if len(one) else 0.0 for one in columns])[:, None]
        self._scales = np.array([_scale(one) for one in columns])[:, None]
        self._first_cells = np.arange(len(columns))[:, None] * (CELLS + 1)
        of_column = zip(columns, self._lowest, self._scales, strict=True)
        cells = [_cells(one, lowest, scale) for one, lowest, scale in of_column]
        sharing = np.empty((len(columns), CELLS + 1), dtype=np.int64)
        for out, one in zip(sharing, cells, strict=True):
            out[:] = np.bincount(one, minlength=CELLS + 1)
        self._steps = [1 << power for power in reversed(range(int(sharing.max(initial=0)).bit_length()))]
        beyond = np.full(sum(self._steps) + 1, np.inf)  # no step leads out of its column
        self._values = np.concatenate([np.append(one, beyond) for one in columns] or [beyond])
        self._starts = np.cumsum([0, *(len(one) + len(beyond) for one in columns)])[:-1, None]
        self._before = (sharing.cumsum(axis=1) - sharing + self._starts).ravel()

    def below(self, numbers: Array) -> Places:
        """How many of its column's values are below each of (k, n) numbers, none being below NaN."""
        cells = _cells(numbers, self._lowest, self._scales) + self._first_cells
        found: Places = self._before.take(cells, mode="clip")  # none is beyond; clip copies less
        for step in self._steps:
            further = self._values.take(found + (step - 1), mode="clip") < numbers
            found += further if step == 1 else step * further
        found -= self._starts
        return found

    def hold(self, numbers: Array, below: Places) -> npt.NDArray[np.bool_]:
        """Which of the numbers, finite or NaN, that have so many values below them are values of their column."""
        return np.asarray(self._values.take(below + self._starts, mode="clip") == numbers)


def _scale(values: Array, cells: int = CELLS) -> float:
    """How many cells a unit has: 0, all in one, where there is no way from the first of increasing values to the last,
    or it is endless."""
    with np.errstate(over="ignore"):
        reach = float(values[-1] - values[0]) if len(values) > 1 else 0.0
    return cells / reach if reach > cells * sys.float_info.min and math.isfinite(reach) else 0.0


def _cells(numbers: Array, lowest: Array, scales: Array) -> Places:
    """From 0, that of NaN, to `CELLS`."""
    with np.errstate(over="ignore", invalid="ignore"):  # endless is as good as far
        scaled = numbers - lowest
        scaled *= scales
        np.fmax(scaled, 0, out=scaled)
    np.minimum(scaled, CELLS, out=scaled)
    return scaled.astype(np.int64)
