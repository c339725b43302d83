"""Every prediction served and every label that came back, by task: what monitoring and retraining read.

Features are stored as they were sent, one JSON object a row: a changed schema needs no migration. Labels are kept
with all their corrections: a reader who asks for the labels known by a moment sees those of that moment.

    >>> from tempfile import mkdtemp
    >>> from registry.database import open_engine
    >>> log = InferenceLog(open_engine(f"sqlite:///{mkdtemp()}/everfit.db"), "flights")
    >>> noon = datetime(2024, 5, 1, 12)
    >>> at = [to_micros(noon)]
    >>> one = Batch("3", "champion", ["a1"], at, at, [{"delay": 4}], ["no"], [[0.9, 0.1]], [[0]], [0.33], [0.01])
    >>> log.append_batches([one]), log.append_batches([one])
    (1, 0)
    >>> log.add_feedback([Feedback("a1", "yes", noon, noon)])
    FeedbackCounts(stored=1, repeated=0, corrected=0, unknown=0)
    >>> log.frame()[["__id__", "__prediction__", "__label__", "delay"]].values.tolist()
    [['a1', 'no', 'yes', 4]]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from registry.database import from_micros, insert, insert_new, reading, to_micros, writing
from registry.log_batch import READ, STORED, Batch, Role, about, checked
from registry.privacy import Privacy, to_json

if TYPE_CHECKING:
    import pandas as pd

_ROLES: tuple[Role, ...] = ("champion", "shadow")
_CHUNK = 500  # ids in one IN list
_METADATA = sa.MetaData()
_TYPES: dict[str, type[sa.BigInteger] | type[sa.Double[float]]] = {
    **dict.fromkeys(("time", "received"), sa.BigInteger),
    **dict.fromkeys(("uncertainty", "disagreement"), sa.Double),
}
_PREDICTIONS = sa.Table(
    "predictions",
    _METADATA,
    *(sa.Column(name, _TYPES.get(name, sa.Text), primary_key=name in ("task", "role", "id")) for name in STORED),
)
_FEEDBACK = sa.Table(
    "feedback",
    _METADATA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("task", "id")),
    sa.Column("received", sa.BigInteger, primary_key=True),
    sa.Column("time", sa.BigInteger),
    sa.Column("label", sa.Text),
)

_READ = tuple(_PREDICTIONS.c[name] for name in READ)
_OUTPUTS = tuple(sa.null() if name in ("features", "sealed") else _PREDICTIONS.c[name] for name in READ)
"""The same without the features, which are most of a row."""


_NEWEST = 100_000
"""Rows that are looked at for the newest event."""


@dataclass(frozen=True)
class Feedback:
    """The true label of a prediction, in canonical form. `time` is the moment it became known in event time."""

    id: str
    label: str | float
    time: datetime
    received: datetime


@dataclass(frozen=True)
class Astray:
    """Of the newest `rows`: how many lie after a moment, the furthest of them, and how many have no moment of their
    own."""

    rows: int
    ahead: int
    furthest: datetime | None
    untimed: int


@dataclass(frozen=True)
class FeedbackCounts:
    """What became of labels: `stored + repeated + corrected` is their number.

    `unknown` says for how many of them there is no such prediction yet; those are kept all the same, and join when the
    prediction arrives.
    """

    stored: int
    repeated: int
    corrected: int
    unknown: int


class Counts(NamedTuple):
    """How many predictions there are, and how many of them have a label."""

    predictions: int
    labelled: int


@dataclass(frozen=True)
class _Rows:
    """Which predictions a reader asks for; the SQL of it."""

    task: str
    start: datetime | None = None
    end: datetime | None = None
    version: str | None = None
    role: Role | None = "champion"
    labels_by: datetime | None = None

    def labels(self) -> sa.ColumnElement[bool]:
        """Condition on feedback: this task's, known by the moment asked for."""
        mine = _FEEDBACK.c.task == self.task
        return mine if self.labels_by is None else mine & (_FEEDBACK.c.time <= to_micros(self.labels_by))

    def where(self, *, labelled_only: bool = False) -> sa.ColumnElement[bool]:
        """Condition on predictions."""
        c = _PREDICTIONS.c
        found = (c.task == self.task) & c.role.in_([self.role] if self.role else _ROLES)
        if self.start is not None:
            found &= c.time >= to_micros(self.start)
        if self.end is not None:
            found &= c.time < to_micros(self.end)
        if self.version is not None:
            found &= c.version == self.version
        return found & sa.exists().where(_FEEDBACK.c.id == c.id, self.labels()) if labelled_only else found


