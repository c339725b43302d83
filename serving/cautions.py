"""What an answer's `warnings` say of rows that fit: numbers outside the range of training, moments far beyond it,
values that are missing where none was in training, and columns that nobody reads.

A moment is far when it is further from those of training than these are from one another: that time passes is no news,
another century is. What lies ahead is measured from now, if that is later than training's end. Whether an image is
missing is told from the row that was sent: as the graph takes it, it is one of the mean colour.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.plurals import counted
from registry.schema import Column, DatetimeColumn, NumericColumn, Schema
from registry.scoring import MISSING_TIME, Feed
from serving.quoting import shorten

MOST = 20
"""Columns that are named in one answer."""

DAY = 86_400_000_000
"""In microseconds: moments of training are taken to be at least so far apart."""


class _Moments(NamedTuple):
    """What is expected of a column of moments, in microseconds since 1970: those of training, the `first` that is not
    far before them, and how far apart they are."""

    low: int
    high: int
    first: int
    span: int

    def last(self, now: int) -> int:
        """The latest that is not far after them, and after now."""
        return max(self.high, now) + self.span


class Cautions:
    """The schema, compiled to be cautious."""

    def __init__(self, schema: Schema) -> None:
        places = {column.name: place for place, column in enumerate(schema.columns)}
        whole = {one.name for one in schema.columns if not one.missing}
        ranges = [(one.name, *found) for one in schema.columns if (found := _range(one)) is not None]
        moments = [(one.name, known) for one in schema.columns if (known := _expected(one)) is not None]
        self._ranges = [(name, places[name], low, high, name in whole) for name, low, high in ranges]
        self._texts = [(one.name, places[one.name]) for one in schema.of("text") if one.name in whole]
        self._categories = [(one.name, places[one.name]) for one in schema.of("categorical") if one.name in whole]
        self._moments = [(name, places[name], one, name in whole) for name, one in moments]
        self._images = [one.name for one in schema.of("image") if one.name in whole]

    def one(self, values: Sequence[Any]) -> list[str]:
        """What there is to say of one row of `RowReader.values`: nothing as a rule, and that is found out quickly."""
        return _bounded(list(self._lines(values))) if self._odd(values) else []

    def _odd(self, values: Sequence[Any]) -> bool:
        for _, place, low, high, whole in self._ranges:
            value = values[place]
            if not low <= value <= high and (whole or value == value):  # NaN, which is missing, is in no range
                return True
        for _, place in self._categories:
            if not values[place]:
                return True
        for _, place, one, whole in self._moments:
            if not one.first <= values[place] <= one.high and _is_far(values[place], whole, one):
                return True
        return bool(self._texts) and any(np.isnan(values[place][0]) for _, place in self._texts)

    def _lines(self, values: Sequence[Any]) -> Iterator[str]:
        for name, place, low, high, whole in self._ranges:
            value = values[place]
            if value == value and not low <= value <= high:
                yield _outside(name, value, low, high)
            elif value != value and whole:
                yield _missing(name)
        yield from (_missing(name) for name, place in self._texts if np.isnan(values[place][0]))
        yield from (_missing(name) for name, place in self._categories if not values[place])
        for name, place, one, whole in self._moments:
            if _is_far(values[place], whole, one):
                yield _missing(name) if values[place] == MISSING_TIME else _far(name, values[place], one)

    def of_images(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What there is to say of the images that rows as they were sent do without."""
        gaps = [(name, sum(row[name] is None for row in rows)) for name in self._images]
        return [_missing(name, count) for name, count in gaps if count]

    def of(self, feed: Feed, full: Collection[str] = ()) -> list[str]:
        """What there is to say of n rows, a line each, bounded in number. In `full` are columns of categories of which
        it is known that nothing is missing."""
        lines = list[str]()
        for name, _, low, high, whole in self._ranges:
            lines += _of_numbers(feed[name], name, low, high, whole)
        for name, _ in self._texts:
            lines += _gaps(np.isnan(feed[name][:, 0]), name)
        for name, _ in self._categories:
            if name not in full and "" in (values := feed[name][:, 0].tolist()):
                lines += _gaps(np.array([one == "" for one in values]), name)
        for name, _, known, whole in self._moments:
            lines += _of_moments(feed[name][:, 0], name, known, whole)
        return _bounded(lines)


def of_unknown(names: Iterable[str]) -> list[str]:
    """What there is to say of columns that came and are none of the model's; where there are many, of the first.

    >>> of_unknown(["customer"])
    ['customer: is no column of the model, and was ignored']
    """
    return _bounded([f"{shorten(name)}: is no column of the model, and was ignored" for name in names])


def _bounded(lines: list[str]) -> list[str]:
    more = len(lines) - MOST
    return [*lines[:MOST], f"and {more} more"] if more > 0 else lines


def _range(column: Column) -> tuple[float, float] | None:
    """What numbers and truth values lie between; None where that is not known, or there is nothing to know."""
    if column.kind == "boolean":
        return None if column.missing else (0.0, 1.0)
    if not isinstance(column, NumericColumn) or column.low is None or column.high is None:
        return None
    return column.low, column.high


def _expected(column: Column) -> _Moments | None:
    if not isinstance(column, DatetimeColumn) or column.low is None or column.high is None:
        return None
    low, high = (int(np.datetime64(one, "us").astype(np.int64)) for one in (column.low, column.high))
    span = max(high - low, DAY)
    return _Moments(low, high, low - span, span)


def _is_far(value: int, whole: bool, one: _Moments) -> bool:
    if value < one.first:
        return whole or value != MISSING_TIME
    return value > one.high and value > one.last(time.time_ns() // 1000)


def _of_numbers(values: npt.NDArray[Any], name: str, low: float, high: float, whole: bool) -> list[str]:
    if whole and ((values >= low) & (values <= high)).all():
        return []
    odd = np.flatnonzero((values < low) | (values > high))
    lines = [_outside(name, float(values[odd[0], 0]), low, high, odd.size)] if odd.size else []
    return [*lines, *_gaps(np.isnan(values), name)] if whole else lines


def _gaps(missing: npt.NDArray[np.bool_], name: str) -> list[str]:
    count = int(missing.sum())
    return [_missing(name, count)] if count else []


def _of_moments(values: npt.NDArray[Any], name: str, one: _Moments, whole: bool) -> list[str]:
    if ((values >= one.first) & (values <= one.high)).all():
        return []
    gaps = values == MISSING_TIME
    odd = (values < one.first) & ~gaps, values > one.last(time.time_ns() // 1000)
    places = [np.flatnonzero(each) for each in odd]
    lines = [_far(name, int(values[each[0]]), one, each.size) for each in places if each.size]
    return [*(_gaps(gaps, name) if whole else []), *lines]


def _outside(name: str, value: float, low: float, high: float, rows: int = 1) -> str:
    return f"{name}: {value:g} is outside the range seen in training, {low:g} to {high:g}{_more(rows)}"


def _missing(name: str, rows: int = 1) -> str:
    return f"{name}: missing, which it never was in training{_more(rows)}"


def _far(name: str, value: int, one: _Moments, rows: int = 1) -> str:
    first, low, high = np.datetime_as_string(np.array([value, one.low, one.high], "datetime64[us]"), unit="m")
    where = "before" if value < one.low else "beyond now and"
    return f"{name}: {first} is far {where} the moments of training, {low} to {high}{_more(rows)}"


def _more(rows: int) -> str:
    return f" (and {counted(rows - 1, 'more row')})" if rows > 1 else ""
