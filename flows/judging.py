"""How a replay judges its windows: by the flows.

One that is killed while it judges finds, when it goes on, that the flows have done all or a part of what was to be
done. They go on from the ledger, and say nothing of what was finished before: that is read there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flows.deeds import done, recent
from flows.replay import Judge
from flows.workplace import Workplace, enter


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
    found, decided = done(recent(place), as_of), [one for one in recent(place, ("decision",)) if one.at == as_of]
    if found is None or not decided:
        return {}
    return {"severity": decided[0].severity, "remedy": decided[0].outcome, "improvement": found}
