"""Notices: what somebody who does not watch the page has to hear beside alerts, a question or another champion, say.

Each tells of one entry of the ledger, once: an entry `notice` with that one's number is written before anything is
sent, also of what is told to nobody, so that the last one says how far the ledger was gone through. They are delivered
as alerts are (`alerting.py`). Steps of a champion that follows are none: it is the same one after them.

What is judged of a past that was judged before is told to nobody, as with alerts: the newest decision is then of an
earlier moment than another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from flows.approval import KIND as APPROVAL
from flows.approval import pending
from flows.broken_off import BROKEN
from flows.broken_off import KIND as BROKEN_OFF
from flows.rollout import ASKED, BEGUN, PROMOTED, WITHDRAWN
from flows.rollout import KIND as CANARY
from flows.silence import KIND as SILENCE
from flows.silence import RESOLVED, SILENT
from flows.workplace import Workplace
from registry.database import utc_now
from registry.decisions import ROLLBACK, Outcome
from registry.deliveries import NOTICE
from registry.ledger import Entry
from registry.task import Topic

_FIRST = timedelta(days=1)
"""So old an entry is told of at most (wall clock) where none was before: the ledger may be older than notices are."""
_KEPT = timedelta(weeks=1)
"""As long a notice that has reached nobody is news."""
_DECISIONS = 20


class Told(NamedTuple):
    """What is told of an entry: the topic, by which a task chooses, a sentence, and the command that comes next."""

    topic: Topic
    said: str
    then: str


_STATUS, _IMPROVEMENT = "everfit status {task}", "improvement"
_UNPROVEN = Told("attempt", "a new model was not proven to be better, the champion stays", _STATUS)
_TOLD: dict[tuple[str, str | None], Told] = {
    (APPROVAL, ASKED): Told(
        "question",
        "version {version} is proven to be better and waits for your approval",
        "everfit approve {task} (or: everfit approve {task} --refuse)",
    ),
    ("promotion", PROMOTED): Told(
        "promotion", "version {version} is the champion now, instead of version {previous}", "everfit rollback {task}"
    ),
    (ROLLBACK, "rolled back"): Told(
        "rollback", "version {version} is the champion again, instead of version {previous}", _STATUS
    ),
    (CANARY, BEGUN): Told(
        "promotion",
        "version {version} is proven to be better and answers {share:.0%} of the requests before it is promoted",
        "everfit canary {task} 0 (ends that)",
    ),
    (CANARY, WITHDRAWN): Told("rollback", "version {version}, which answered a share, was let go", _STATUS),
    (SILENCE, SILENT): Told("silence", "no {of} arrive any more", _STATUS),
    (SILENCE, RESOLVED): Told("silence", "{of} arrive again", _STATUS),
    (_IMPROVEMENT, "refused"): Told("failure", "an improvement failed, no new model was made", _STATUS),
    (BROKEN_OFF, BROKEN): Told("failure", "an improvement was broken off", "everfit improve {task} (completes it)"),
    (_IMPROVEMENT, Outcome.HOLD): _UNPROVEN,
    (_IMPROVEMENT, Outcome.REJECT): _UNPROVEN,
}
"""By kind and outcome of an entry. What an improvement has promoted or asked is told by the entry of that."""


def told_of(entry: Entry) -> Told | None:
    """What is told of an entry; None of one that is no news.

    >>> from datetime import datetime
    >>> told = told_of(Entry(task="flights", kind="approval", outcome="asked", version="5", at=datetime(2024, 5, 1)))
    >>> told.topic, told.said
    ('question', 'version 5 is proven to be better and waits for your approval')
    """
    found = _TOLD.get((entry.kind, entry.outcome))
    if found is None:
        return None
    words = {"previous": "none", "share": 0.0, **entry.details, "task": entry.task, "version": entry.version}
    return found._replace(said=found.said.format(**words), then=found.then.format(**words))


def note_notices(place: Workplace, known: Iterable[str]) -> bool:
    """Write down what is new, for the channels of these names to hear; whether any of it is to be told. Nothing is sent
    yet. Raises `StoreError`."""
    before = place.ledger.read(kinds={NOTICE}, last=1)
    kinds = {kind for kind, _ in _TOLD}
    entries = place.ledger.read(kinds=kinds, since=before[-1].details["of"] if before else 0)
    if not before:
        entries = [one for one in entries if one.written is not None and utc_now() - one.written < _FIRST]
    found = [(one, told) for one in entries if (told := told_of(one)) is not None]
    some, channels = False, list(known)
    for entry, told in found:
        heard = told.topic in place.task.alerts.notices and _is_news(place, entry)
        place.ledger.write(_notice(entry, told, channels if heard else [], heard=heard))
        some = some or heard
    return some


def _notice(entry: Entry, told: Told, channels: list[str], *, heard: bool) -> Entry:
    key = f"{entry.task}-{told.topic}-{entry.details.get('silent', entry.id)}"  # the end of a silence bears its key
    kept = {"of": entry.id, "key": key, "title": f"{entry.task}: {told.said}", "next": told.then}
    return Entry(
        task=entry.task,
        kind=NOTICE,
        at=entry.at,
        version=entry.version,
        outcome=RESOLVED if entry.outcome == RESOLVED else told.topic,
        reasons=entry.reasons,
        details={**kept, "told": heard, "channels": channels},
    )


def _is_news(place: Workplace, entry: Entry) -> bool:
    """Not of the first champion, whose search somebody has just run; not of a question that waits no more; not of a
    past that is judged again."""
    if entry.kind == "promotion" and entry.details.get("previous") is None:
        return False
    if entry.kind == APPROVAL and ((asked := pending(place)) is None or asked.id != entry.id):
        return False
    return not _is_past(place, entry)


def still_news(place: Workplace, notice: Entry) -> bool:
    """Whether a notice that has reached nobody is worth hearing now: not for ever, nor an answered question."""
    if notice.written is None or utc_now() - notice.written > _KEPT:
        return False
    return notice.outcome != "question" or ((asked := pending(place)) is not None and asked.id == notice.details["of"])


def _is_past(place: Workplace, entry: Entry) -> bool:
    """Whether the decisions stand at an earlier moment than they did before, and the entry is of before that one too.
    Decisions that found no window yet say nothing: they may be of the clock where the rows are of another year."""
    decided = (place.ledger.read(kinds={"decision"}, last=_DECISIONS, timely=timely) for timely in (False, True))
    written, furthest = ([one.at for one in some if one.details.get("window")] for some in decided)
    return bool(written and furthest) and max(written[-1], entry.at) < furthest[-1]
