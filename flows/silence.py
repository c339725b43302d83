"""Silence: predictions, or labels, that do not arrive any more, judged by the clock and by the log's own history.

They have stayed away when nothing has come for half as long again as the longest pause of the last four weeks. Where
there are no two weeks of history nothing is said: a night or a weekend may be none of it. The ledger holds the begin of
a silence (`silence`), once, and its end. What is read is a bounded sample (`registry/log_arrivals.py`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from flows.publishing import alias_of
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.database import from_micros, utc_now
from registry.ledger import Entry
from registry.moves import CHAMPION
from registry.settings import Settings

KIND = "silence"
SILENT, RESOLVED = "silent", "resolved"

HISTORY, LEAST = timedelta(days=28), timedelta(days=14)
"""How far back arrivals are looked at, and how long they must have been coming."""
LONGER = 1.5
"""By how much a pause must be longer than any of that history."""
SHORTEST = timedelta(hours=2)
"""No shorter one is a silence: of each hour the sample has one batch."""

_MANY = 10
"""Arrivals that make a history."""
_LAST = 20


@stage
def note_silence(place: Workplace, as_of: datetime) -> None:
    """Write down what stays away as of the clock, or has come again; `as_of` is the pass's moment. Raises
    `StoreError`."""
    if why := unwatched(place.settings):
        say(why)
    clock = utc_now()
    found = place.log.arrivals(clock - HISTORY)
    for what, micros in (("predictions", found.rows), ("labels", found.labels)):
        if micros:
            _look(place, what, [from_micros(one) for one in micros], clock, as_of)


def unwatched(settings: Settings) -> str:
    """That nobody will be told of a silence, since the log does not hold the history that one is judged by; empty where
    it does."""
    days, least = settings.log_days, LEAST.days
    if days is None or days > least:
        return ""
    return (
        f"EVERFIT_LOG_DAYS={days}: nobody is told when predictions or labels stay away, which takes more than {least} "
        f"days of them in the log; {least + 1} or more"
    )


def _look(place: Workplace, what: str, arrived: list[datetime], clock: datetime, as_of: datetime) -> None:
    last = arrived[-1]
    told = [one for one in place.ledger.read(kinds={KIND}, last=_LAST) if one.details["of"] == what]
    if told and told[-1].outcome == SILENT:
        if told[-1].written is not None and last > told[-1].written:  # one of before may only be new to the sample
            said = f"the newest arrived at {last:%Y-%m-%d %H:%M} UTC"
            _write(place, RESOLVED, said, as_of, {"of": what, "silent": told[-1].id})
        return
    longest = max((after - before for before, after in pairwise(arrived)), default=HISTORY)
    if len(arrived) < _MANY or last - arrived[0] < LEAST or clock - last <= max(SHORTEST, LONGER * longest):
        return
    said = f"the last arrived at {last:%Y-%m-%d %H:%M} UTC, {in_words(clock - last)} ago"
    said = f"{said}; the longest pause in the weeks before was of {in_words(longest)}"
    _write(place, SILENT, said, as_of, {"of": what})


def _write(place: Workplace, outcome: str, said: str, as_of: datetime, details: dict[str, object]) -> None:
    say(f"{details['of']}: {outcome}: {said}")
    told = {"version": alias_of(place, CHAMPION), "outcome": outcome, "reasons": (said,), "details": details}
    place.ledger.write(Entry.model_validate({"task": place.task.name, "kind": KIND, "at": as_of, **told}))


def in_words(span: timedelta) -> str:
    """A span in hours, or in days where it is longer than two.

    >>> in_words(timedelta(hours=30)), in_words(timedelta(days=3, hours=5)), in_words(timedelta(minutes=90))
    ('30 hours', '3.2 days', '1.5 hours')
    """
    hours = span.total_seconds() / 3600
    return f"{hours:.3g} hours" if hours <= 48 else f"{hours / 24:.1f} days"
