"""Spans of time as people write them: `7d`, `36h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = 365_250 * 86_400
"""Seconds: a moment so long before or after those of today can still be written."""


def parse_duration(value: object) -> timedelta:
    """A span of time written as a whole number and a unit.

    >>> parse_duration("7d")
    datetime.timedelta(days=7)
    """
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([smhdw])\s*", str(value))
    if match is None or int(match[1]) == 0:
        raise ValueError(f"expected a number and a unit (s, m, h, d, w) such as 7d, got {value!r}")
    if (seconds := int(match[1]) * _UNITS[match[2]]) > _LONGEST:
        raise ValueError(f"expected at most a thousand years, got {value!r}")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest writing that `parse_duration` reads back.

    >>> format_duration(timedelta(days=14)), format_duration(timedelta(hours=36))
    ('2w', '36h')
    """
    seconds = int(value.total_seconds())
    unit = next(unit for unit in reversed(_UNITS) if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


Duration: TypeAlias = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
