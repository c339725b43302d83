"""Which logged rows a reader asks for: found batch by batch, in the order of event time, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.database import to_micros
from registry.log_batch import Role
from registry.log_counted import FEW
from registry.log_order import AT_ONCE, Block, Light, Rows, joined, ordered
from registry.log_tables import BATCHES, FEEDBACK, NO_TIME, is_narrow, is_wide, labelled_in, labelled_of, labels_of

LEAST = 500
"""Rows of a block at least."""

_EARLIEST = sa.literal_column("+earliest", sa.BigInteger)
"""A sign keeps SQLite from an index of the column: that of wide batches is the one."""

ROLES: tuple[Role, ...] = ("champion", "shadow")


@dataclass(frozen=True)
class Asked:
    """Rows of a task with `start <= time < end`, and the labels that count."""

    task: str
    start: datetime | None = None
    end: datetime | None = None
    version: str | None = None
    role: Role | None = "champion"
    labels_by: datetime | None = None

    @cached_property
    def begin(self) -> int | None:
        """`start` in microseconds."""
        return None if self.start is None else to_micros(self.start)

    @cached_property
    def stop(self) -> int | None:
        """`end` in microseconds."""
        return None if self.end is None else to_micros(self.end)

    def labels(self) -> sa.ColumnElement[bool]:
        """Condition on feedback: this task's, known by the moment asked for."""
        mine = FEEDBACK.c.task == self.task
        return mine if self.labels_by is None else mine & (FEEDBACK.c.time <= to_micros(self.labels_by))

    def batches(self) -> sa.ColumnElement[bool]:
        """Condition on batches: those that may hold such rows, whenever they begin."""
        c = BATCHES.c
        mine = (c.task == self.task) & c.role.in_([self.role] if self.role else ROLES)
        return mine if self.version is None else mine & (c.version == self.version)

    def _parts(self) -> list[sa.ColumnElement[bool]]:
        """Those that may, in parts that each an index finds: by the moment at which they begin, and of the wide ones
        that begin earlier than a narrow one can by the moment at which they end."""
        c, mine = BATCHES.c, self.batches()
        before = sa.true() if self.stop is None else c.earliest < self.stop
        if self.begin is None:
            return [mine & before]
        of_all = Asked(self.task, role=self.role).batches()
        longest = sa.select(sa.func.coalesce(sa.func.max(c.span), 0)).where(of_all, is_narrow()).scalar_subquery()
        later, since = mine & (c.latest >= self.begin), self.begin - longest
        return [later & before & (c.earliest >= since), later & is_wide() & (since > _EARLIEST)]

    def _light(self, *more: sa.ColumnElement[bool]) -> sa.CompoundSelect[Any]:
        """Those batches as they are read."""
        c = BATCHES.c
        columns = (c.number, c.size, c.earliest, c.latest, c.ids, c.moments)
        return sa.union_all(*(sa.select(*columns).where(one, *more) for one in self._parts()))

    def light(self, connection: Connection, *orders: sa.ColumnElement[Any]) -> Iterator[Light]:
        """Those batches, as they are read; none of them need fit into memory beside another."""
        found = connection.execute(self._light().order_by(*orders), execution_options={"yield_per": 100})
        return (Light(*row) for row in found)

    def number(self, connection: Connection) -> int:
        """How many rows there are."""
        c = BATCHES.c
        inside: sa.ColumnElement[bool] = sa.true()
        if self.begin is not None:
            inside &= c.earliest >= self.begin
        if self.stop is not None:
            inside &= c.latest < self.stop
        sizes = sa.union_all(*(sa.select(c.size).where(one, inside) for one in self._parts())).subquery()
        number = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(sizes.c.size), 0))).scalar_one())
        if self.begin is None and self.stop is None:
            return number
        return number + sum(len(self._rows(Light(*one)).ids) for one in connection.execute(self._light(~inside)))

    def counts(self, connection: Connection) -> tuple[int, int]:
        """How many rows there are, and how many of them have a label."""
        rows, labelled, ids = 0, 0, list[str]()
        for one in self.light(connection):
            runs = orjson.loads(one.ids)
            if self._holds(one) and len(runs) * FEW <= one.size:
                rows += one.size
                labelled += sum(labelled_in(connection, self.labels(), run) for run in runs)
                continue
            ids += self._rows(one).ids
            if len(ids) >= AT_ONCE:
                rows, labelled, ids = rows + len(ids), labelled + self._labelled(connection, ids), []
        return rows + len(ids), labelled + self._labelled(connection, ids)

    def _labelled(self, connection: Connection, ids: list[str]) -> int:
        return sum(labelled_of(connection, self.labels(), ids))

    def _holds(self, one: Light) -> bool:
        """Whether all rows of a batch are asked for."""
        return (self.begin is None or one.earliest >= self.begin) and (self.stop is None or one.latest < self.stop)

    def _rows(self, one: Light) -> Rows:
        return Rows.of(one, self.begin, self.stop)

    def blocks(self, connection: Connection, *, newest: bool = False, wanted: int | None = None) -> Iterator[Block]:
        """The rows by (time, id), or the other way round, in blocks, of which as many as are `wanted` may do."""
        earliest, latest = (sa.column(name, sa.BigInteger) for name in ("earliest", "latest"))
        orders = (latest.desc(), earliest.desc()) if newest else (earliest, latest)
        at_once = AT_ONCE if wanted is None else min(AT_ONCE, max(LEAST, wanted))
        return ordered(self.light(connection, *orders), self.begin, self.stop, newest=newest, at_once=at_once)


def picked(
    connection: Connection,
    asked: Asked,
    *,
    labelled_only: bool = False,
    offset: int = 0,
    limit: int | None = None,
    newest: int | None = None,
    step: int = 1,
) -> Block:
    """Rows by (time, id), as `InferenceLog.frame` says which. Of `labelled_only` ones the labels are with them, unless
    one in so many is taken: of most of these rows nobody wants to know them."""
    backwards = newest is not None and step == 1
    wanted = newest if backwards else limit
    blocks: Iterable[Block] = asked.blocks(
        connection, newest=backwards, wanted=None if wanted is None else offset + wanted
    )
    if labelled_only:
        blocks = _labelled(connection, asked, blocks, told=step == 1)
    if step > 1:
        blocks = _one_in(blocks, step)
    if newest is None:
        return joined(list(_cut(blocks, offset, limit)))
    if not backwards:
        whole = joined(list(blocks))
        return whole.at(slice(max(0, len(whole) - offset - newest), max(0, len(whole) - offset)))
    return joined(list(_cut(blocks, offset, newest))).at(slice(None, None, -1))


def _labelled(connection: Connection, asked: Asked, blocks: Iterable[Block], *, told: bool) -> Iterator[Block]:
    for block in blocks:
        if told:
            found = block.told(labels_of(connection, asked.labels(), block.ids.tolist()))
            yield found.at(found.label_times != NO_TIME)
        else:
            yield block.at(np.array(labelled_of(connection, asked.labels(), block.ids.tolist()), dtype=bool))


def _one_in(blocks: Iterable[Block], step: int) -> Iterator[Block]:
    rows = 0
    for block in blocks:
        yield block.at(slice(-rows % step, None, step))
        rows += len(block)


def _cut(blocks: Iterable[Block], offset: int, limit: int | None) -> Iterator[Block]:
    """`limit` rows after the first `offset` ones."""
    for block in blocks:
        if limit is not None and limit <= 0:
            return
        some = block.at(slice(offset, None if limit is None else offset + limit))
        offset = max(0, offset - len(block))
        limit = None if limit is None else limit - len(some)
        yield some
