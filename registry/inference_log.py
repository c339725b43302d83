"""Every prediction served and every label that came back, by task: what monitoring and retraining read.

Predictions are stored by the batch (`log_tables`, `log_packed`), features as they were sent, in JSON: a changed schema
needs no migration. Labels are kept with all their corrections: a reader who asks for the labels known by a moment sees
those of that moment. Only a label's time is not kept once it was corrected: that moment was never true.

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

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from registry.database import from_micros, reading, to_micros, writing
from registry.log_arrivals import Arrivals, arrivals
from registry.log_batch import Batch, Role, about
from registry.log_counted import agrees, change, claim, recount, tally
from registry.log_ids import run_of
from registry.log_joined import join
from registry.log_kept import drop
from registry.log_packed import Packed, pack, unpack
from registry.log_query import ROLES, Asked, picked
from registry.log_tables import BATCHES, FEEDBACK, Labels, known, labelled_of, labels_of, lock, store
from registry.privacy import Privacy, to_json
from registry.statements import among, insert

if TYPE_CHECKING:
    import pandas as pd

_NEWEST = 100_000
"""Rows that are looked at for the newest event."""


@dataclass(frozen=True)
class Feedback:
    """The true label of a prediction, in canonical form. `time` is the moment it became known in event time; where it
    is that of `received`, the label has none of its own: it is known by then."""

    id: str
    label: str | float
    time: datetime
    received: datetime


@dataclass(frozen=True)
class Astray:
    """Of the newest `rows`: how many lie after a moment, the furthest, and how many have no moment of their own."""

    rows: int
    ahead: int
    furthest: datetime | None
    untimed: int


@dataclass(frozen=True)
class FeedbackCounts:
    """What became of labels; the four add up to their number.

    `stored`: the first of a prediction. `corrected`: another value than the newest, or another time. `repeated`: says
    nothing new. `unknown`: there is no such prediction yet; it is kept all the same, and joins when that arrives.
    `overtaken` of the repeated say another value than one of the same id received later, by another clock perhaps.
    """

    stored: int
    repeated: int
    corrected: int
    unknown: int
    overtaken: int = field(default=0, repr=False)


class Counts(NamedTuple):
    """How many predictions there are, and how many of them have a label."""

    predictions: int
    labelled: int


class _Known(NamedTuple):
    """A label of an id: its value in JSON, its time, and when it was received."""

    label: str
    time: int
    received: int


def _latest(times: npt.NDArray[np.int64]) -> datetime | None:
    return from_micros(int(times.max())) if len(times) else None


def _is_news(one: Feedback, newest: _Known | None) -> bool:
    """Whether a label says something that the newest one of its id, None without any, does not: another value, or the
    same with another time. One without a time of its own says that it is known by now, which is news only of a label
    of later."""
    if newest is None:
        return True
    if to_micros(one.received) < newest.received or to_json(one.label) != newest.label:
        return to_micros(one.received) >= newest.received
    time = to_micros(one.time)
    return time < newest.time if one.time == one.received else time != newest.time


def _is_overtaken(one: Feedback, said: Sequence[_Known]) -> bool:
    """Whether a label, that is not one of those known of its id delivered again, says another value than the newest of
    them, which was received later."""
    label, received = to_json(one.label), to_micros(one.received)
    if not said or received >= said[-1].received or label == said[-1].label:
        return False
    return (label, received) not in {(known.label, known.received) for known in said}


class InferenceLog:
    """The predictions and labels of one task. One object may be used by several threads, one database by many logs.

    All methods raise `StoreError` when the database fails; nothing of that call is kept then, and since writing is
    idempotent, the same call may simply be made again.
    """

    def __init__(self, engine: Engine, task: str, privacy: Privacy = Privacy()) -> None:  # noqa: B008  frozen
        """`privacy` says what of the rows that are appended is hidden, and holds the key to what was encrypted."""
        self._engine, self._task, self._privacy = engine, task, privacy

    def append_batches(self, batches: Iterable[Batch | Packed]) -> int:
        """Store predictions, all or none; those whose id (and role) is known already are passed over.

        Returns how many were new. Raises `RowError` for an id that no database keeps (empty, or with a NUL),
        `InputError` for a key that cannot be used.
        """
        packed = [one for one in map(self._packed, batches) if len(one)]
        if not packed:
            return 0
        with writing(self._engine) as connection:
            stored = store(connection, self._task, packed)
            claim(connection, self._task, stored)
        return sum(one.size for one in stored)

    def join(self) -> bool:
        """Make large batches of small ones, some at a time; True if there may be more. Rows stay what they are."""
        with writing(self._engine) as connection:
            return join(connection, self._task)

    def drop(self, before: datetime) -> int:
        """Delete rows that lie before a moment, some at a time, and their labels; how many, 0 if there are no more."""
        with writing(self._engine) as connection:
            return drop(connection, self._task, to_micros(before))

    def recount(self) -> bool:
        """Count labels anew where the kept numbers are not those of the labels that there are; True if so."""
        with reading(self._engine) as connection:
            if agrees(connection, self._task):
                return False
        with writing(self._engine) as connection:
            lock(connection, self._task)
            recount(connection, self._task)
        return True

    def add_feedback(self, feedback: Sequence[Feedback]) -> FeedbackCounts:
        """Store labels. One that says what is known already changes nothing; another value is a correction, known from
        its own time on; the same value with another time corrects the time, as if it had been right at first.

        The label received last wins, so an old message delivered again never undoes a correction. Of several labels
        for one id in one call the last counts, the others are repetitions.
        """
        newest = {one.id: one for one in feedback if run_of(one.id)}
        if not newest:
            return FeedbackCounts(0, 0, 0, 0)
        with writing(self._engine) as connection:
            lock(connection, self._task)  # whoever stores the predictions counts which of them have labels
            said = self._labels(connection, newest)
            before = {name: every[-1] for name, every in said.items()}
            news = [one for name, one in newest.items() if _is_news(one, before.get(name))]
            self._write_labels(connection, news, before)
            answered, beside = (known(connection, self._task, role, list(newest)) for role in ROLES)
            firsts = newest.keys() - said.keys()
            met, waiting = len(firsts & answered), len(firsts - answered)
            change(connection, self._task, labelled=met, waiting=waiting)
        predicted = answered | beside
        told = {one.id for one in news} & predicted
        corrected = len(told & before.keys())
        unknown, stored = len(newest.keys() - predicted), len(told) - corrected
        overtaken = sum(_is_overtaken(one, said.get(name, ())) for name, one in newest.items() if name in predicted)
        return FeedbackCounts(stored, len(feedback) - unknown - stored - corrected, corrected, unknown, overtaken)

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
        Features have the dtype pandas infers from JSON; texts are cut to what is read of them where rows are longer.
        Raises `InputError` without the key of an encrypted column.

        `labels_by`: labels of a later time count as absent, and a later correction as not yet made. `limit` takes the
        first rows after `offset`, `newest` the last ones instead; `step` takes one of so many, evenly spaced. `role`
        None reads champion's and shadow's rows.
        """
        from registry.log_frame import Assembly, heavy  # pandas, which the keeper does without

        asked = Asked(self._task, start, end, version, role, labels_by)
        cut: dict[str, Any] = {"offset": offset, "limit": limit, "newest": newest, "step": step}
        with reading(self._engine) as connection:
            rows = picked(connection, asked, labelled_only=labelled_only, **cut)
            found = Assembly(rows, columns, self._unsealed)
            for one in heavy(connection, list(found.places), features=columns is None or bool(columns)):
                found.add(one)
            if labelled_only and step == 1:
                return found.frame(Labels(rows.labels, rows.label_times))
            return found.frame(labels_of(connection, asked.labels(), rows.ids.tolist()))

    def unlabelled_from(self, start: datetime, *, end: datetime, labels_by: datetime, newest: int) -> datetime | None:
        """Of the champion's `newest` rows with `start <= time < end` that have no label known by `labels_by`, the time
        of the earliest; None where all have one."""
        asked = Asked(self._task, start, end, labels_by=labels_by)
        with reading(self._engine) as connection:
            rows = picked(connection, asked, newest=newest)
            bare = ~np.array(labelled_of(connection, asked.labels(), rows.ids.tolist()), dtype=bool)
        return from_micros(int(rows.times[bare].min())) if bare.any() else None

    def span(self, *, role: Role | None = "champion") -> tuple[datetime, datetime] | None:
        """The first and the last event time, or None when nothing is logged."""
        c, where = BATCHES.c, Asked(self._task, role=role).batches()
        with reading(self._engine) as connection:  # either has an index; both by one question are a look at all
            bounds = (sa.select(one).where(where) for one in (sa.func.min(c.earliest), sa.func.max(c.latest)))
            low, high = (connection.execute(one).scalar_one() for one in bounds)
        return None if low is None else (from_micros(low), from_micros(high))

    def number(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        version: str | None = None,
        role: Role | None = "champion",
    ) -> int:
        """How many rows `frame` would give: `counts` without a look at labels."""
        with reading(self._engine) as connection:
            return Asked(self._task, start, end, version, role).number(connection)

    def newest(self, by: datetime, *, timed: bool) -> tuple[datetime | None, Astray]:
        """The last event time of the champion's rows up to `by`, None without any; and which of the newest rows do not
        say it: those that lie after it, and, where rows are `timed`, those without a moment of their own, which lie at
        their arrival. The latter count where there are no others."""
        with reading(self._engine) as connection:
            found = picked(connection, Asked(self._task), newest=_NEWEST)
        times, ahead = found.times, found.times > to_micros(by)
        untimed = (times == found.received) & timed & ~ahead
        last, timely = _latest(times[~ahead]), _latest(times[~ahead & ~untimed])
        bare = 0 if timely is None else int(untimed.sum())
        astray = Astray(len(found), int(ahead.sum()), _latest(times[ahead]), bare)
        return last if timely is None else timely, astray

    def counts(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        version: str | None = None,
        role: Role | None = "champion",
        labels_by: datetime | None = None,
    ) -> Counts:
        """How many rows `frame` would give, and how many with a label. Of all the champion's they are kept."""
        asked = Asked(self._task, start, end, version, role, labels_by)
        with reading(self._engine) as connection:
            if asked == Asked(self._task):
                return Counts(asked.number(connection), tally(connection, self._task)[0])
            return Counts(*asked.counts(connection))

    def versions(self, *, role: Role | None = "champion") -> dict[str, int]:
        """How many rows each version answered, in the order in which they first did."""
        c, where = BATCHES.c, Asked(self._task, role=role).batches()
        rows = sa.select(c.version, sa.func.sum(c.size)).where(where).group_by(c.version)
        with reading(self._engine) as connection:
            found = connection.execute(rows.order_by(sa.func.min(c.earliest), c.version)).all()
        return {row[0]: int(row[1]) for row in found}

    def arrivals(self, start: datetime) -> Arrivals:
        """When rows of this moment and later, and labels of them, were received: a sample."""
        with reading(self._engine) as connection:
            return arrivals(connection, self._task, to_micros(start))

    def _packed(self, one: Batch | Packed) -> Packed:
        """What is stored of predictions, with what the task hides taken out."""
        if isinstance(one, Packed):
            if one.private is not None or not self._privacy.columns.names:
                return one
            one = unpack(one)
        return pack(one.hidden(self._task, self._privacy))

    def _unsealed(self, sealed: str, name: str, column: str) -> dict[str, Any]:
        return self._privacy.vault.unseal(sealed, about(self._task, name), column)

    def _labels(self, connection: Connection, ids: Collection[str]) -> dict[str, list[_Known]]:
        """The labels of each id, in the order in which they were received."""
        f = FEEDBACK.c
        mine = f.task == self._task, among(connection, f.id, list(ids))
        rows = sa.select(f.id, f.label, f.time, f.received).where(*mine)
        found: dict[str, list[_Known]] = {}
        for name, *rest in connection.execute(rows.order_by(f.received)):
            found.setdefault(name, []).append(_Known(*rest))
        return found

    def _write_labels(self, connection: Connection, news: Sequence[Feedback], before: Mapping[str, _Known]) -> None:
        """Write labels; those that correct a time take the place of the label whose time was wrong."""
        if not news:
            return
        rows, wrong = [], []
        for one in news:
            said = _Known(to_json(one.label), to_micros(one.time), to_micros(one.received))
            rows.append({"task": self._task, "id": one.id, **said._asdict()})
            if (known := before.get(one.id)) is not None and known.label == said.label:
                wrong.append({"of": one.id, "at": known.received})
        statement, f = insert(self._engine, FEEDBACK), FEEDBACK.c
        if wrong:
            which = f.task == self._task, f.id == sa.bindparam("of"), f.received == sa.bindparam("at")
            connection.execute(sa.delete(FEEDBACK).where(*which), wrong)
        keys, changed = ["task", "id", "received"], {name: statement.excluded[name] for name in ("label", "time")}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)
