"""The log's tables, and the questions about them that are the same for all who ask.

    batches    a row for many predictions, their columns as JSON (`log_packed`); `length` counts its characters, and
               is 0 of those of 500 rows and more that were written before it was counted
    places     a row for each run of ids: in which batch they are. An id is found by one look into this key.
    feedback   a row for each label

A batch knows between which event times it lies, and the log how long the longest is that is not wide: what a window may
hold is found by an index, however many batches there are. Wide ones, such as those with one row of 1970, are few, and
have an index of their own. Small ones are joined later (`log_joined`).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_batch import Role
from registry.log_ids import NAMED, Run, id_of, ids_of, run_of
from registry.log_packed import Packed, pack, unpack
from registry.statements import among, insert_rows, lock_until_commit

NO_TIME = int(np.iinfo(np.int64).min)
"""The time of no label: numpy's NaT."""


class Labels(NamedTuple):
    """Labels of rows in JSON, None without any, and their times in microseconds."""

    texts: npt.NDArray[np.object_]
    times: npt.NDArray[np.int64]

    @classmethod
    def none(cls, rows: int) -> Labels:
        """Of so many rows, none."""
        return cls(np.full(rows, None, dtype=object), np.full(rows, NO_TIME))


_NONE = None, NO_TIME

_METADATA = sa.MetaData()
_LOCKS = 1 << 32  # PostgreSQL's advisory locks of tasks
_NUMBERS = dict.fromkeys(("number", "size", "earliest", "latest", "span", "start", "batch", "length"), sa.BigInteger)


def _table(name: str, keys: Sequence[str], others: str) -> sa.Table:
    kinds = {one: _NUMBERS.get(one, sa.Text) for one in (*keys, *others.split())}
    return sa.Table(name, _METADATA, *(sa.Column(one, kind, primary_key=one in keys) for one, kind in kinds.items()))


WIDE = 86_400_000_000
"""A batch is wide when its rows lie further apart than a day, in microseconds. The indexes say so too."""

SMALL, SHORT = 500, 250_000
"""A batch is small with fewer rows, and shorter texts; an index says so too."""

_IDS_AT_ONCE = 5_000

BATCHES = _table(
    "batches",
    ["number"],
    "task role version size earliest latest span ids moments private outputs features sealed length",
)
PLACES = _table("places", ["task", "role", "name", "start"], "size batch")
FEEDBACK = sa.Table(
    "feedback",
    _METADATA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("task", "id")),
    sa.Column("received", sa.BigInteger, primary_key=True),
    sa.Column("time", sa.BigInteger),
    sa.Column("label", sa.Text),
)

_TAKEN = ["role", "version", "size", "earliest", "latest", "moments", "private", "outputs", "features", "sealed"]
_TEXTS = ("ids", "moments", "private", "outputs", "features", "sealed")
_ASKED = {
    "sqlite": "(SELECT json_extract(value, '$[0]') AS name, json_extract(value, '$[1]') AS start, "
    "json_extract(value, '$[2]') AS size FROM json_each(?))",
    "postgresql": "unnest(%s::text[], %s::bigint[], %s::bigint[])",
}
_OVERLAPPING = """SELECT asked.name, asked.start, asked.size FROM {asked} AS asked{names} WHERE (
    SELECT places.start + places.size FROM places
    WHERE places.task = {mark} AND places.role = {mark} AND places.name = asked.name
        AND places.start < asked.start + asked.size
    ORDER BY places.start DESC LIMIT 1) > asked.start"""


def is_wide() -> sa.ColumnElement[bool]:
    """Condition on batches, in the words of the index."""
    return BATCHES.c.span > sa.literal_column(str(WIDE))


def is_narrow() -> sa.ColumnElement[bool]:
    """Condition on batches, in the words of the index."""
    return BATCHES.c.span <= sa.literal_column(str(WIDE))


def is_small() -> sa.ColumnElement[bool]:
    """Condition on batches, in the words of the index."""
    c = BATCHES.c
    return (c.size < sa.literal_column(str(SMALL))) & (c.length < sa.literal_column(str(SHORT)))


def lock(connection: Connection, task: str) -> None:
    """Have no other writer of a task until the transaction ends."""
    lock_until_commit(connection, _LOCKS | zlib.crc32(task.encode()))


def store(connection: Connection, task: str, batches: Sequence[Packed]) -> list[Packed]:
    """Store batches but for the ids that are known; what of them was new."""
    lock(connection, task)  # two writers may have one id
    return [_store(connection, task, one) for one in batches]


