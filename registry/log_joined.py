"""Small batches joined: an endpoint that is asked less often than the keeper looks writes batches of one row, and to
read a thousand of these takes twice what one batch of a thousand rows does.

Batches of a version that follow one another in event time become one, as soon as there are enough of them that what is
written again is little beside what is new. It is one transaction: before and after it every row is there once, under
its id, and readers, who have one view of the data, see either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_ids import NAMED, Run
from registry.log_packed import Packed
from registry.log_tables import BATCHES, SMALL, WIDE, add, is_small, lock
from registry.privacy import to_json

FULL = 2 * SMALL
"""Most rows of what is made of small batches."""

FEW = 16
"""So many batches at least become one."""

AT_ONCE = 2
"""So many batches are made in one transaction at most: others wait for it, a tenth of a second."""

_OUTPUTS = ("prediction", "scores", "uncertainty", "disagreement")


class _Small(NamedTuple):
    number: int
    role: str
    version: str
    size: int
    earliest: int
    latest: int


def join(connection: Connection, task: str) -> bool:
    """Join small batches of a task; True if there may be more to join."""
    lock(connection, task)
    c = BATCHES.c
    rows = sa.select(c.number, c.role, c.version, c.size, c.earliest, c.latest).where(c.task == task, is_small())
    found = connection.execute(rows.order_by(c.role, c.version, c.earliest), execution_options={"yield_per": 1_000})
    groups = list(islice(_groups(_Small(*row) for row in found), AT_ONCE))
    found.close()
    for group in groups:
        _join(connection, task, [one.number for one in group])
    return len(groups) == AT_ONCE


def _groups(batches: Iterable[_Small]) -> Iterator[list[_Small]]:
    """Those that become one: of one version, not too many rows, and not too far from one another."""
    group, rows, latest = list[_Small](), 0, 0
    for one in batches:
        rows, latest = rows + one.size, max(latest, one.latest)
        if group and (one[1:3] != group[0][1:3] or rows > FULL or latest - group[0].earliest > WIDE):
            if len(group) >= FEW:
                yield group
            group, rows, latest = [], one.size, one.latest
        group.append(one)
    if len(group) >= FEW:
        yield group


def _join(connection: Connection, task: str, numbers: Sequence[int]) -> None:
    c = BATCHES.c
    columns = (c.ids, c.version, c.role, c.size, c.earliest, c.latest, c.moments, c.outputs, c.features)
    rows = connection.execute(
        sa.select(*columns, c.private, c.sealed).where(c.number.in_(numbers)).order_by(c.earliest)
    )
    parts = [Packed(version, role, _runs(ids), *rest) for ids, version, role, *rest in rows]
    add(connection, task, joined(parts), [run for part in parts for run in part.runs])
    connection.execute(sa.delete(BATCHES).where(c.number.in_(numbers)))


def _runs(text: str) -> list[Run]:
    return [(name, start, size) for name, start, size in orjson.loads(text)]


def joined(parts: Sequence[Packed]) -> Packed:
    """Batches of one version in one role as one, whose rows come in the order of the parts.

    A column that a part lacks is None there, as in any batch that has rows without it.
    """
    outputs = [orjson.loads(part.outputs) for part in parts]
    sets = None if all(one["set"] is None for one in outputs) else _spread(parts, [one["set"] for one in outputs])
    made = {name: list(chain.from_iterable(one[name] for one in outputs)) for name in _OUTPUTS}
    return Packed(
        parts[0].version,
        parts[0].role,
        _following(chain.from_iterable(part.runs for part in parts)),
        sum(part.size for part in parts),
        min(part.earliest for part in parts),
        max(part.latest for part in parts),
        _moments(parts),
        to_json(made | {"set": sets}),
        to_json(_features(parts)),
        _private(parts),
        _sealed(parts),
    )


def _spread(parts: Sequence[Packed], columns: Sequence[list[Any] | None]) -> list[Any]:
    """A column of all, None for each row of a part without it."""
    found: list[Any] = []
    for part, column in zip(parts, columns, strict=True):
        found += [None] * part.size if column is None else column
    return found


def _following(runs: Iterable[Run]) -> list[Run]:
    """Runs, those as one that follow one another."""
    found: list[Run] = []
    for name, start, size in runs:
        if found and start != NAMED and found[-1][0] == name and sum(found[-1][1:]) == start:
            found[-1] = (name, found[-1][1], found[-1][2] + size)
        else:
            found.append((name, start, size))
    return found


def _moments(parts: Sequence[Packed]) -> str:
    read = [orjson.loads(part.moments) for part in parts]
    received = list(chain.from_iterable(one["received"] for one in read))
    if all(one["times"] is None for one in read):
        return to_json({"received": received, "times": None})
    times = [one["times"] or [at for at, rows in one["received"] for _ in range(rows)] for one in read]
    return to_json({"received": received, "times": list(chain.from_iterable(times))})


def _features(parts: Sequence[Packed]) -> dict[str, list[Any]]:
    read = [orjson.loads(part.features) for part in parts]
    return {name: _spread(parts, [one.get(name) for one in read]) for name in dict.fromkeys(chain.from_iterable(read))}


def _private(parts: Sequence[Packed]) -> str | None:
    if all(part.private is None for part in parts):
        return None
    rules = [[[None, part.size]] if part.private is None else orjson.loads(part.private) for part in parts]
    return to_json(list(chain.from_iterable(rules)))


def _sealed(parts: Sequence[Packed]) -> str | None:
    if all(part.sealed is None for part in parts):
        return None
    return to_json(_spread(parts, [None if part.sealed is None else orjson.loads(part.sealed) for part in parts]))
