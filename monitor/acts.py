"""What was done about a model before, and how long to wait after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from monitor.measurements import WindowRecord
from monitor.remedy import ANEW, Trial
from registry.decisions import Remedy
from registry.plurals import counted
from registry.policies import DriftPolicy, PerformancePolicy
from registry.schema import Frozen

ActKind: TypeAlias = Literal["promotion", "remedy"]

MOST_PAUSE = 16
"""Windows beyond which no number of futile improvements makes the next one wait."""


class Act(Frozen):
    """Something done about the model at a moment of event time: a version promoted (or rolled back to), or a remedy
    tried, whatever became of it. `remedy` is told where it is known, `promoted` where a gate has judged it, `cpu` its
    cost in seconds."""

    kind: ActKind
    at: datetime
    remedy: Remedy | None = None
    promoted: bool | None = None
    cpu: float = 0.0


def stale(spec: PerformancePolicy, history: Sequence[WindowRecord], acts: Sequence[Act]) -> tuple[str, ...]:
    """Why a challenger is due though nothing is degraded, if one is: what a new model would add is known for sure only
    when it is there, and the gate decides."""
    passed = windows_since(history, max((act.at for act in acts), default=datetime.min))
    if spec.refresh is None or passed < spec.refresh:
        return ()
    since = f"{counted(passed, 'window')} since the last promotion or remedy"
    return (f"{since}, a challenger is tried every {spec.refresh}",)


def waiting(
    spec: PerformancePolicy | DriftPolicy, history: Sequence[WindowRecord], acts: Sequence[Act]
) -> tuple[str, ...]:
    """Why a trigger has to wait, if it has to."""
    kinds: tuple[tuple[ActKind, int, str], ...] = (
        ("promotion", spec.warmup, "warm-up"),
        ("remedy", patience(spec.cooldown, futile(acts)), "cooldown"),
    )
    out = []
    for kind, pause, name in kinds:
        at = max((act.at for act in acts if act.kind == kind), default=None)
        if at is not None and (passed := windows_since(history, at)) <= pause:
            since = f"this is window {passed} since" if passed else "no window has begun since"
            out.append(f"{name}: {since} the last {kind}, nothing is triggered in the first {pause}")
    return tuple(out)


def futile(acts: Sequence[Act]) -> int:
    """How many improvements have come to nothing, one after another, since something was promoted."""
    last = max((act.at for act in acts if act.kind == "promotion"), default=datetime.min)
    judged = [act for act in acts if act.promoted is not None and act.at > last]
    return len({act.at for act in judged} - {act.at for act in judged if act.promoted})


def patience(cooldown: int, futile: int) -> int:
    """Windows to wait after so many futile improvements: twice as many after each but the first, up to `MOST_PAUSE`.

    >>> [patience(2, count) for count in range(6)]
    [2, 2, 4, 8, 16, 16]
    """
    return max(cooldown, min(MOST_PAUSE, cooldown << max(0, min(futile, 10) - 1)))


def judged(acts: Sequence[Act]) -> list[Trial]:
    """The remedies that a gate has judged, in time order."""
    known = [
        Trial(one.remedy, one.at, one.promoted, one.cpu) for one in acts if one.remedy and one.promoted is not None
    ]
    return sorted(known, key=lambda one: one.at)


def unsearched(history: Sequence[WindowRecord], acts: Sequence[Act], since: datetime) -> int:
    """How many windows of the history have begun since a moment, or since a search was tried last if that is later,
    whatever became of it."""
    tried = [act.at for act in acts if act.kind == "remedy" and act.remedy in ANEW]
    return windows_since(history, max([since, *tried]))


def lasting(history: Sequence[WindowRecord], acts: Sequence[Act]) -> float:
    """For how many windows a promoted model has served, on average."""
    promoted = {act.at for act in acts if act.kind == "promotion" and windows_since(history, act.at) < len(history)}
    return max(1.0, len(history) / max(1, len(promoted)))


def promoted_last(acts: Sequence[Act]) -> Remedy | None:
    """The remedy that was promoted last: of a recalibration the same again adds little, as it is as old as before."""
    promotions = [act for act in acts if act.kind == "promotion"]
    return max(promotions, key=lambda act: act.at).remedy if promotions else None


def windows_since(history: Sequence[WindowRecord], moment: datetime) -> int:
    """How many windows have begun since then."""
    return sum(record.window.start >= moment for record in history)