def _store(connection: Connection, task: str, packed: Packed) -> Packed:
    ordered = pairwise(sorted(packed.runs))
    twice = any(one == other and start + size > later for (one, start, size), (other, later, _) in ordered)
    if twice or overlapping(connection, task, packed.role, packed.runs):
        packed = _new_of(connection, task, packed)
    if packed.size:
        add(connection, task, packed)
    return packed


def add(connection: Connection, task: str, packed: Packed) -> None:
    """Add a batch whose ids are in no other one."""
    values = {name: getattr(packed, name) for name in _TAKEN}
    values |= {"task": task, "span": packed.latest - packed.earliest, "ids": orjson.dumps(packed.runs).decode()}
    values["length"] = sum(len(one) for one in map(values.get, _TEXTS) if one is not None)
    number = connection.execute(sa.insert(BATCHES).returning(BATCHES.c.number), values).scalar_one()
    insert_rows(connection, PLACES, [(task, packed.role, *run, number) for run in packed.runs])


def remove(connection: Connection, task: str, role: Role, runs: Sequence[Run], numbers: Sequence[int]) -> None:
    """Remove batches by their numbers, and where their ids were, which are these runs."""
    c = PLACES.c
    inside = c.start.between(sa.bindparam("first"), sa.bindparam("last"))
    gone = sa.delete(PLACES).where(c.task == task, c.role == role, c.name == sa.bindparam("of"), inside)
    places = [{"of": name, "first": start, "last": start + size - 1} for name, start, size in runs]
    connection.execute(gone, places)
    connection.execute(sa.delete(BATCHES).where(among(connection, BATCHES.c.number, numbers)))


def _new_of(connection: Connection, task: str, packed: Packed) -> Packed:
    """What of a batch is not known yet, each id once."""
    ids = ids_of(packed.runs)
    seen = known(connection, task, packed.role, ids)
    places = []
    for place, one in enumerate(ids):
        if one not in seen:
            seen.add(one)
            places.append(place)
    return packed if len(places) == len(ids) else pack(unpack(packed).take(places))


def overlapping(connection: Connection, task: str, role: Role, runs: Collection[Run]) -> list[Run]:
    """Those of the runs of which some id is known."""
    dialect = connection.dialect.name
    mark, names = ("?", "") if dialect == "sqlite" else ("%s", "(name, start, size)")
    text = _OVERLAPPING.format(asked=_ASKED[dialect], names=names, mark=mark)
    asked = (orjson.dumps(list(runs)).decode(),) if dialect == "sqlite" else tuple(map(list, zip(*runs, strict=True)))
    if not runs:
        return []
    return [(name, start, size) for name, start, size in connection.exec_driver_sql(text, (*asked, task, role))]


def known(connection: Connection, task: str, role: Role, ids: Sequence[str]) -> set[str]:
    """Those of the ids that a version in this role has answered."""
    found = overlapping(connection, task, role, [run_of(one) for one in ids])
    return {name if start < 0 else id_of(start, name) for name, start, _ in found}


def labels_of(connection: Connection, where: sa.ColumnElement[bool], ids: Sequence[str]) -> Labels:
    """Of each id, in their order, the label that was received last; `where` says which of them count. Ids may be a
    client's own, long ones: they are asked for some at a time."""
    f = FEEDBACK.c
    texts, times = list[str | None](), list[int]()
    for first in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[first : first + _IDS_AT_ONCE]
        rows = sa.select(f.id, f.label, f.time).where(where, among(connection, f.id, some)).order_by(f.received)
        known = {name: (label, time) for name, label, time in connection.execute(rows).all()}  # one by one takes twice
        found = [known.get(name, _NONE) for name in some]
        texts += [text for text, _ in found]
        times += [time for _, time in found]
    return Labels(np.array(texts, dtype=object), np.array(times, dtype=np.int64))


def labelled_of(connection: Connection, where: sa.ColumnElement[bool], ids: Sequence[str]) -> list[bool]:
    """Which of the ids have a label."""
    found: list[bool] = []
    for first in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[first : first + _IDS_AT_ONCE]
        rows = sa.select(FEEDBACK.c.id).where(where, among(connection, FEEDBACK.c.id, some))
        known = set(connection.execute(rows).scalars().all())
        found += [one in known for one in some]
    return found


def labelled_in(connection: Connection, where: sa.ColumnElement[bool], run: Run) -> int:
    """How many ids of a run have a label. In the order of text they stand between its first and its last one, with
    those that others made meanwhile, and whatever else a client calls its rows."""
    name, start, size = run
    if start == NAMED:
        return sum(labelled_of(connection, where, [name]))
    between = FEEDBACK.c.id.between(id_of(start, name), id_of(start + size - 1, name))
    rows = sa.select(FEEDBACK.c.id).where(where, between).distinct()
    return sum(run_of(one)[0] == name for one in connection.execute(rows).scalars())
