"""What to do with a column of times that is none yet: numbers since 1970, or dates as people write them."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

ISO = "write times as ISO 8601 (2024-01-31T12:00:00), in UTC or with an offset"

_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""From which size on numbers since 1970 are in this unit: 1e8 seconds are of 1973, and so is each of the others."""

_DATE = re.compile(r"\s*(\d{1,2})[/.-](\d{1,2})[/.-](?:\d{4}|\d{2})\b")
"""A date that begins with its day or its month."""


def dated(values: pd.Series[Any], name: str) -> str:
    """How a column that holds no ISO 8601 becomes one of times, with pandas' words where they can be told.

    >>> dated(pd.Series([1_700_000_000]), "at")  # doctest: +ELLIPSIS
    "write times as ISO 8601 ...; with pandas: frame['at'] = pd.to_datetime(frame['at'], unit='s')"
    >>> dated(pd.Series(["03/04/2024", "31/01/2024"]), "at").split("; ")[1]
    "with pandas: frame['at'] = pd.to_datetime(frame['at'], dayfirst=True)"
    """
    how, beside = (_unit(values), "") if values.dtype.kind in "iuf" else _first(values)
    done = f"with pandas: frame[{name!r}] = pd.to_datetime(frame[{name!r}], {how}){beside}"
    return ISO if how is None else f"{ISO}; {done}"


def _unit(values: pd.Series[Any]) -> str | None:
    size = float(values.abs().median())
    return next((f"unit={unit!r}" for least, unit in _UNITS if size >= least), None)


def _first(values: pd.Series[Any]) -> tuple[str | None, str]:
    """Whether days or months come first, by the values that can only be one of them; where none is, both are told."""
    found = [(int(match[1]), int(match[2])) for one in values.dropna() if (match := _DATE.match(str(one)))]
    if not found:
        return None, ""
    sure = any(max(both) > 12 for both in found)
    return f"dayfirst={all(month <= 12 for _, month in found)}", "" if sure else " (False if months come first)"
