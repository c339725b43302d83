"""Which of the champion's rows lie in which segment: the values of the columns that the task watches apart, and the
slice that is found where the model is worst (`slices.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from monitor.conditions import Rows
from monitor.slices import slice_found
from monitor.values import Codes, Names, Values, places_of
from monitor.views import Side, View
from registry.metrics import Array
from registry.schema import canonical_category

T = TypeVar("T")

MOST_SEGMENTS = 50
"""Most values of one column that are watched apart: the most frequent of the reference."""


@dataclass(frozen=True)
class Parting:
    """The champion's rows parted into k segments: their names, and of each row of window and reference the segment, k
    of one that is in none, and k + 1 of one that had a say in where the segment is. `column`: by whose values; None of
    a slice that was found in this very window."""

    subjects: tuple[str, ...]
    window: Codes
    reference: Codes
    column: str | None = None

    def once(self, view: View, what: str, make: Callable[[], T]) -> T:
        """What depends on the reference alone; of a slice it is made anew."""
        return make() if self.column is None else view.once(f"{what} by {self.column}", make)

    def rows(self, codes: Codes, values: Array | None = None) -> Array:
        """How many rows of these codes are in each segment, and last in none, (k + 1,); or their values' sums."""
        size = len(self.subjects) + 1
        if size == 2:  # to compare twice is quicker
            inside = [np.flatnonzero(codes == place) for place in range(size)]
            return np.array([len(one) if values is None else values.take(one).sum() for one in inside], float)
        return np.asarray(np.bincount(codes, values, size + 1)[:size], dtype=np.float64)

    def table(self, codes: Codes, places: Codes, size: int) -> Array:
        """The same by which of so many places each row has, (k + 1, size)."""
        parts = len(self.subjects) + 1
        counts = np.bincount(codes * size + places, minlength=(parts + 1) * size)
        return np.asarray(counts.reshape(-1, size)[:parts], dtype=np.float64)


def partings(view: View) -> list[Parting]:
    """Those by the columns that are watched apart, then that by the slice found, if there is one."""
    return view.here("partings", lambda: [*_declared(view), *_found(view)])


def _declared(view: View) -> Iterator[Parting]:
    told = view.tellable.names
    for column in view.manifest.task.monitor.segments:
        if column in told:
            values, words, reference = view.once(f"segments of {column}", partial(_segments, view, column))
            yield Parting(words, _codes(view.window, column, values), reference, column)


def _segments(view: View, column: str) -> tuple[tuple[Any, ...], tuple[str, ...], Codes]:
    """The values that are watched apart, their names, and which of them each reference row has."""
    values = tuple(view.reference.columns[column].value_counts().index[:MOST_SEGMENTS])
    words = tuple(f"{column}={canonical_category(value)}" for value in values)
    return values, words, _codes(view.reference, column, values)


def _codes(side: Side, column: str, values: tuple[Any, ...]) -> Codes:
    """Which of the values each of the champion's rows has."""
    found = _places(side.column(column), {value: place for place, value in enumerate(values)})
    found = np.where(found < 0, len(values), found)
    return found if side.own.all() else found[side.own]


def _places(values: Values, known: dict[Any, int]) -> Codes:
    if isinstance(values, Names):
        return np.append(places_of(values.names, known), -1)[values.codes]
    out = np.full(len(values), -1, dtype=np.int64)
    for value, place in known.items():  # true and false
        out[values.array == float(value)] = place
    return out


def _found(view: View) -> Iterator[Parting]:
    found = slice_found(view)
    if not isinstance(found, str):
        window, reference = (_coded(*one) for one in (found.window, found.reference))
        yield Parting((found.subject,), window, reference)


def _coded(inside: Rows, sought: Rows) -> Codes:
    out = np.subtract(1, inside, dtype=np.int64)
    out[sought] = 2
    return out


def labelled(codes: Codes, side: Side) -> Codes:
    """The codes of those of the champion's rows that have a label."""
    return codes if side.labelled.all() else codes[side.labelled]
