"""Rows by columns, in the types that a graph and the log take without a look at each value.

numbers       float64, NaN where missing          categories      canonical strings, empty where missing
moments       datetime64[us], NaT where missing   truth values    bool where none is missing
all else      lists of what JSON has, None where missing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from registry.schema import ColumnKind

JSON = "application/json"

Kinds: TypeAlias = Mapping[str, ColumnKind]
"""The columns that a model or the log reads."""

Values: TypeAlias = npt.NDArray[Any] | list[Any]


@dataclass(frozen=True)
class Table:
    """Columns of equal length, by name, and the form in which they came. A column may be a list whatever it holds."""

    columns: dict[str, Values]
    rows: int
    form: str = JSON
    full: frozenset[str] = frozenset()
    """Columns of categories of which it is known that no value is missing."""
    others: tuple[str, ...] = ()
    """The columns beside them, that neither a model nor the log reads."""

    def records(self) -> list[dict[str, Any]]:
        """The same as rows of what JSON has: to name the place of a value that does not fit."""
        lists = {name: plain(values) for name, values in self.columns.items()}
        if not lists:  # all that came is in `others`
            return [{} for _ in range(self.rows)]
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def to_json(self) -> bytes:
        """`{"columns": {...}}`, as the journal holds a request with images."""
        return b'{"columns":%b}' % written(self.columns)


def plain(values: Values) -> list[Any]:
    """A column as a list of what JSON has, None where missing."""
    if isinstance(values, list):
        return values
    if values.dtype.kind == "f":
        return [None if value != value else value for value in values.tolist()]
    if values.dtype.kind == "M":
        gaps = np.isnat(values).tolist()
        return [None if gap else one for gap, one in zip(gaps, np.datetime_as_string(values).tolist(), strict=True)]
    return values.tolist() if values.dtype == bool else [one or None for one in values.tolist()]


def written(columns: Mapping[str, Values]) -> bytes:
    """Columns as JSON, None where missing."""
    quick = {name: _quick(values) for name, values in columns.items()}
    return orjson.dumps(quick, option=orjson.OPT_SERIALIZE_NUMPY)


def _quick(values: Values) -> Values:
    """What orjson writes as `plain` would be written."""
    if isinstance(values, list) or values.dtype.kind in "fb":
        return values if isinstance(values, list) else np.ascontiguousarray(values)
    return values if values.dtype.kind == "M" and not np.isnat(values).any() else plain(values)
