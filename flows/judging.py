"""How a replay judges its windows: by the flows.

One that is killed while it judges finds, when it goes on, that the flows have done all or a part of what was to be
done. They go on from the ledger, and say nothing of what was finished before: that is read there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flows import bake, following, proving, rollout, second_look
from flows.improve import summary
from flows.replay import Judge
from flows.workplace import Workplace, enter
from registry.decisions import ROLLBACK, Outcome, Remedy
from registry.ledger import Entry

_DONE = ("improvement", second_look.KIND, bake.KIND, rollout.KIND, proving.KIND, following.KIND)
_RECENT = 100
"""Entries among which those of a window just judged are looked for."""


def flow_judge(task: str, *, repair: bool = True) -> Judge:
    """Judges by the flows: `lifecycle`, or `watch` where nothing is to be repaired or no rows follow a repair; it says
    then why what it decides is `not_run`."""
    from flows.lifecycle import lifecycle
    from flows.stages import perform
    from flows.watch import watch

    def judge(as_of: datetime, until: datetime | None) -> Mapping[str, Any]:
        if repair and until is None:
            found = perform(lifecycle, task, as_of=as_of)
            return found if found["improvement"] else {**found, **before(enter(task), as_of)}
        found = perform(watch, task, as_of=as_of, repair=False, until=until)
        return {**found, "not_run": "the replay ended" if repair else "only watched"}

    return judge


def before(place: Workplace, as_of: datetime) -> dict[str, Any]:
    """What was decided at this moment and what was done about it, where something was: of a judgement that was cut off,
    as `lifecycle` answers."""
    told = (_told(entry) for entry in reversed(_of(place, as_of, _DONE)))
    done = next((one for one in told if one is not None), None)
    decided = _of(place, as_of, ("decision",))
    if done is None or not decided:
        return {}
    return {"severity": decided[0].severity, "remedy": decided[0].outcome, "improvement": done}


def _of(place: Workplace, as_of: datetime, kinds: tuple[str, ...]) -> list[Entry]:
    return [one for one in place.ledger.read(kinds=kinds, last=_RECENT) if one.at == as_of]


def _told(entry: Entry) -> dict[str, Any] | None:
    """An entry as what `lifecycle` answers of it; None for a look that has changed nothing and is told nowhere else."""
    outcome = {rollout.PROMOTED: Outcome.PROMOTE.value, rollout.WITHDRAWN: Outcome.REJECT.value}.get(
        entry.outcome or "", entry.outcome
    )
    if entry.kind == "improvement":
        return summary(entry)
    if entry.kind == second_look.KIND:
        return {"by": "second look", "outcome": outcome}
    if entry.kind == bake.KIND and outcome == ROLLBACK:
        return {"by": "bake time", "outcome": outcome}
    if entry.kind == rollout.KIND and outcome != entry.outcome:
        return {"by": rollout.KIND, "outcome": outcome}
    if entry.kind == following.KIND and outcome == following.STOPPED:
        return {"by": Remedy.FOLLOW.value, "outcome": ROLLBACK}
    if entry.kind == proving.KIND and entry.version is not None:
        return {"by": Remedy.FOLLOW.value, "outcome": outcome}
    return None
