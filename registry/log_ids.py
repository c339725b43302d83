"""Prediction ids as the log keeps them. Those that the endpoint makes are numbers in a row, so that all of a request
are one run; an id of a client's own is a run of one, under its own name. A run is found by name and number.

>>> runs_of(["0660d8c4ce0cdb73e9f0759f", "0660d8c4ce0cdc73e9f0759f", "UA1545"])
[('73e9f0759f', 1795333991304411, 2), ('UA1545', -1, 1)]
>>> ids_of(_)
['0660d8c4ce0cdb73e9f0759f', '0660d8c4ce0cdc73e9f0759f', 'UA1545']
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import orjson

from registry.errors import RowError

DIGITS = 14
"""Hexadecimal digits of an id's number; what follows names the process that made it."""

NAMED = -1
"""Where a run of an id that is no number begins."""

Run: TypeAlias = tuple[str, int, int]
"""A name, a first number, and how many ids there are from it on."""

_MADE = re.compile(r"[0-9a-f]{24}").fullmatch


def id_of(number: int, name: str) -> str:
    """The id of a number under a process's name of 10 hexadecimal digits."""
    return f"{number:0{DIGITS}x}{name}"


def run_of(one: str, size: int = 1) -> Run:
    """The run that begins with an id. Raises `RowError` for one that no database keeps: empty, or with a NUL."""
    if _MADE(one):
        return one[DIGITS:], int(one[:DIGITS], 16), size
    if not one or "\0" in one:
        raise RowError(f"id: expected text without NUL, got {one!r}")
    return one, NAMED, size


def runs_of(ids: Iterable[str]) -> list[Run]:
    """Ids as runs, in their order. Raises `RowError`."""
    found: list[Run] = []
    name, start, size = "", NAMED, 0
    for own, number, _ in map(run_of, ids):
        if own == name and number == start + size and start != NAMED:
            size += 1
            continue
        found.append((name, start, size))
        name, start, size = own, number, 1
    return [*found[1:], (name, start, size)] if size else []


def read_runs(text: str) -> list[Run]:
    """Runs as a batch holds them, in JSON."""
    return [(name, start, size) for name, start, size in orjson.loads(text)]


def ids_of(runs: Iterable[Sequence[str | int]]) -> list[str]:
    """The ids of runs."""
    found: list[str] = []
    for name, start, size in runs:
        if start == NAMED:
            found.append(str(name))
        else:
            found += [f"{number:014x}{name}" for number in range(int(start), int(start) + int(size))]
    return found
