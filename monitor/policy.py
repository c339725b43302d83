"""Policies: measurements and what was done before in, a `Decision` with its reasons out. Nothing here acts.

The default policy triggers on performance alone (`harm.py`). Its arithmetic is in `comparison.py` and `evidence.py`,
what it says about the data in `findings.py`, what it makes of all this in `diagnosis.py`. How its errors are counted:
the user states a budget, one false alarm in n windows (`1 per 90d` is turned into windows by their length). It is
shared out,

    a half   degraded: an e-detector over all trails of comparisons reaches 2 n
    a fifth  shifted: one over all columns and outputs reaches 5 n
    a fifth  shifted: one of the gaps between expected and realised performance does, however little is tolerated
    a tenth  faulty: a window's p-values hold together with 1 / (20 n) (Holm), and so does its number of rows

so that a champion that is not worse by more than `tolerate`, on inputs that have not moved, meets one alarm of any kind
in n windows on average, at most: for ever, however often it is looked at, as far as the windows' errors are true (see
`comparison.py`). A window whose labels arrive in parts is judged anew each time, on what is there, and the further
looks at it are not paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from monitor.acts import Act, judged, lasting, promoted_last, stale, unsearched, waiting, windows_since
from monitor.comparison import worst_segments
from monitor.diagnosis import diagnose
from monitor.findings import Finding, broken, faults, known, lag, settled, shifts, unwatched
from monitor.harm import Harm
from monitor.located import located
from monitor.measurements import WindowRecord
from monitor.remedy import LEARNT, Upkeep, brings, climb
from monitor.told import names
from registry.decisions import Decision, Diagnosis, Remedy, Severity
from registry.plurals import counted
from registry.policies import DriftPolicy, NeverPolicy, PerformancePolicy, PeriodicPolicy, PolicySpec
from registry.task import Monitor

DEGRADED, SHIFTED, LAGGING, FAULTY = 0.5, 0.2, 0.2, 0.1
"""Shares of the budget."""

EXPLAINING = 0.05
"""Error probability of the segments that are named once the model is degraded, as the worst; and of those that are once
something has moved, as where it did."""

MOST_NAMED = 5

ORDER = "auc"
"""A metric of the order of rows alone, which recalibration leaves alone: only a former champion could help."""

MIN_LABELS = Monitor().min_labels


@dataclass(frozen=True)
class Assessment:
    """How things stand, before anybody asks what to do. `labelled`: labels say so, not an estimate alone. `loss`: what
    the metric has lost `since` a moment; `share`: the same as a share of the reference's size."""

    severity: Severity
    reasons: tuple[str, ...]
    diagnosis: Diagnosis | None = None
    labelled: bool = True
    loss: float = 0.0
    share: float = 0.0
    since: datetime = datetime.max


def decide(
    spec: PolicySpec,
    history: Sequence[WindowRecord],
    acts: Sequence[Act] = (),
    *,
    version: str | None = None,
    min_labels: int = MIN_LABELS,
    follows: Upkeep | None = None,
) -> Decision:
    """What to do now.

    `history` is in time order, one record a window, its last record the newest window; `acts` in any order. `version`
    is the champion (by default the newest record's): only its windows tell of its performance. `min_labels` is the
    number of labels at which a window's performance is judged. `follows`: it learns each window's labels, at this cost.
    """
    champion = version or (history[-1].version if history else "")
    match spec:
        case PerformancePolicy():
            return _on_performance(spec, assess(spec, history, champion, min_labels), history, acts, follows)
        case PeriodicPolicy():
            return _every_so_often(spec, assess(PerformancePolicy(), history, champion, min_labels), history, acts)
        case DriftPolicy():
            budget = PerformancePolicy(false_alarms=spec.false_alarms)
            return _on_drift(spec, assess(budget, history, champion, min_labels), history, acts)
        case NeverPolicy():
            return _told(Remedy.NONE, assess(PerformancePolicy(), history, champion, min_labels))


def assess(
    spec: PerformancePolicy, history: Sequence[WindowRecord], champion: str, min_labels: int = MIN_LABELS
) -> Assessment:
    """Severity and reasons, most severe first."""
    if not history:
        return Assessment("ok", ("no window is complete yet",))
    newest, windows, level = history[-1], spec.false_alarms.windows_each(_every(history)), faulty_level(spec, history)
    usual = settled(history, level)
    bad = broken(history, level, usual)
    wrong = {found.measurement for found in bad}
    sound = [one for one in history if one.version == champion and not faults(one, level, usual)]
    lagging = lag(sound, windows / LAGGING, min_labels)
    moved = [one for one in (lagging, *shifts(history, windows / SHIFTED)) if one and one.measurement not in wrong]
    found = Harm(sound, tolerate=spec.tolerate, windows=windows / DEGRADED, min_labels=min_labels)
    severity: Severity = "faulty" if bad else "degraded" if found.degraded else "shifted" if moved else "ok"
    empty = () if newest.window.rows else (f"no rows in {names([newest])}",)
    late = () if found.covers(newest) else (_not_judged(newest, champion, min_labels),)
    where = worst_segments(newest, spec.tolerate, min_labels, EXPLAINING) if found.degraded else ()
    parts = located(newest, EXPLAINING) if severity in ("degraded", "shifted") else ()
    told = diagnose(severity, found.degradation, bad, moved, where, parts, newest.metric)
    kind = (told.sentence,) if told is not None else ()
    rest = (*kind, *_few(bad), *empty)
    lead = (*found.reasons, *rest) if severity == "shifted" and found.worse else (*rest, *found.reasons)
    judged = (*late, *(one.sentence for one in where[:MOST_NAMED]), *_few(moved), *_few(parts))
    return Assessment(severity, (*lead, *judged, *known(usual), *unwatched(newest)), told, found.labelled, *found.loss)


