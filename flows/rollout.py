"""How a proven challenger becomes the champion: at once, or by `gate.canary` after it has answered a share first.

The ledger holds the beginning of a canary and its end (`canary`; the end is `canary.py`'s matter). Somebody who ends
the share by hand, or moves an alias, ends the roll-out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flows.following import following
from flows.handover import ACTS, handing_over, require_unchanged
from flows.publishing import alias_of
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.decisions import Outcome
from registry.ledger import Entry
from registry.plurals import counted
from registry.policies import Canary

KIND = "canary"
BEGUN, PROMOTED, WITHDRAWN = "begun", "promoted", "withdrawn"
ASKED = "asked"


@stage
def roll_out(
    place: Workplace,
    version: str,
    former: str,
    reasons: Sequence[str],
    at: datetime,
    since: int | None = None,
    **details: object,
) -> None:
    """Promote a version that was proven against `former`, or let it begin as a canary. May be done twice with the same
    end. `details` go into the ledger. Raises `StateError` where that would overrule somebody (`require_unchanged`)."""
    told = {"previous": former, **details}
    with handing_over(place):
        require_unchanged(place, version, former, since)
        if (canary := _canary(place)) is None:
            _promote(place, version, reasons, at, told)
            return
        if (begun := canary_out(place)) is not None and begun.version == version:
            return
        place.versions.set_canary(place.task.name, version, canary.share)
        place.versions.set(place.task.name, "challenger", version)
        write(place, KIND, BEGUN, version, reasons, at, {**told, **canary.model_dump()})
    span = counted(canary.windows, "window")
    say(f"version {version} answers {canary.share:.0%} of the requests for {span}, then is promoted")


def _canary(place: Workplace) -> Canary | None:
    """What a promotion begins as; None beside a champion that follows, which is another version after each window."""
    return None if following(place) is not None else place.task.gate.canary


def leads_to(place: Workplace, outcome: Outcome) -> str:
    """What will be said of a verdict once it is acted on."""
    if outcome is not Outcome.PROMOTE:
        return outcome.value
    return ASKED if place.task.mode != "auto" else outcome.value if _canary(place) is None else KIND


def ends_as(place: Workplace, outcome: Outcome) -> str:
    """What is said of a verdict that was acted on: a promotion may wait for a person, or begin as a canary."""
    if outcome is not Outcome.PROMOTE:
        return outcome.value
    if place.task.mode != "auto":
        return ASKED
    return outcome.value if canary_out(place) is None else KIND


def promote(place: Workplace, version: str, former: str, reasons: Sequence[str], at: datetime) -> None:
    """Make a version the champion instead of `former` and tell the ledger, once. Raises `StateError` where somebody has
    made another one the champion."""
    with handing_over(place):
        require_unchanged(place, version, former, None)
        _promote(place, version, reasons, at, {"previous": former})


def _promote(place: Workplace, version: str, reasons: Sequence[str], at: datetime, details: Mapping[str, Any]) -> None:
    """The aliases first, so that what the ledger says is so."""
    place.versions.promote(place.task.name, version)
    last = place.ledger.read(kinds=ACTS, last=1)
    if not last or last[-1].version != version:
        write(place, "promotion", PROMOTED, version, reasons, at, details)


def canary_out(place: Workplace) -> Entry | None:
    """The beginning of the roll-out that is under way, also of one whose promotion was cut short."""
    entries = place.ledger.read(kinds={KIND}, last=1)
    if not entries or entries[-1].outcome != BEGUN or place.task.mode == "observe":
        return None
    begun = entries[-1]
    champion, challenger = alias_of(place, "champion"), alias_of(place, "challenger")
    if champion == begun.version:
        return begun
    stands = champion == begun.details["previous"] and challenger == begun.version
    return begun if stands and place.versions.canary(place.task.name, str(begun.version)) > 0 else None


def write(
    place: Workplace,
    kind: str,
    outcome: str,
    version: str | None,
    reasons: Sequence[str],
    at: datetime,
    details: Mapping[str, Any],
    seconds: float = 0.0,
) -> Entry:
    """An entry of the task in the ledger."""
    entry = Entry(task=place.task.name, kind=kind, at=at, version=version, outcome=outcome, seconds=seconds)
    return place.ledger.write(entry.model_copy(update={"reasons": tuple(reasons), "details": dict(details)}))
