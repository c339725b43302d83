"""Small batches joined: an endpoint that is asked less often than the keeper looks writes batches of one row, and to
read a thousand of these takes twice what one batch of a thousand rows does.

Batches of a version that follow one another in event time become one, as soon as there are enough of comparable size,
as in the logarithmic method of Bentley and Saxe (1980, Decomposable searching problems I): a row is written again
twice at most, first with other single ones, then with those that were joined already. All that is joined is in memory
for that moment, so its length is bounded as its rows are. Wide batches, such as those with a row of 1970, are joined
with wide ones. It is one transaction: before and after it every row is there once, under its
id, and readers, who have one view of the data, see either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_ids import NAMED, Run, read_runs
from registry.log_packed import Packed
from registry.log_tables import BATCHES, SHORT, SMALL, WIDE, add, is_narrow, is_small, is_wide, lock, remove
from registry.privacy import to_json
from registry.statements import among

FEW = 16
"""So many batches at least become one; and with fewer rows a batch was not joined yet, as a rule."""

FULL, LONG = 2 * SMALL, FEW * SHORT
"""Most rows, and most characters, of what is made of small batches."""

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
    length: int


def join(connection: Connection, task: str) -> bool:
    """Join small batches of a task; True if there may be more to join."""
    lock(connection, task)
    groups = list(islice(_found(connection, task), AT_ONCE))
    for group in groups:
        _join(connection, task, [one.number for one in group])
    return len(groups) == AT_ONCE


def _found(connection: Connection, task: str) -> Iterator[list[_Small]]:
    """The groups that become one batch each. Wide batches follow one another by their end, so that what is made of them
    is not looked at for windows after it."""
    c = BATCHES.c
    for condition, order in ((is_narrow(), c.earliest), (is_wide(), c.latest)):
        small = sa.select(*(c[name] for name in _Small._fields)).where(c.task == task, is_small(), condition)
        rows = connection.execute(small.order_by(c.role, c.version, order), execution_options={"yield_per": 1_000})
        with closing(rows):
            yield from _groups(_Small(*row) for row in rows)


def _groups(batches: Iterable[_Small]) -> Iterator[list[_Small]]:
    """Those that become one: of one version, of comparable size, not too many rows, not too long, and not too far from
    one another but where each is wide already."""
    for _, some in groupby(batches, key=itemgetter(1, 2)):
        groups = {False: _Group(FEW), True: _Group(SMALL)}
        for one in some:
            joined_before = one.size >= FEW
            group = groups[joined_before]
            if not group.takes(one):
                if group.is_enough:
                    yield group.batches
                group = groups[joined_before] = _Group(group.least)
            group.add(one)
        yield from (group.batches for group in groups.values() if group.is_enough)


class _Group:
    """Batches that may become one, of which there are `FEW` then, and at least so many rows or hardly room for more:
    one of the next size."""

    def __init__(self, least: int) -> None:
        self.least, self.batches = least, list[_Small]()
        self._rows = self._length = self._latest = 0

    @property
    def is_enough(self) -> bool:
        """Whether to join them."""
        return len(self.batches) >= FEW and (self._rows >= self.least or self._length >= LONG - SHORT)

    def takes(self, one: _Small) -> bool:
        """Whether one more belongs to them."""
        if not self.batches:
            return True
        far = one.latest - one.earliest <= WIDE < max(self._latest, one.latest) - self.batches[0].earliest
        return self._rows + one.size <= FULL and self._length + one.length <= LONG and not far

    def add(self, one: _Small) -> None:
        """One more."""
        self.batches.append(one)
        self._rows, self._length = self._rows + one.size, self._length + one.length
        self._latest = max(self._latest, one.latest)


def _join(connection: Connection, task: str, numbers: Sequence[int]) -> None:
    c = BATCHES.c
    columns = (c.ids, c.version, c.role, c.size, c.earliest, c.latest, c.moments, c.outputs, c.features)
    rows = connection.execute(
        sa.select(*columns, c.private, c.sealed).where(among(connection, c.number, numbers)).order_by(c.earliest)
    )
    parts = [Packed(version, role, read_runs(ids), *rest) for ids, version, role, *rest in rows]
    packed = joined(parts)
    remove(connection, task, packed.role, packed.runs, numbers)
    add(connection, task, packed)


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
