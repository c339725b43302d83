"""A column of a frame, or of the log, as a schema's column holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitor.values import Names
from registry.conforming import Categories, conform_categories, conform_column, numbered
from registry.errors import RowError
from registry.schema import CategoricalColumn, Column


@dataclass(frozen=True)
class Broken:
    """How many values of a column it cannot hold, and one of them."""

    rows: int
    example: str


class Read(NamedTuple):
    """A conformed column, its codes if it is categorical, where `raw` is as it came; and what it could not hold."""

    raw: pd.Series[Any]
    coded: Categories | None = None
    fault: Broken | None = None

    @property
    def values(self) -> pd.Series[Any]:
        """The conformed column."""
        return self.raw if self.coded is None else self.coded.strings(self.raw)

    @property
    def names(self) -> Names | None:
        """As measures read it, if it is categorical."""
        return None if self.coded is None else Names(self.coded.codes, self.coded.names)


class Conformed(Mapping[str, Any]):
    """Conformed columns by name: categories are made strings when somebody asks, which few do."""

    def __init__(self, read: Mapping[str, Read]) -> None:
        self._read = dict(read)
        self._made: dict[str, pd.Series[Any]] = {}

    def __getitem__(self, name: str) -> pd.Series[Any]:
        if name not in self._made:
            self._made[name] = self._read[name].values
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    def __contains__(self, name: object) -> bool:
        return name in self._read


def read_column(raw: pd.Series[Any], column: Column) -> Read:
    """A raw column of values that it can hold, as `conform_column` raises."""
    if not isinstance(column, CategoricalColumn):
        return Read(conform_column(raw, column))
    return Read(raw := numbered(raw), conform_categories(raw, column))


def readable(logged: pd.DataFrame, column: Column) -> Read:
    """A logged column, what it cannot hold made missing; a vanished column is missing throughout."""
    if column.name not in logged.columns:
        return read_column(pd.Series([None] * len(logged), dtype=object), column)
    raw = numbered(logged[column.name])
    try:
        return read_column(raw, column)
    except (RowError, TypeError, ValueError):  # the latter two: a list or an object, which pandas can't hash or compare
        fits = _fits(raw, column)
    broken = Broken(int((~fits).sum()), repr(raw[~fits].iloc[0])[:80])
    return read_column(raw.where(fits, None), column)._replace(fault=broken)


def _fits(raw: pd.Series[Any], column: Column) -> npt.NDArray[np.bool_]:
    """Which values the column can hold, missing ones included."""
    flat = raw.map(lambda value: not isinstance(value, (list, dict))).to_numpy(dtype=bool)
    missing, values = raw.isna().to_numpy(), raw.where(flat, None)
    if column.kind == "numeric":
        return flat & (missing | pd.to_numeric(values, errors="coerce").notna().to_numpy())
    if column.kind == "datetime":
        moments = pd.to_datetime(values.map(_text), utc=True, format="ISO8601", errors="coerce")
        return flat & (missing | moments.notna().to_numpy())
    if column.kind == "boolean":
        known = {value: _holds(value, column) for value in values.dropna().unique()}
        return flat & (missing | values.map(known).eq(True).to_numpy())
    return flat


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _holds(value: object, column: Column) -> bool:
    try:
        conform_column(pd.Series([value], dtype=object), column)
    except RowError:
        return False
    return True
