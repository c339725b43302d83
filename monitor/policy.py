"""Policies: measurements and what was done before in, a `Decision` with its reasons out. Nothing here acts.

The default policy triggers on performance alone. Its arithmetic is in `comparison.py`, what it says about the data in
`findings.py`. How its errors are counted:

    a window is worse     when its comparison rejects with probability `alpha`
    the model is degraded when the newest `consecutive` judged windows are each worse, and all of them together are so
                          with probability alpha / LOOKS; or twice or four times as many are so together, the newest
                          among them (each with its share of that probability); or when the newest is
                          beyond `overwhelming` standard errors

Each look is paid alike (Bonferroni over any LOOKS windows in a row): as far as the standard errors are true (see
`comparison.py`), a champion that is not worse by more than `tolerate` is called degraded in at most alpha / LOOKS of
the windows, one in 400 by default, and with probability `alpha` at most in any LOOKS of them. (An `overwhelming` below
3 adds its own.)
A spending sequence such as 6 alpha / (pi^2 k^2) would hold alpha for ever, but its hundredth look would ask for
p < 3e-6; one that is paid by the window, as control charts are, is as keen in the second year as in the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from monitor.comparison import Comparison, worst, worst_segments
from monitor.findings import faults, shifts
from monitor.measurements import WindowRecord
from registry.decisions import Decision, Remedy, Severity
from registry.schema import Frozen
from registry.task import NeverPolicy, PerformancePolicy, PeriodicPolicy, PolicySpec

LOOKS = 20
"""Windows over which `alpha` is spent."""

SPANS = {1: 0.5, 2: 0.25, 4: 0.25}
"""Runs of windows judged together at each look, in multiples of `consecutive`, and the share of alpha each is paid."""

MOST_NAMED = 5

ActKind: TypeAlias = Literal["promotion", "remedy"]


class Act(Frozen):
    """Something done about the model at a moment of event time: a version promoted (or rolled back to), or a remedy
    tried, whatever became of it."""

    kind: ActKind
    at: datetime


@dataclass(frozen=True)
class Assessment:
    """How things stand, before anybody asks what to do."""

    severity: Severity
    reasons: tuple[str, ...]


def decide(
    spec: PolicySpec,
    history: Sequence[WindowRecord],
    acts: Sequence[Act] = (),
    *,
    version: str | None = None,
    min_labels: int = 100,
) -> Decision:
    """What to do now.

    `history` is in time order, one record a window, its last record the newest window; `acts` in any order. `version`
    is the champion (by default the newest record's): only its windows tell of its performance. `min_labels` is the
    number of labels at which a window's performance is judged.
    """
    champion = version or (history[-1].version if history else "")
    match spec:
        case PerformancePolicy():
            return _on_performance(spec, assess(spec, history, champion, min_labels), history, acts)
        case PeriodicPolicy():
            return _every_so_often(spec, assess(PerformancePolicy(), history, champion, min_labels), history, acts)
        case NeverPolicy():
            seen = assess(PerformancePolicy(), history, champion, min_labels)
            return Decision(remedy=Remedy.NONE, severity=seen.severity, reasons=seen.reasons)


def assess(
    spec: PerformancePolicy, history: Sequence[WindowRecord], champion: str, min_labels: int = 100
) -> Assessment:
    """Severity and reasons, most severe first."""
    if not history:
        return Assessment("ok", ("no window is complete yet",))
    newest, level = history[-1], spec.alpha / LOOKS
    broken = [found.sentence for found in faults(newest, level)]
    moved = [found.sentence for found in shifts(newest, level)]
    judged = _judged([record for record in history if record.version == champion], min_labels, level)
    degraded, performance = _performance(spec, judged, newest, champion, min_labels)
    severity: Severity = "faulty" if broken else "degraded" if degraded else "shifted" if moved else "ok"
    empty = () if newest.window.rows else (f"no rows in {_names([newest])}",)
    where = worst_segments(newest, spec.tolerate, min_labels, level) if degraded else ()
    return Assessment(severity, (*_few(broken), *empty, *performance, *_few(where), *_few(moved)))


def _on_performance(
    spec: PerformancePolicy, seen: Assessment, history: Sequence[WindowRecord], acts: Sequence[Act]
) -> Decision:
    waiting, stale = _waiting(spec, history, acts), _stale(spec, history, acts)
    if seen.severity == "faulty":
        return Decision(remedy=Remedy.ALERT, severity=seen.severity, reasons=seen.reasons)
    if seen.severity == "degraded":
        remedy = Remedy.NONE if waiting else Remedy.RESEARCH
        return Decision(remedy=remedy, severity=seen.severity, reasons=(*seen.reasons, *waiting))
    remedy = Remedy.RESEARCH if stale else Remedy.NONE
    return Decision(remedy=remedy, severity=seen.severity, reasons=(*stale, *seen.reasons))


def _stale(spec: PerformancePolicy, history: Sequence[WindowRecord], acts: Sequence[Act]) -> tuple[str, ...]:
    """Why a challenger is due though nothing is degraded, if one is: what a new model would add is known for sure only
    when it is there, and the gate decides."""
    passed = _since(history, max((act.at for act in acts), default=datetime.min))
    if spec.refresh is None or passed < spec.refresh:
        return ()
    return (f"{passed} windows since the last promotion or remedy, a challenger is tried every {spec.refresh}",)


def _every_so_often(
    spec: PeriodicPolicy, seen: Assessment, history: Sequence[WindowRecord], acts: Sequence[Act]
) -> Decision:
    passed = _since(history, max((act.at for act in acts), default=datetime.min))
    remedy = Remedy.RESEARCH if passed >= spec.every else Remedy.NONE
    if remedy is Remedy.RESEARCH and seen.severity == "faulty":
        remedy = Remedy.ALERT
    said = f"{passed} windows since the last promotion or remedy, one is due every {spec.every}"
    return Decision(remedy=remedy, severity=seen.severity, reasons=(said, *seen.reasons))


def _judged(records: Sequence[WindowRecord], min_labels: int, level: float) -> list[WindowRecord]:
    """The windows with enough labels and sound data: broken data say nothing about a model."""
    enough = [record for record in records if (found := record.performance) is not None and found.rows >= min_labels]
    return [record for record in enough if not faults(record, level)]


def _performance(
    spec: PerformancePolicy, judged: Sequence[WindowRecord], newest: WindowRecord, champion: str, min_labels: int
) -> tuple[bool, tuple[str, ...]]:
    """Whether performance is degraded, and what there is to say about it."""
    late = () if judged and judged[-1] is newest else (_not_judged(newest, champion, min_labels),)
    if not judged:
        return False, late
    one = worst(judged, 1, spec.tolerate)
    level = spec.alpha / LOOKS
    if one.deviation > spec.overwhelming and one.p_value <= level:
        return True, (f"{_sentence(judged[-1:], one)}: overwhelming", *late)
    run = _run(spec, judged)
    spans = _spans(spec, judged, one.loss > one.tolerated, run)
    if not spans:
        patience = f": {run} of the {spec.consecutive} windows in a row that it takes" if run else ""
        return False, (_sentence(judged[-1:], one) + patience, *late)
    found = [(span, worst(judged, span, spec.tolerate), share * level) for span, share in spans.items()]
    span, together, needed = min(found, key=lambda each: each[1].p_value / each[2])
    said = f"{_sentence(judged[-span:], together)}, p = {together.p_value:.1g}, needed {needed:.3g}"
    return together.p_value <= needed, (said, *late)


def _spans(spec: PerformancePolicy, judged: Sequence[WindowRecord], worse: bool, run: int) -> dict[int, float]:
    """How many of the newest windows are judged together, with their shares of the error probability.

    `consecutive` of them when each is worse; twice and four times as many when the newest is worse than tolerated: what
    is too small to show in one window shows in many.
    """
    spans = {spec.consecutive * times: share for times, share in SPANS.items()}
    ready = {span: run >= span if span == spec.consecutive else worse and span <= len(judged) for span in spans}
    return {span: share for span, share in spans.items() if ready[span]}


def _run(spec: PerformancePolicy, judged: Sequence[WindowRecord]) -> int:
    """How many of the newest windows are each worse, in a row; `consecutive` at most."""
    for run in range(min(spec.consecutive, len(judged))):
        until = len(judged) - run
        if worst(judged[:until], 1, spec.tolerate).p_value > spec.alpha:
            return run
    return min(spec.consecutive, len(judged))


def _waiting(spec: PerformancePolicy, history: Sequence[WindowRecord], acts: Sequence[Act]) -> tuple[str, ...]:
    """Why a trigger has to wait, if it has to."""
    kinds: tuple[tuple[ActKind, int, str], ...] = (
        ("promotion", spec.warmup, "warm-up"),
        ("remedy", spec.cooldown, "cooldown"),
    )
    out = []
    for kind, pause, name in kinds:
        at = max((act.at for act in acts if act.kind == kind), default=None)
        if at is not None and (passed := _since(history, at)) <= pause:
            out.append(f"{name}: {passed} windows since the last {kind}, nothing is triggered in the first {pause}")
    return tuple(out)


def _since(history: Sequence[WindowRecord], moment: datetime) -> int:
    return sum(record.window.start >= moment for record in history)


def _not_judged(record: WindowRecord, champion: str, min_labels: int) -> str:
    labels = record.performance.rows if record.performance and record.version == champion else 0
    if labels >= min_labels:
        return f"{_names([record])} is not judged: its data are broken"
    return f"{_names([record])} is not judged yet: {labels:,} labels for version {champion}, {min_labels:,} needed"


def _sentence(records: Sequence[WindowRecord], one: Comparison) -> str:
    real, reference = one.realised, one.reference
    change = (
        f"worse by {one.loss:.3g}, tolerated {one.tolerated:.2g}" if one.loss > 0 else f"no worse ({-one.loss:+.3g})"
    )
    return (
        f"{records[-1].metric} {real.value:.3f} +/- {real.error:.3f} on {real.rows:,} labels in {_names(records)}, "
        f"reference {reference.value:.3f} +/- {reference.error:.3f} ({one.against}): {change}"
    )


def _names(records: Sequence[WindowRecord]) -> str:
    numbers = [str(record.window.index) for record in records]
    return f"window {numbers[0]}" if len(numbers) == 1 else f"windows {', '.join(numbers[:-1])} and {numbers[-1]}"


def _few(sentences: Sequence[str]) -> tuple[str, ...]:
    more = len(sentences) - MOST_NAMED
    return (*sentences[:MOST_NAMED], *((f"and {more} more",) if more > 0 else ()))