def _chunks(names: Collection[str]) -> Iterator[list[str]]:
    every = list(names)
    return (every[first : first + _CHUNK] for first in range(0, len(every), _CHUNK))


def _kind(one: Feedback, known: tuple[str, int] | None) -> Literal["stored", "repeated", "corrected"]:
    if known is None:
        return "stored"
    label, received = known
    return "repeated" if label == to_json(one.label) or to_micros(one.received) < received else "corrected"


class InferenceLog:
    """The predictions and labels of one task. One object may be used by several threads, one database by many logs.

    All methods raise `StoreError` when the database fails; nothing of that call is kept then, and since writing is
    idempotent, the same call may simply be made again.
    """

    def __init__(self, engine: Engine, task: str, privacy: Privacy = Privacy()) -> None:  # noqa: B008  frozen
        """`privacy` says what of the rows that are appended is hidden, and holds the key to what was encrypted."""
        self._engine, self._task, self._privacy = engine, task, privacy

    def append_batches(self, batches: Iterable[Batch]) -> int:
        """Store predictions, all or none; those whose id (and role) is known already are passed over.

        Returns how many were new. Raises `RowError` for an id that no database keeps (empty, or with a NUL),
        `InputError` for a key that cannot be used.
        """
        hidden = (one.hidden(self._task, self._privacy) for one in batches)
        rows = [row for one in hidden for row in one.rows(self._task)]
        if not rows:
            return 0
        with writing(self._engine) as connection:
            return insert_new(connection, _PREDICTIONS, rows)

    def add_feedback(self, feedback: Sequence[Feedback]) -> FeedbackCounts:
        """Store labels. One that says what is known already changes nothing; another one is a correction.

        The label received last wins, so an old message delivered again never undoes a correction. Of several labels
        for one id in one call the last counts, the others are repetitions.
        """
        newest = {checked(one.id): one for one in feedback}
        if not newest:
            return FeedbackCounts(0, 0, 0, 0)
        with writing(self._engine) as connection:
            known = self._newest_labels(connection, newest)
            kinds = {name: _kind(one, known.get(name)) for name, one in newest.items()}
            self._write_labels(connection, [newest[name] for name, kind in kinds.items() if kind != "repeated"])
            unknown = len(newest.keys() - self._predicted(connection, newest))
        number = Counter(kinds.values())
        repeated = number["repeated"] + len(feedback) - len(newest)
        return FeedbackCounts(number["stored"], repeated, number["corrected"], unknown)

    def frame(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        version: str | None = None,
        role: Role | None = "champion",
        columns: Sequence[str] | None = None,
        labels_by: datetime | None = None,
        labelled_only: bool = False,
        offset: int = 0,
        limit: int | None = None,
        newest: int | None = None,
        step: int = 1,
    ) -> pd.DataFrame:
        """The rows with `start <= time < end`, in order of (time, id), as columns:

        `__id__ __time__ __received__ __version__ __prediction__`, `__scores__` (list), `__set__` (list of class
        indices, or None), `__uncertainty__ __disagreement__`, `__private__` (which columns of the row are not logged in
        plain, as `LogColumns`, or None), `__label__` (None where absent), `__label_time__` (NaT), then the features:
        those of `columns`, or all that occur, encrypted ones decrypted, dropped ones None, hashed ones as hashes.
        Features have the dtype pandas infers from JSON. Raises `InputError` without the key of an encrypted column.

        `labels_by`: labels of a later time count as absent, and a later correction as not yet made. `limit` takes the
        first rows after `offset`, `newest` the last ones instead; `step` takes one of so many, evenly spaced. `role`
        None reads champion's and shadow's rows.
        """
        from registry.log_frame import frame_of  # pandas, which the keeper does without

        asked = _Rows(self._task, start, end, version, role, labels_by)
        c, where = _PREDICTIONS.c, asked.where(labelled_only=labelled_only)
        order = (c.time, c.id) if newest is None else (c.time.desc(), c.id.desc())
        if step > 1:
            number = sa.func.row_number().over(order_by=(c.time, c.id)).label("number")
            every = sa.select(c.id, number).where(where).subquery()
            where = asked.where() & c.id.in_(sa.select(every.c.id).where((every.c.number - 1) % step == 0))
        read = _READ if columns is None or columns else _OUTPUTS
        rows = sa.select(*read).where(where).order_by(*order).offset(offset).limit(limit if newest is None else newest)
        ids = rows.with_only_columns(c.id)
        f = _FEEDBACK.c
        labels = sa.select(f.id, f.label, f.time).where(asked.labels(), f.id.in_(ids)).order_by(f.received)
        with reading(self._engine) as connection:
            found = connection.execute(rows).all()
            known = {name: (label, time) for name, label, time in connection.execute(labels)}
        return frame_of(found if newest is None else found[::-1], known, columns, self._unsealed)

    def span(self, *, role: Role | None = "champion") -> tuple[datetime, datetime] | None:
        """The first and the last event time, or None when nothing is logged."""
        time, where = _PREDICTIONS.c.time, _Rows(self._task, role=role).where()
        with reading(self._engine) as connection:
            low, high = connection.execute(sa.select(sa.func.min(time), sa.func.max(time)).where(where)).one()
        return None if low is None else (from_micros(low), from_micros(high))

    def newest(self, by: datetime, *, timed: bool) -> tuple[datetime | None, Astray]:
        """The last event time of the champion's rows up to `by`, None without any; and which of the newest rows do not
        say it: those that lie after it, and, where rows are `timed`, those without a moment of their own, which lie at
        their arrival. The latter count where there are no others."""
        c, mine = _PREDICTIONS.c, _Rows(self._task).where()
        newest = sa.select(c.time, c.received).where(mine).order_by(c.time.desc()).limit(_NEWEST).subquery().c
        ahead = newest.time > to_micros(by)
        untimed = (newest.time == newest.received) if timed else sa.false()
        asked = sa.select(
            sa.func.count(),
            sa.func.max(newest.time).filter(~ahead & ~untimed),
            sa.func.max(newest.time).filter(~ahead),
            sa.func.count().filter(ahead),
            sa.func.max(newest.time).filter(ahead),
            sa.func.count().filter(~ahead & untimed),
        )
        with reading(self._engine) as connection:
            rows, timely, last, later, furthest, bare = connection.execute(asked).one()
        furthest, bare = None if furthest is None else from_micros(furthest), bare if timely is not None else 0
        found = Astray(rows, later, furthest, bare)
        return None if last is None else from_micros(last if timely is None else timely), found

    def counts(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        version: str | None = None,
        role: Role | None = "champion",
        labels_by: datetime | None = None,
    ) -> Counts:
        """How many rows `frame` would give, and how many with a label."""
        asked = _Rows(self._task, start, end, version, role, labels_by)
        rows = sa.select(sa.func.count()).select_from(_PREDICTIONS)
        with reading(self._engine) as connection:
            every = connection.execute(rows.where(asked.where())).scalar_one()
            return Counts(every, connection.execute(rows.where(asked.where(labelled_only=True))).scalar_one())

    def versions(self, *, role: Role | None = "champion") -> dict[str, int]:
        """How many rows each version answered, in the order in which they first did."""
        c = _PREDICTIONS.c
        rows = sa.select(c.version, sa.func.count()).where(_Rows(self._task, role=role).where()).group_by(c.version)
        with reading(self._engine) as connection:
            found = connection.execute(rows.order_by(sa.func.min(c.time), c.version)).all()
        return {row[0]: row[1] for row in found}

    def _unsealed(self, sealed: str, name: str, column: str) -> dict[str, Any]:
        return self._privacy.vault.unseal(sealed, about(self._task, name), column)

    def _newest_labels(self, connection: Connection, ids: Collection[str]) -> dict[str, tuple[str, int]]:
        """The label received last, in JSON, and when it was received, by id."""
        f, found = _FEEDBACK.c, dict[str, tuple[str, int]]()
        for some in _chunks(ids):
            rows = sa.select(f.id, f.label, f.received).where(f.task == self._task, f.id.in_(some)).order_by(f.received)
            found |= {name: (label, received) for name, label, received in connection.execute(rows)}
        return found

    def _write_labels(self, connection: Connection, feedback: Sequence[Feedback]) -> None:
        if not feedback:
            return
        times = [{"time": to_micros(one.time), "received": to_micros(one.received)} for one in feedback]
        rows = [
            {"task": self._task, "id": one.id, "label": to_json(one.label), **moments}
            for one, moments in zip(feedback, times, strict=True)
        ]
        statement = insert(self._engine, _FEEDBACK)
        changed = {name: statement.excluded[name] for name in ("label", "time")}
        keys = ["task", "id", "received"]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)

    def _predicted(self, connection: Connection, ids: Collection[str]) -> set[str]:
        """Those of the ids that have a prediction."""
        where, c = _Rows(self._task, role=None).where(), _PREDICTIONS.c
        chunks = (connection.execute(sa.select(c.id).where(where, c.id.in_(some))) for some in _chunks(ids))
        return {name for chunk in chunks for name in chunk.scalars()}
