"""What an answer's `warnings` say of rows that fit: numbers outside the range of training, moments far beyond it, and
values that are missing where none was in training.

A moment is far when it is further from those of training than these are from one another: that time passes is no news,
another century is. What lies ahead is measured from now, if that is later than training's end. Of images nothing is
said: a missing one is of the mean colour by then.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.schema import Column, DatetimeColumn, NumericColumn, Schema
from registry.scoring import MISSING_TIME, Feed

MOST = 20
"""Columns that are named in one answer."""

DAY = 86_400_000_000
"""In microseconds: moments of training are taken to be at least so far apart."""


class _Moments(NamedTuple):
    """What is expected of a column of moments, in microseconds since 1970."""

    low: int
    high: int
    span: int

    @property
    def first(self) -> int:
        """The earliest that is not far before those of training."""
        return self.low - self.span

    def last(self, now: int) -> int:
        """The latest that is not far after them, and after now."""
        return max(self.high, now) + self.span


class Cautions:
    """The schema, compiled to be cautious."""

    def __init__(self, schema: Schema) -> None:
        places = {column.name: place for place, column in enumerate(schema.columns)}
        ranges = {one.name: found for one in schema.columns if (found := _range(one)) is not None}
        self._whole = {one.name for one in schema.columns if not one.missing and one.kind != "image"}
        self._ranges = [(name, *found) for name, found in ranges.items()]
        self._moments = [(one.name, known) for one in schema.columns if (known := _expected(one)) is not None]
        self._categories = [one.name for one in schema.of("categorical") if one.name in self._whole]
        self._texts = [one.name for one in schema.of("text") if one.name in self._whole]
        # for single rows: as positions in a row's values; a range holds no NaN, which is missing
        self._strict = [(places[name], *found) for name, found in ranges.items() if name in self._whole]
        self._loose = [(places[name], *found) for name, found in ranges.items() if name not in self._whole]
        self._named = [places[name] for name in self._categories]
        self._words = [places[name] for name in self._texts]
        self._times = [(places[name], one.first, name in self._whole, one) for name, one in self._moments]

    def odd(self, values: Sequence[Any]) -> bool:
        """Whether there is anything to say of one row of `RowReader.values`: the quick form of `of`."""
        for place, low, high in self._strict:
            if not low <= values[place] <= high:
                return True
        for place, low, high in self._loose:
            if values[place] < low or values[place] > high:
                return True
        for place in self._named:
            if not values[place]:
                return True
        for place, first, whole, one in self._times:
            if not first <= values[place] <= one.high and _is_far(values[place], whole, one):
                return True
        return bool(self._words) and any(np.isnan(values[place][0]) for place in self._words)

    def of(self, feed: Feed, full: Collection[str] = ()) -> list[str]:
        """What there is to say of n rows, a line each, bounded in number. In `full` are columns of categories of which
        it is known that nothing is missing."""
        lines = list[str]()
        for name, low, high in self._ranges:
            lines += _of_numbers(feed[name], name, low, high, name in self._whole)
        for name in self._texts:
            lines += _gaps(np.isnan(feed[name][:, 0]), name)
        for name in self._categories:
            if name not in full and "" in (values := feed[name][:, 0].tolist()):
                lines += _gaps(np.array([one == "" for one in values]), name)
        for name, one in self._moments:
            lines += _of_moments(feed[name][:, 0], name, one, name in self._whole)
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
    return _Moments(low, high, max(high - low, DAY))


def _is_far(value: int, whole: bool, one: _Moments) -> bool:
    """Of a moment that is not between those of training."""
    if value < one.first:
        return whole or value != MISSING_TIME
    return value > one.last(time.time_ns() // 1000)


def _of_numbers(values: npt.NDArray[Any], name: str, low: float, high: float, whole: bool) -> list[str]:
    if whole and ((values >= low) & (values <= high)).all():
        return []
    lines = _outside(values, name, low, high)
    return [*lines, *_gaps(np.isnan(values), name)] if whole else lines


def _outside(values: npt.NDArray[Any], name: str, low: float, high: float) -> list[str]:
    odd = np.flatnonzero((values < low) | (values > high))
    if not odd.size:
        return []
    first = float(values[odd[0], 0])
    return [f"{name}: {first:g} is outside the range seen in training, {low:g} to {high:g}{_more(odd)}"]


def _gaps(missing: npt.NDArray[np.bool_], name: str) -> list[str]:
    odd = np.flatnonzero(missing)
    return [f"{name}: missing, which it never was in training{_more(odd)}"] if odd.size else []


def _of_moments(values: npt.NDArray[Any], name: str, one: _Moments, whole: bool) -> list[str]:
    if ((values >= one.first) & (values <= one.high)).all():
        return []
    gaps = values == MISSING_TIME
    lines = _gaps(gaps, name) if whole else []
    for odd, said in (
        (np.flatnonzero((values < one.first) & ~gaps), "before"),
        (np.flatnonzero(values > one.last(time.time_ns() // 1000)), "beyond now and"),
    ):
        if odd.size:
            between = f"{_written(one.low)} to {_written(one.high)}"
            first = _written(int(values[odd[0]]))
            lines.append(f"{name}: {first} is far {said} the moments of training, {between}{_more(odd)}")
    return lines


def _written(micros: int) -> str:
    return str(np.datetime_as_string(np.datetime64(micros, "us"), unit="m"))


def _more(odd: npt.NDArray[np.int64]) -> str:
    return f" (and {odd.size - 1} more rows)" if odd.size > 1 else ""
