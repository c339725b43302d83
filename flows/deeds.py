"""What was done about a window, in words: the same in a replay's lines, its table and `everfit status`.

It need not be what was decided on it: whether following pays is looked at without a decision, and a challenger that was
held is looked at again. What was done at a moment is in the ledger, whoever asks, and whenever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from flows import following, rollout
from flows.spending import LOOK
from flows.workplace import Workplace
from registry.decisions import ROLLBACK, Outcome, Remedy
from registry.ledger import Entry

SECOND_LOOK, BAKE = "second_look", "bake"
"""The kinds of entries of a second look at a held challenger, and of a look at a new champion."""
KINDS = ("improvement", SECOND_LOOK, BAKE, rollout.KIND, LOOK, following.KIND)
"""The kinds of entries that tell what was done."""
_RECENT = 100
"""Entries among which those of the newest windows are looked for."""


def deed(remedy: str, by: str, outcome: str, *, not_run: str = "", stepped: bool = False, no_step: str = "") -> str:
    """What was done, `by` which remedy or look, with which outcome; of what was decided and not done, that; and whether
    a champion that follows has learnt, or why it could not. A step that something else took the place of is not told.

    >>> deed("none", "second look", "hold"), deed("research", "", "", not_run="only watched")
    ('second look: hold', 'research: decided, not run: only watched')
    """
    done = f"{by or remedy}: {outcome}" if outcome else undone(remedy, not_run)
    learnt = "a step of follow" if stepped and outcome not in (Outcome.PROMOTE, ROLLBACK) else ""
    return "; ".join(filter(None, [done, learnt, missed(no_step)]))


def undone(remedy: str, why: str) -> str:
    """What was decided and not done, in words; of a window that was not judged, why."""
    if remedy in ("", "none"):
        return why
    return remedy if remedy == "alert" else ": ".join([f"{remedy}: decided, not run", *filter(None, [why])])


def missed(why: str) -> str:
    """That a champion that follows could not learn, and why, in words."""
    return f"no step of follow: {why}" if why else ""


def recent(place: Workplace, kinds: Sequence[str] = (*KINDS, following.MISSED), *, timely: bool = False) -> list[Entry]:
    """The newest entries of these kinds, as they were written, among which those of a window just judged are; or
    `timely` by the time of the data, among which those of the newest windows are."""
    return place.ledger.read(kinds=kinds, last=_RECENT, timely=timely)


def done(entries: Iterable[Entry], at: datetime) -> dict[str, Any] | None:
    """What was done at a moment, by entries in their order, as `lifecycle` answers of it; None for nothing that has
    changed anything or was told."""
    told = (_told(entry) for entry in reversed([one for one in entries if one.at == at]))
    return next((one for one in told if one is not None), None)


def deeds(place: Workplace, decisions: Sequence[Entry]) -> list[str]:
    """What was done about each of these decisions; of the newest, about which something may yet be done, what was
    decided until then."""
    entries, newest = recent(place, timely=True), max((one.id or 0 for one in decisions), default=0)
    return [_deed(one, [found for found in entries if found.at == one.at], one.id == newest) for one in decisions]


def _deed(decision: Entry, entries: Sequence[Entry], is_newest: bool) -> str:
    found, remedy = done(entries, decision.at) or {}, decision.outcome or "none"
    missing = [one for one in entries if one.kind == following.MISSED]
    told = deed(
        "none" if is_newest and not found else remedy,
        found.get("by", ""),
        found.get("outcome", ""),
        stepped=any(one.kind == following.KIND and one.outcome == following.CONTINUED for one in entries),
        no_step="; ".join(missing[-1].reasons) if missing else "",
    )
    return told or remedy


def summary(entry: Entry) -> dict[str, Any]:
    """What the flow `improve` answers, from the entry that ended it."""
    details = entry.details
    tried = details.get("tried", [])
    of_version = [one["remedy"] for one in tried if entry.version and one["version"] == entry.version]
    return {
        "by": ", ".join(of_version or [one["remedy"] for one in tried]),
        "outcome": entry.outcome,
        "version": entry.version,
        "champion": details.get("champion"),
        "reasons": list(entry.reasons),
        "tried": tried,
        "seconds": entry.seconds,
    }


def _told(entry: Entry) -> dict[str, Any] | None:
    """An entry as what `lifecycle` answers of it; None for a look that has changed nothing and is told nowhere else."""
    outcome = {rollout.PROMOTED: Outcome.PROMOTE.value, rollout.WITHDRAWN: Outcome.REJECT.value}.get(
        entry.outcome or "", entry.outcome
    )
    if entry.kind == "improvement":
        return summary(entry)
    if entry.kind == SECOND_LOOK:
        return {"by": "second look", "outcome": outcome}
    if entry.kind == BAKE and outcome == ROLLBACK:
        return {"by": "bake time", "outcome": outcome}
    if entry.kind == rollout.KIND and outcome != entry.outcome:
        return {"by": rollout.KIND, "outcome": outcome}
    if entry.kind == following.KIND and outcome == following.STOPPED:
        return {"by": Remedy.FOLLOW.value, "outcome": ROLLBACK}
    if entry.kind == LOOK and entry.version is not None:
        return {"by": Remedy.FOLLOW.value, "outcome": outcome}
    return None
