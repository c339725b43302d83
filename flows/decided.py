"""What was decided on the same rows before, for whoever asks for the same improvement again: an event that comes twice
starts nothing, a person is told; and it is tried anew when what was decided is not about the champion any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from flows.approval import APPROVED, KIND, REFUSED, pending
from flows.following import following
from flows.publishing import alias_of
from flows.rollout import ASKED, canary_out
from flows.rollout import KIND as CANARY
from flows.workplace import Workplace
from registry.decisions import Outcome, Remedy
from registry.ledger import Entry


def answered(place: Workplace, as_of: datetime, remedies: Sequence[Remedy]) -> Entry | None:
    """The end of an improvement of this very moment by these remedies, others beside them or not, if it stands."""
    ends = place.ledger.read(kinds={"improvement"}, last=1)
    if not ends or ends[-1].at != as_of or ends[-1].outcome == "refused":
        return None
    end, name = ends[-1], ends[-1].details.get("intent")
    begun = [one.details for one in place.ledger.read(kinds={"intent"}) if one.details["intent"] == name]
    more = any(not set(remedies) <= set(one.get("remedies", remedies)) for one in begun)
    return None if more or not stands(place, end) else end


def stands(place: Workplace, end: Entry) -> bool:
    """Whether the end of an improvement is about the champion of now: what it promoted is that, or else what it was
    compared with is; and a question waits still, or was answered. A champion that follows is the same one after its
    steps."""
    followed = following(place)
    now = {alias_of(place, "champion"), *(followed.versions if followed else ())}
    proved, compared = end.version in now, end.details.get("champion") in now
    if end.outcome == Outcome.PROMOTE:
        return proved
    if end.outcome == CANARY:
        return proved or compared
    if end.outcome == ASKED:
        reply, waits = _reply(place, end), pending(place)
        if reply == APPROVED:
            return proved or canary_out(place) is not None
        return compared and (reply == REFUSED or (waits is not None and waits.version == end.version))
    return compared


def told(place: Workplace, end: Entry) -> str:
    """In words what was decided before and what became of it, and what would be tried anew."""
    version = f"version {end.version}"
    what = f"{end.outcome}, {version}" if end.version else str(end.outcome)
    if end.outcome == Outcome.PROMOTE:
        what = f"{version} was promoted, and is the champion"
    elif end.outcome == CANARY:
        what = f"{version} was proved, and was to answer a share first"
    elif end.outcome == ASKED:
        waits = f"waits for a person: everfit approve {place.task.name}"
        answers = {APPROVED: "was approved by a person", REFUSED: "was refused by a person"}
        what = f"{version} was proved, and {answers.get(_reply(place, end) or '', waits)}"
    anew = "newer rows, other remedies or another champion would be tried anew"
    return f"already decided on these rows, as of {end.at:%Y-%m-%d %H:%M}: {what}; {anew}"


def _reply(place: Workplace, end: Entry) -> str | None:
    """What a person has answered to the question of an improvement, or `asked`."""
    asked = [one for one in place.ledger.read(kinds={KIND}) if one.version == end.version]
    return asked[-1].outcome if asked else None
