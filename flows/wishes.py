"""What the ledger says is to be done about a task, for whoever comes next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flows.approval import pending
from flows.intents import Intents
from flows.rollout import canary_out
from flows.workplace import Workplace
from registry.decisions import TRAINS, Remedy
from registry.errors import BusyError
from registry.locks import exclusive
from registry.policies import PerformancePolicy
from registry.task import TaskSpec

FIRST = 4
"""Windows before the first look at whether following pays: one learns, one answers, one waits for its labels."""


@dataclass(frozen=True)
class Wish:
    """An improvement that should be made: as of when, why, and by which remedies, with commas between them."""

    as_of: datetime
    reason: str
    remedies: str = Remedy.RESEARCH.value


def wished(place: Workplace) -> Wish | None:
    """What the ledger says is to be done: an improvement that was broken off and that nobody is at work on, or the
    newest decision, if it asks for a new model and nothing has followed, whoever was killed in between. Nothing where
    nothing is to be done (`mode: observe`), or a challenger waits for a person or answers its share: another one would
    take its place."""
    if place.task.mode == "observe" or pending(place) is not None or canary_out(place) is not None:
        return None
    if (begun := Intents(place.ledger, place.task.name).open("improve")) is not None:
        return Wish(begun.at, "an improvement was broken off") if _idle(place) else None
    decided = place.ledger.read(kinds={"decision"}, last=1)
    if not decided or decided[-1].outcome not in TRAINS:
        return None
    entry = decided[-1]
    since = place.ledger.read(kinds={"intent", "promotion", "rollback"}, since=entry.id or 0)
    if any(one.kind != "intent" or one.outcome == "improve" for one in since):
        return None
    remedies = (entry.outcome, *entry.details.get("then", ()))
    return Wish(entry.at, "; ".join(entry.reasons), ",".join(remedies))


def looked_for(task: TaskSpec) -> bool:
    """Whether it is looked at, without being asked for, whether following pays."""
    acts = task.time is not None and task.mode != "observe"
    return acts and isinstance(task.policy, PerformancePolicy) and Remedy.FOLLOW in task.policy.ladder


def _idle(place: Workplace) -> bool:
    try:
        with exclusive(place.lock, "looking for a broken-off improvement"):
            return True
    except BusyError:
        return False
