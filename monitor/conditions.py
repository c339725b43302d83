"""What a row of a slice fulfils: conditions on columns, in words, and columns in codes that tell all of them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitor.borders import SortedColumns
from monitor.values import Codes, Names, Numbers, Values, places_of
from registry.metrics import Array
from registry.schema import Column, Schema

CUTS = 15
"""Most places at which a number is cut, and most categories that are set apart."""

TRUTHS = {0.0: "false", 1.0: "true"}
"""In the words they are written in."""

_TRUTHS = pd.Index(list(TRUTHS.values()))

Rows = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


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

    def holds(self, values: Values) -> Rows:
        """Which rows fulfil it, (n,), of n values of its column."""
        if self.value is None:
            return values.missing if self.sign == "missing" else ~values.missing
        if isinstance(values, Numbers) and not isinstance(self.value, str):
            return np.asarray(values.array > self.value if self.sign == ">" else values.array <= self.value)
        if isinstance(values, Numbers):
            same = values.array == (self.value == TRUTHS[1.0])
            return np.asarray(~values.missing & (same == (self.sign == "=")))
        meant = np.asarray((values.names == self.value) == (self.sign == "="), dtype=np.bool_)
        return np.append(meant, False)[values.codes]


_OPPOSITE = {">": "<=", "<=": ">", "=": "!=", "!=": "=", "missing": "there", "there": "missing"}

Slice = tuple[Condition, ...]


def _names(values: pd.Series[Any]) -> pd.Series[Any]:
    """Truths as the words they are written in; categories as they are."""
    return values.map(TRUTHS) if pd.api.types.is_numeric_dtype(values) else values


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


class Coding:
    """A column in codes that tell all of its conditions apart: 0 is missing, then what lies up to each place at which a
    number is cut, or each name that is set apart, then all else."""

    def __init__(self, column: Column, found: Sequence[Condition]) -> None:
        self.name = column.name
        self.places: Array = np.array([one.value for one in found if one.sign == ">"], dtype=np.float64)
        names = (one.value for one in found if one.sign == "=")
        self._names = {name: place for place, name in enumerate(names)}
        self.size = 2 + len(self.places) + len(self._names)

    def code(self, values: Values, rows: Positions) -> Codes:
        """The codes of these rows, of a column that is cut at no number."""
        if isinstance(values, Names):
            return self._of_names(values.names)[values.codes[rows]]
        numbers = values.array[rows]
        return self._of_names(_TRUTHS)[np.where(np.isnan(numbers), -1, numbers).astype(np.int64)]

    def _of_names(self, names: pd.Index) -> Codes:
        """The code of each name, and last of none."""
        found = places_of(names, self._names)
        return np.append(np.where(found < 0, len(self._names), found) + 1, 0)

    def held(self, one: Condition) -> Rows:
        """Which codes fulfil a condition on this column."""
        codes = np.arange(self.size)
        match one.sign:
            case "missing" | "there":
                return np.asarray((codes == 0) == (one.sign == "missing"))
            case "=" | "!=":
                same = codes == 1 + self._names.get(one.value, -1)
                return np.asarray((codes > 0) & (same == (one.sign == "=")))
        above = codes > 1 + np.searchsorted(self.places, float(one.value or 0.0))
        return np.asarray((codes > 0) & (above == (one.sign == ">")))


class Codebook:
    """Columns in codes, each column's beyond those of the columns before it, which begin at `starts` (d + 1,)."""

    def __init__(self, codings: Sequence[Coding]) -> None:
        self.codings = tuple(codings)
        self.starts: Codes = np.cumsum([0, *(one.size for one in codings)])
        self._numbers = [place for place, one in enumerate(codings) if len(one.places)]
        self._names = [place for place, one in enumerate(codings) if not len(one.places)]
        self._borders = SortedColumns([codings[place].places for place in self._numbers])

    def code(self, column: Callable[[str], Values], rows: Positions) -> Codes:
        """The codes of these rows (d, n) in the columns of a side."""
        out = np.empty((len(self.codings), len(rows)), dtype=np.int64)
        numbers = np.empty((len(self._numbers), len(rows)))
        for each, place in zip(numbers, self._numbers, strict=True):
            each[:] = _numbers(column(self.codings[place].name))[rows]
        out[self._numbers] = np.where(np.isnan(numbers), 0, self._borders.below(numbers) + 1)
        for place in self._names:
            out[place] = self.codings[place].code(column(self.codings[place].name), rows)
        out += self.starts[:-1, None]
        return out


def _numbers(values: Values) -> Array:
    if isinstance(values, Names):
        raise TypeError("a column that is cut at numbers holds names")
    return values.array
