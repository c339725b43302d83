"""Policies: measurements and what was done before in, a `Decision` with its reasons out. Nothing here acts.

The default policy triggers on performance alone. Its arithmetic is in `comparison.py` and `evidence.py`, what it says
about the data in `findings.py`, what it makes of all this in `diagnosis.py`. How its errors are counted: the user
states a budget, one false alarm in n windows (`1 per 90d` is turned into windows by their length). It is shared out,

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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from monitor.acts import Act, judged, lasting, promoted_last, stale, unsearched, waiting, windows_since
from monitor.comparison import (
    BY_NAME,
    EXPECTED,
    TEST,
    Comparison,
    Level,
    Trail,
    compare,
    pool,
    realised,
    reference_level,
    trail_scores,
    trails,
    worst_segments,
)
from monitor.diagnosis import Degradation, diagnose
from monitor.evidence import alarming, detect, onset
from monitor.findings import Finding, broken, faults, known, lag, settled, shifts, unwatched
from monitor.measurements import WindowRecord
from monitor.remedy import LEARNT, Upkeep, brings, climb
from monitor.told import names, sentence, share_of_alarm, telling, worse
from registry.decisions import Decision, Diagnosis, Remedy, Severity
from registry.metrics import Array
from registry.plurals import counted
from registry.policies import DriftPolicy, NeverPolicy, PerformancePolicy, PeriodicPolicy, PolicySpec
from registry.task import Monitor

DEGRADED, SHIFTED, LAGGING, FAULTY = 0.5, 0.2, 0.2, 0.1
"""Shares of the budget."""

EXPLAINING = 0.05
"""Error probability of the segments that are named once the model is degraded."""

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
    found = _Performance(spec, sound, windows / DEGRADED, min_labels)
    severity: Severity = "faulty" if bad else "degraded" if found.degraded else "shifted" if moved else "ok"
    empty = () if newest.window.rows else (f"no rows in {names([newest])}",)
    late = () if found.covers(newest) else (_not_judged(newest, champion, min_labels),)
    where = worst_segments(newest, spec.tolerate, min_labels, EXPLAINING) if found.degraded else ()
    told = diagnose(severity, found.degradation, bad, moved, where)
    kind = (told.sentence,) if told is not None else ()
    rest = (*kind, *_few(bad), *empty)
    lead = (*found.reasons, *rest) if severity == "shifted" and found.worse else (*rest, *found.reasons)
    judged = (*late, *where[:MOST_NAMED], *_few(moved))
    return Assessment(severity, (*lead, *judged, *known(usual), *unwatched(newest)), told, found.labelled, *found.loss)


def faulty_level(spec: PolicySpec, history: Sequence[WindowRecord]) -> float:
    """The error probability that broken data are looked for with: of a policy without a budget, the usual one's."""
    budgeted = spec if isinstance(spec, (PerformancePolicy, DriftPolicy)) else PerformancePolicy()
    return FAULTY / budgeted.false_alarms.windows_each(_every(history)) / 2


