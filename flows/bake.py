"""Bake time: a new champion that turns out worse than the one it replaced is rolled back, by itself.

For `gate.bake` windows after a promotion the former champion, which is kept, predicts the new one's labelled rows too,
as they were logged: both on the same rows, all of them later than the promotion. It is rolled back when it is surely
worse. There are at most `LOOKS`, each only when the rows have grown by a quarter, and they share the error probability
1 - `gate.confidence` (Bonferroni). The ledger holds each look (`bake`) and what came of it (`rollback`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from flows.deeds import BAKE
from flows.handover import handing_over, newest_act
from flows.improve import with_error
from flows.publishing import alias_of, fetch
from flows.rows import why_none
from flows.second_look import GROWTH, known_until, labelled_rows, read_by
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.decisions import ROLLBACK, Outcome, Verdict
from registry.errors import InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive

KIND = BAKE
LOOKS = 4

MOST_ENTRIES = 1_000
"""Entries of windows within which those of before are looked for."""

_TICK = timedelta(microseconds=1)

Span: TypeAlias = tuple[datetime, datetime]
"""Begin and end of a window."""


def bake(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """Look at a new champion as of a moment, and roll it back where it is surely worse than the one before.

    None when no champion is being baked, nothing new is known of it, the former one cannot be compared with it, or an
    improvement is at work. Otherwise what `improve` answers; the outcome is `rollback`, or `hold` for a champion that
    stays under watch.
    """
    try:
        with exclusive(place.lock, f"the bake time of task {place.task.name}"):
            promoted = in_the_oven(place, as_of)
            entry = None if promoted is None else _look(place, promoted, as_of)
    except (StateError, InputError) as error:  # such as a former champion of other classes
        say(f"no look at the new champion now: {error}")
        return None
    if entry is None:
        return None
    found = {
        "by": "bake time",
        "outcome": entry.outcome,
        "version": entry.version,
        "champion": alias_of(place, "champion"),
    }
    return {**found, "reasons": list(entry.reasons), "seconds": entry.seconds}


def rolled_back(look: dict[str, Any] | None) -> bool:
    """Whether a look made the former champion the champion again."""
    return look is not None and look["outcome"] == ROLLBACK


def in_the_oven(place: Workplace, as_of: datetime) -> Entry | None:
    """The promotion of the present champion, if it may still be rolled back; or one whose rollback was cut short."""
    if place.task.mode == "observe":
        return None
    acts = [one for one in place.ledger.read(kinds={"promotion", ROLLBACK}, last=1) if one.at <= as_of]
    if not acts or acts[-1].kind != "promotion" or not acts[-1].details.get("previous"):
        return None
    promoted = acts[-1]
    looks = _looks(place, promoted)
    if looks and looks[-1].outcome == ROLLBACK:
        return promoted
    stands = alias_of(place, "champion") == promoted.version
    stands = stands and alias_of(place, "previous") == promoted.details["previous"]
    bake, since, mine = place.task.gate.bake, promoted.id or 0, promoted.version
    own = place.ledger.moments("window", until=as_of, last=bake + 1, version=mine, since=since)
    return promoted if stands and 0 < bake >= len(own) and len(looks) < LOOKS else None


def _looks(place: Workplace, promoted: Entry) -> list[Entry]:
    return [one for one in place.ledger.read(kinds={KIND}, since=promoted.id or 0) if one.version == promoted.version]


def _look(place: Workplace, promoted: Entry, as_of: datetime) -> Entry | None:
    """The entry of a look, or None when there is nothing new to look at. Judged before, it is acted on alone."""
    looks = _looks(place, promoted)
    entry = looks[-1] if looks and looks[-1].outcome == ROLLBACK else _judged(place, promoted, looks, as_of)
    if entry is not None and entry.outcome == ROLLBACK:
        _act(place, promoted, entry)
    return entry


def own_windows(place: Workplace, begun: Entry) -> set[Span]:
    """The windows that are over of a version that began to answer with this entry: those that end after it, and those
    that are new since and in which the version has answered. Where the data's times lie behind the clock, and it began
    "now", there are no others for long, or ever; windows of before are measured again when their labels come."""
    found = _spans(place.ledger.read(kinds={"window"}, since=begun.id or 0))
    late = {one for one in found if one[1] <= begun.at}
    if late:
        before = place.ledger.read(kinds={"window"}, last=MOST_ENTRIES)
        late -= _spans(one for one in before if (one.id or 0) < (begun.id or 0))
    return {one for one in found if one[1] > begun.at} | {one for one in late if _answered(place, begun, one)}


def _spans(windows: Iterable[Entry]) -> set[Span]:
    told = [one.details["window"] for one in windows]
    return {(datetime.fromisoformat(one["start"]), datetime.fromisoformat(one["end"])) for one in told}


def _answered(place: Workplace, begun: Entry, span: Span) -> bool:
    return place.log.number(start=span[0], end=span[1], version=begun.version) > 0


def compared(
    place: Workplace, begun: Entry, former: str, as_of: datetime, *, error: float, least: float
) -> tuple[Verdict, int] | None:
    """A version against the one before on the labelled rows since it began to answer with this entry, as known at
    `as_of`, judged with this error probability, and how many rows there were. None for fewer than `least` that have the
    columns of both."""
    from retrain.gate import judge

    version = str(begun.version)
    new, old = fetch(place, version), fetch(place, former)
    since = min((begun.at, *(start - _TICK for start, end in own_windows(place, begun) if end <= begun.at)))
    start = max(filter(None, (since, known_until(new, old)))) + _TICK
    if place.log.counts(start=start, end=as_of, labels_by=as_of).labelled < least:
        return None
    rows = labelled_rows(place, (new, old), start, as_of)
    if len(rows) < least:
        why = why_none(place.task, read_by((new, old)))
        say(f"version {version} beside version {former}: {len(rows):,} logged rows have all columns{why}")
        return None
    return judge(with_error(place.task, error), old, new, rows), len(rows)


def is_worse(verdict: Verdict) -> bool:
    """Whether the challenger is surely worse."""
    return verdict.checks[0].name == "gain" and (verdict.checks[0].high or 0.0) < 0


def _judged(place: Workplace, promoted: Entry, looks: list[Entry], as_of: datetime) -> Entry | None:
    began, name = time.monotonic(), place.task.name
    version, former = str(promoted.version), str(promoted.details["previous"])
    read = [set(fetch(place, one).manifest.data_schema.names) for one in (former, version)]
    if unlogged := read[0] - read[1]:  # the endpoint logs what the champion reads
        say(f"bake time of version {version}: version {former} reads {', '.join(sorted(unlogged))}, which it does not")
        return None
    least = max(GROWTH * int(looks[-1].details["rows"]) if looks else 0, place.task.gate.min_rows)
    error = (1 - place.task.gate.confidence) / LOOKS
    found = compared(place, promoted, former, as_of, error=error, least=least)
    if found is None:
        return None
    verdict, rows = found
    worse = is_worse(verdict)
    reasons = (f"the new champion against version {former}: {verdict.checks[0].detail}",)
    say(f"bake time of version {version}: {'worse' if worse else 'not shown to be worse'}: {reasons[0]}")
    return place.ledger.write(
        Entry(
            task=name,
            kind=KIND,
            at=as_of,
            version=version,
            outcome=ROLLBACK if worse else Outcome.HOLD.value,
            reasons=reasons,
            details={"verdict": _plain(verdict), "rows": rows, "former": former},
            seconds=time.monotonic() - began,
        )
    )


def _plain(verdict: Verdict) -> dict[str, Any]:
    return verdict.model_dump(mode="json")


@stage
def _act(place: Workplace, promoted: Entry, look: Entry) -> None:
    """Roll back, and tell the ledger; may be done twice with the same end. Whoever changed the champion meanwhile is
    not overruled."""
    name, former = place.task.name, str(promoted.details["previous"])
    with handing_over(place):
        if newest_act(place) != promoted.id:
            return
        if place.versions.get(name, "champion") == promoted.version:
            place.versions.rollback(name)
        if place.versions.get(name, "champion") == former:
            told = {"outcome": "rolled back", "reasons": look.reasons, "details": {"previous": promoted.version}}
            place.ledger.write(Entry(task=name, kind=ROLLBACK, at=look.at, version=former, **told))
