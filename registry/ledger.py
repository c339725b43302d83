"""The ledger: everything that was measured, decided and done about a task, in order, never changed afterwards.

>>> from tempfile import mkdtemp
>>> from registry.database import open_engine
>>> ledger = Ledger(open_engine(f"sqlite:///{mkdtemp()}/everfit.db"), "flights")
>>> entry = ledger.write(Entry(task="flights", kind="decision", at=datetime(2024, 5, 1), outcome="none"))
>>> entry.id, [found.outcome for found in ledger.read(kinds={"decision"})]
(1, ['none'])
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.engine import Engine, Row

from registry.database import from_micros, reading, to_micros, utc_now, writing
from registry.schema import Frozen
from registry.statements import insert, lock_until_commit

_TEXTS = ("task", "kind", "version", "severity", "outcome", "reasons", "details")
_ENTRIES = sa.Table(
    "ledger",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True),
    *(sa.Column(name, sa.Text) for name in _TEXTS),
    *(sa.Column(name, sa.BigInteger) for name in ("at", "written")),
    sa.Column("seconds", sa.Double),
)
_PASSES = sa.Table("passes", sa.MetaData(), sa.Column("task", sa.Text), sa.Column("ended", sa.BigInteger))
_LOCK = 0x6C656467  # key of PostgreSQL's advisory lock
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Entry(Frozen):
    """One entry. `at` is event time, `written` the wall clock (UTC without zone); `id` and `written` come from
    `Ledger.write`. `details` is JSON: what it takes to understand the entry later, or to replay it."""

    id: int | None = None
    task: str
    kind: str = Field(
        description="intent, search, window, decision, report, alert, alert_sent, notice, remedy, gate, second_look, "
        "bake, canary, follow, no_step, proof, radius, approval, promotion, rollback, improvement, "
        "broken_off or silence"
    )
    at: datetime
    written: datetime | None = None
    version: str | None = None
    severity: str | None = None
    outcome: str | None = Field(None, description="the remedy, the verdict, or how it ended")
    reasons: tuple[str, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0


class Cost(NamedTuple):
    """What an entry tells of what was done: CPU-seconds, 0 where it tells none."""

    kind: str
    version: str | None
    outcome: str | None
    cpu: float


class Ledger:
    """The entries of one task. There is no way to change or remove one.

    All methods raise `StoreError` when the database fails. Ids grow in the order in which entries become visible, so
    `read(since=last_id_seen)` misses none.
    """

    def __init__(self, engine: Engine, task: str) -> None:
        self._engine = engine
        self._task = task

    def write(self, entry: Entry) -> Entry:
        """Append an entry; returns it as stored, with its `id` and `written`. Raises `ValueError` for another task's
        entry, or one that was written already."""
        if entry.task != self._task or entry.id is not None:
            raise ValueError(f"expected a new entry of task {self._task!r}, got one of {entry.task!r}, id {entry.id}")
        with writing(self._engine) as connection:
            lock_until_commit(connection, _LOCK)
            row = connection.execute(_ENTRIES.insert().values(_row(entry)).returning(*_ENTRIES.c)).one()
        return _entry(row)

    def read(
        self,
        *,
        kinds: Collection[str] | None = None,
        without: Collection[str] = (),
        since: int = 0,
        last: int | None = None,
        timely: bool = False,
        until: datetime | None = None,
        version: str | None = None,
        outcome: str | None = None,
    ) -> list[Entry]:
        """The entries with an id above `since`, oldest first: all kinds or those named, but those `without`, of
        moments not after `until`, of all versions and outcomes or of one; only the newest `last`. In the order in which
        they were written, or `timely` by event time: a replay of an older time is written later."""
        c = _ENTRIES.c
        order = (c.at.desc(), c.id.desc()) if timely else (c.id.desc(),)
        rows = sa.select(*c).where(c.task == self._task, c.id > since).order_by(*order).limit(last)
        if kinds is not None:
            rows = rows.where(c.kind.in_(sorted(kinds)))
        if without:
            rows = rows.where(c.kind.not_in(sorted(without)))
        if until is not None:
            rows = rows.where(c.at <= to_micros(until))
        for column, wanted in ((c.version, version), (c.outcome, outcome)):
            rows = rows if wanted is None else rows.where(column == wanted)
        with reading(self._engine) as connection:
            found = connection.execute(rows).all()
        return [_entry(row) for row in reversed(found)]

    def costs(self, kinds: Collection[str]) -> list[Cost]:
        """What the entries of these kinds tell of their costs, oldest first: a fifth of the work of reading them."""
        c = _ENTRIES.c
        told = sa.select(c.kind, c.version, c.outcome, c.details).where(c.task == self._task, c.kind.in_(sorted(kinds)))
        with reading(self._engine) as connection:
            found = connection.execute(told.order_by(c.id)).all()
        cpu = (float(orjson.loads(details).get("cpu", 0.0)) for _, _, _, details in found)
        return [Cost(kind, version, outcome, one) for (kind, version, outcome, _), one in zip(found, cpu, strict=True)]

    def newest_first(self, kind: str, *, at_once: int = 50) -> Iterator[Entry]:
        """A kind's entries by event time, the newest first, read some at a time: whoever has found what is looked for
        reads no further. Of entries of one moment the one written last comes first."""
        seen: set[int | None] = set()
        until: datetime | None = None
        while True:
            some = self.read(kinds={kind}, timely=True, until=until, last=at_once + len(seen))
            news = [one for one in reversed(some) if one.id not in seen]
            if not news:
                return
            yield from news
            until = news[-1].at
            seen = {one.id for one in some if one.at == until}

    def moments(
        self,
        kind: str,
        *,
        until: datetime,
        last: int,
        since: int = 0,
        before: int | None = None,
        version: str | None = None,
    ) -> list[datetime]:
        """The event times of a kind's entries, each once, oldest first: the newest `last` that are not after `until`,
        of entries with an id above `since` and below `before`, of all versions or of one."""
        c = _ENTRIES.c
        of_kind = c.task == self._task, c.kind == kind, c.at <= to_micros(until), c.id > since
        found = sa.select(c.at).distinct().where(*of_kind)
        found = found if before is None else found.where(c.id < before)
        found = found if version is None else found.where(c.version == version)
        with reading(self._engine) as connection:
            newest = connection.execute(found.order_by(c.at.desc()).limit(last)).scalars().all()
        return [from_micros(one) for one in reversed(newest)]

    def note_pass(self) -> None:
        """Remember that a pass of monitoring over the newest rows has come to its end now. One that finds nothing new
        writes no entry: without this nobody could tell it from none."""
        new = {"task": self._task, "ended": to_micros(utc_now())}
        with writing(self._engine) as connection:
            statement = insert(connection, _PASSES)
            connection.execute(statement.on_conflict_do_update(index_elements=["task"], set_=new), new)

    def last_pass(self) -> datetime | None:
        """When the last one had (wall clock, UTC without zone); None where none has yet."""
        with reading(self._engine) as connection:
            ended = connection.execute(sa.select(_PASSES.c.ended).where(_PASSES.c.task == self._task)).scalar()
        return None if ended is None else from_micros(ended)


def _row(entry: Entry) -> dict[str, Any]:
    plain = entry.model_dump(include={"task", "kind", "version", "severity", "outcome", "seconds"})
    texts = {name: orjson.dumps(getattr(entry, name), option=_OPTIONS).decode() for name in ("reasons", "details")}
    return {**plain, **texts, "at": to_micros(entry.at), "written": to_micros(utc_now())}


def _entry(row: Row[Any]) -> Entry:
    found = row._asdict()
    parsed = {name: orjson.loads(found[name]) for name in ("reasons", "details")}
    moments = {name: from_micros(found[name]) for name in ("at", "written")}
    return Entry.model_validate({**found, **parsed, **moments})