class _Performance:
    """What the sound windows of the champion say together: by the trail with the most evidence, since its onset if the
    model is degraded, else in the newest window that the trail says anything of."""

    def __init__(
        self, spec: PerformancePolicy, records: Sequence[WindowRecord], windows: float, min_labels: int
    ) -> None:
        self._records, self._windows, self._min_labels = records, windows, min_labels
        self._found = found = trails(records, spec.tolerate, min_labels)
        scores = [trail_scores(trail) for trail in found]
        evidence = detect(np.array(scores).T, cap=windows * len(found))[-1] if found else np.empty(0)
        evidence = evidence * [_fallen(records, *both, spec.tolerate) for both in zip(found, scores, strict=True)]
        self.degraded = bool(alarming(evidence, windows).any())
        self._strength = float(evidence.mean()) / windows if found else 0.0
        self._trail: Trail = found[int(np.argmax(evidence))] if found else ()
        self._judged = [place for place, one in enumerate(self._trail) if one is not None]
        self._since = self._judged[onset(self._judged_scores).at :] if self.degraded else self._judged[-1:]

    def covers(self, newest: WindowRecord) -> bool:
        """Whether a window's labels are judged."""
        return any(one is newest for one in self._records) and realised(newest, self._min_labels) is not None

    @property
    def labelled(self) -> bool:
        """Whether any window since the onset has its labels."""
        return any(one.realised.labelled for one in self._comparisons)

    @property
    def loss(self) -> tuple[float, float, datetime]:
        """What the metric has lost since the onset, the same as a share of the reference's size, and the onset."""
        if not self.degraded:
            return 0.0, 0.0, datetime.max
        level, begun = self._level, self._records[self._since[0]].window.start
        return level.loss, level.loss / max(abs(level.reference.value), 1e-9), begun

    @property
    def degradation(self) -> Degradation | None:
        """The windows since when it is worse, for the diagnosis."""
        if not self.degraded:
            return None
        found = onset(self._judged_scores)
        since, first, last = (self._judged[place] for place in (found.at, found.first, found.last))
        scores = tuple(np.nan if one is None else one.score for one in self._trail)
        return Degradation(tuple(self._records), since, first, last, scores, self._level)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What there is to say, in figures."""
        if not self._since:
            return ()
        since = [self._records[place] for place in self._since]
        one, most = (self._level, None) if self.degraded else self._newest
        said = sentence(since, one, degraded=self.degraded, most=most)
        of = f"at one false alarm in {self._windows:,.0f} windows"
        return (
            f"{said}; evidence of harm, all windows together: {share_of_alarm(self._strength)} an alarm takes, {of}",
        )

    @property
    def worse(self) -> bool:
        """Whether the newest window that is judged is worse than is tolerated, and that is not sure."""
        return bool(self._since) and not self.degraded and any(one is not None and worse(one) for one in self._newest)

    @property
    def _newest(self) -> tuple[Comparison, Comparison | None]:
        """The newest window that is judged beside the test rows, where that can be, and beside the reference that
        most evidence is against, where that is another one and says that it is worse."""
        (most,) = self._comparisons
        test = next((one for trail in self._found if (one := trail[self._since[0]]) and one.against == TEST), most)
        return test, most if test is not most and telling(most) else None

    @property
    def _judged_scores(self) -> list[float]:
        return [one.score for one in self._trail if one is not None]

    @property
    def _comparisons(self) -> list[Comparison]:
        return [one for place in self._since if (one := self._trail[place]) is not None]

    @property
    def _level(self) -> Comparison:
        """Those comparisons as one. A reference that learns from the windows is taken as it was at the onset."""
        since = self._comparisons
        now, first = pool([one.realised for one in since]), since[0]
        against = pool([_weighted(one) for one in since]) if first.lasting else first.reference
        loss = BY_NAME[self._records[-1].metric].gain(against.value, now.value)
        return replace(first, realised=now, reference=against, loss=loss)


def _fallen(records: Sequence[WindowRecord], trail: Trail, scores: Array, tolerate: float) -> bool:
    """Whether performance, since the onset in a trail of these scores (T,), is below that on the test rows by more than
    is tolerated, errors apart. Only less than was expected of these very rows does not say so: they may be easier."""
    newest = next(one for one in reversed(trail) if one is not None)
    if newest.against != EXPECTED:
        return True
    judged = [(record, one) for record, one in zip(records, trail, strict=True) if one is not None]
    since = judged[onset(scores[[one is not None for one in trail]]).at :]
    test = reference_level(since[0][0])
    now = pool([one.realised for _, one in since])
    return test is None or compare(records[-1].metric, now, test, "", tolerate).deviation > 0


def _weighted(one: Comparison) -> Level:
    return Level(one.reference.value, one.reference.error, one.realised.rows)


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