def faulty_level(spec: PolicySpec, history: Sequence[WindowRecord]) -> float:
    """The error probability that broken data are looked for with: of a policy without a budget, the usual one's."""
    budgeted = spec if isinstance(spec, (PerformancePolicy, DriftPolicy)) else PerformancePolicy()
    return FAULTY / budgeted.false_alarms.windows_each(_every(history)) / 2


def _every(history: Sequence[WindowRecord]) -> timedelta:
    """How long a window takes."""
    return sum((one.window.end - one.window.start for one in history), timedelta()) / len(history)


def _told(
    remedy: Remedy,
    seen: Assessment,
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    then: Sequence[Remedy] = (),
) -> Decision:
    reasons = (*before, *seen.reasons, *after)
    return Decision(remedy=remedy, severity=seen.severity, reasons=reasons, diagnosis=seen.diagnosis, then=tuple(then))


def _mend(
    spec: PerformancePolicy,
    seen: Assessment,
    history: Sequence[WindowRecord],
    acts: Sequence[Act],
    follows: Upkeep | None,
    before: Sequence[str] = (),
) -> Decision:
    """Climb the ladder: to its end where the model is degraded. Where it is not, or has to wait after others came to
    nothing, no more is paid for a try than the price of the first rung that trains. `before` is why one is due."""
    trials = judged(acts)
    ladder = [Remedy(rung) for rung in spec.ladder]
    former = sum(act.kind == "promotion" for act in acts) > 1
    futile = bool(history) and history[-1].metric == ORDER and not former
    needless = {Remedy.RECALIBRATE} if futile or promoted_last(acts) is Remedy.RECALIBRATE else set()
    needless |= LEARNT if follows is not None else set()
    ladder = [rung for rung in ladder if rung not in needless] or ladder[-1:]
    way = climb(ladder, trials, seen.diagnosis)
    rungs, why = way.rungs, (way.why,) if len(ladder) > 1 else ()
    if seen.severity != "degraded" or before:
        trains = [place for place, rung in enumerate(rungs) if rung is not Remedy.RECALIBRATE]
        rungs = rungs[: trains[0] + 1] if trains else rungs
    else:
        waited = unsearched(history, acts, seen.since)
        worth = brings((seen.loss, seen.share), spec.worth, trials, lasting(history, acts), follows, waited)
        said = f"an improvement is expected to bring what {worth:.0f} CPU-s are worth, and to cost {way.cost:.0f}"
        if worth < way.cost:
            return _told(Remedy.NONE, seen, before=before, after=(*why, f"{said}: not tried"))
        why = (*why, said) if np.isfinite(worth) else why
    return _told(rungs[0], seen, before=before, after=why, then=rungs[1:])


def _on_performance(
    spec: PerformancePolicy,
    seen: Assessment,
    history: Sequence[WindowRecord],
    acts: Sequence[Act],
    follows: Upkeep | None,
) -> Decision:
    if seen.severity == "faulty":
        return _told(Remedy.ALERT, seen)
    if seen.severity == "degraded" and not seen.labelled:
        return _told(Remedy.ALERT, seen, after=("an estimate says so: a new model has to wait for labels",))
    if seen.severity == "degraded":
        pause = waiting(spec, history, acts)
        found = _told(Remedy.NONE, seen, after=pause) if pause else _mend(spec, seen, history, acts, follows)
        if found.remedy is not Remedy.NONE:
            return found
    # one that follows has learnt the newest labels: it is mended where it is degraded, and else at no date
    due = () if follows is not None else stale(spec, history, acts)
    if seen.severity == "degraded" and not due:
        return found
    return _mend(spec, seen, history, acts, follows, due) if due else _told(Remedy.NONE, seen)


def _on_drift(spec: DriftPolicy, seen: Assessment, history: Sequence[WindowRecord], acts: Sequence[Act]) -> Decision:
    if seen.severity == "faulty":
        return _told(Remedy.ALERT, seen)
    if seen.severity == "ok":
        return _told(Remedy.NONE, seen)
    pause = waiting(spec, history, acts)
    return _told(Remedy.NONE if pause else Remedy.RESEARCH, seen, after=pause)


def _every_so_often(
    spec: PeriodicPolicy, seen: Assessment, history: Sequence[WindowRecord], acts: Sequence[Act]
) -> Decision:
    passed = windows_since(history, max((act.at for act in acts), default=datetime.min))
    remedy = Remedy(spec.remedy) if passed >= spec.every else Remedy.NONE
    if remedy is not Remedy.NONE and seen.severity == "faulty":
        remedy = Remedy.ALERT
    said = f"{counted(passed, 'window')} since the last promotion or remedy, one is due every {spec.every}"
    return _told(remedy, seen, before=(said,))


def _not_judged(record: WindowRecord, champion: str, min_labels: int) -> str:
    labels = record.performance.rows if record.performance and record.version == champion else 0
    if labels >= min_labels:
        return f"{names([record])} is not judged: its data are broken"
    known = f"{counted(labels, 'label')} for version {champion}"
    return f"{names([record])} is not judged yet: {known}, {min_labels:,} needed"


def _few(found: Sequence[Finding]) -> tuple[str, ...]:
    more = len(found) - MOST_NAMED
    return (*(one.sentence for one in found[:MOST_NAMED]), *((f"and {more} more",) if more > 0 else ()))
