"""From what was found to what happened: the kind of change, its shape, its onset, who is responsible; one sentence.

    data fault       columns are broken: nothing is said about the model
    covariate shift  inputs moved, and the champion's own answers lead one to expect the loss
    prior shift      the classes' shares changed, and answers adjusted to them are calibrated again
    concept drift    performance is worse than the answers lead one to expect, adjusted or not
    unexplained      performance fell, by no more than is expected of such rows, on inputs that have not moved

(Moreno-Torres et al. 2012 for the terms.) The shape is gradual where the evidence goes on growing after the onset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monitor.comparison import BY_NAME, Comparison, Worse
from monitor.evidence import score_of, tail
from monitor.findings import Finding, pooled
from monitor.located import SHIFT, segment_of
from monitor.measurements import Measurement, WindowRecord
from monitor.significance import jensen_shannon
from registry.decisions import Cost, Diagnosis, Evidence, Kind, Severity, Shape

CERTAIN = 3.0
"""Standard errors from which a gap, over all windows since the onset, is taken to be there."""

STEADY = 2.0
"""Standard errors from which a slope after the onset is taken to be there."""

LEAST_STEPS = 4
"""Fewest windows that have a slope."""

ALIKE = 0.5
"""How much nearer than the windows between an earlier one must be to be called a recurrence."""

MOST = 3
FIGURES = 12
"""Most of them that go with a diagnosis."""


@dataclass(frozen=True)
class Degradation:
    """A fall in performance: the sound windows of the champion, in which of them (positions) it began, between which
    that lies, the scores of the trail that shows it best, and its comparison over all windows since the onset."""

    records: tuple[WindowRecord, ...]
    since: int
    first: int
    last: int
    scores: tuple[float, ...]
    comparison: Comparison

    @property
    def windows(self) -> tuple[WindowRecord, ...]:
        """The windows since the onset."""
        return self.records[self.since :]


def diagnose(
    severity: Severity,
    fall: Degradation | None,
    broken: Sequence[Finding],
    moved: Sequence[Finding],
    worst: Sequence[Worse] = (),
    parts: Sequence[Finding] = (),
    metric: str = "",
) -> Diagnosis | None:
    """The diagnosis; None while everything is in order. `worst` are the segments where performance is, `parts` what is
    otherwise in some of them, `metric` is the task's."""
    if severity == "ok":
        return None
    if severity == "faulty":
        columns = _columns(broken)
        named = ", ".join(columns) or "whole rows"
        return Diagnosis(
            kind="data fault",
            sentence=f"Data fault: {named}; nothing is said about the model until the data are mended",
            columns=columns,
            evidence=tuple(one.sentence for one in broken[:MOST]),
            figures=_figures(_found(broken, (), ())),
        )
    if fall is None:
        return _harmless(moved, parts, metric)
    kind, evidence = _kind(fall, moved)
    columns = _columns([one for one in moved if one.cost > 0] or moved)
    shape = _shape(fall)
    start, end = fall.records[fall.first].window.start, fall.records[fall.last].window.end
    at = fall.records[fall.since].window.start
    again = _recurs(fall)
    return Diagnosis(
        kind=kind,
        sentence=_sentence(kind, fall, shape, columns, worst, parts, again),
        shape=shape,
        onset=at,
        onset_from=start,
        onset_to=end,
        columns=columns,
        segments=_segments(worst, parts),
        recurs=None if again is None else again.window.start,
        evidence=evidence,
        cost=_lost(fall),
        figures=_figures([*_gaps(fall), *_found(moved, worst, parts)]),
    )


def _harmless(moved: Sequence[Finding], parts: Sequence[Finding], metric: str) -> Diagnosis:
    """Of a window in which something moved, and no fall of performance is sure: that may be for want of labels."""
    known: dict[str, Any] = {
        "segments": _segments((), parts),
        "figures": _figures(_found(moved, (), parts)),
    }
    if lagging := [one for one in moved if one.measurement.name == "gap"]:
        said, where = lagging[0].sentence, f"; answers moved{above[1:]}" if (above := _above_all(parts)) else ""
        return Diagnosis(
            kind="concept drift",
            sentence=f"Concept drift that has not surely cost more than is tolerated: {said}{where}",
            **known,
        )
    columns = _columns(moved)
    dearest = max(moved, key=lambda one: one.cost)
    cost = dearest.cost
    moving = (
        f"Inputs moved: {', '.join(columns)}" if columns else f"Moved: {moved[0].subject or moved[0].measurement.name}"
    )
    moving += _above_all(parts)
    price = "but a cost is estimated" if cost > 0 else "and no cost is estimated"
    return Diagnosis(
        kind=_KINDS.get(moved[0].measurement.name, "covariate shift"),
        sentence=f"{moving}; no fall of performance is sure, {price}",
        columns=columns,
        evidence=tuple(one.sentence for one in moved[:MOST]),
        cost=Cost(metric=metric, loss=cost, error=dearest.measurement.cost_error) if cost > 0 else None,
        **known,
    )


_KINDS: Mapping[str, Kind] = {
    "label_shift": "prior shift",
    "novel_labels": "prior shift",
    "coverage": "unexplained",
    "duplicates": "unexplained",
}
"""What it is when this moved most; all else are inputs, or what the model makes of them."""


def _columns(found: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.measurement.subject for one in found if one.measurement.subject))[:MOST]


def _segments(worst: Sequence[Worse], parts: Sequence[Finding]) -> tuple[str, ...]:
    """Where performance is worst, then where something moved or does not hold."""
    names = [one.subject for one in worst] + [one.subject for one in parts if one.subject]
    return tuple(dict.fromkeys(names))[:MOST]


def _above_all(parts: Sequence[Finding]) -> str:
    """Where a shift is that is not everywhere."""
    where = segment_of(parts, SHIFT)
    return f", above all in {where}" if where else ""


def _found(moved: Sequence[Finding], worst: Sequence[Worse], parts: Sequence[Finding]) -> list[Measurement]:
    """Of the columns and of the segments where performance is worst so many that all kinds are among the first."""
    found = [one.measurement for one in moved[: FIGURES // 2]]
    return [*found, *(one.measurement for one in worst[:MOST]), *(one.measurement for one in parts)]


def _figures(found: Sequence[Measurement]) -> tuple[Evidence, ...]:
    """Measurements as they are told, so many at most."""
    kept = ("subject", "value", "reference", "error", "p_value", "cost", "cost_error", "rows")
    return tuple(Evidence(measure=one.name, **{name: getattr(one, name) for name in kept}) for one in found[:FIGURES])


def _gaps(fall: Degradation) -> list[Measurement]:
    """Those behind the kind, over the windows since the onset."""
    found = {name: pooled(fall.windows, name) for name in _WORDS}
    return [Measurement(name=name, value=one[0], error=one[1]) for name, one in found.items() if one is not None]


def _lost(fall: Degradation) -> Cost:
    metric = fall.records[-1].metric
    one = possible(metric, fall.comparison)
    return Cost(
        metric=metric,
        loss=one.loss,
        error=one.realised.error,
        value=one.realised.value,
        reference=one.reference.value,
        tolerated=one.tolerated,
        labelled=one.realised.labelled,
    )


def _kind(fall: Degradation, moved: Sequence[Finding]) -> tuple[Kind, tuple[str, ...]]:
    gaps = {name: pooled(fall.windows, name) for name in ("gap", "prior_gap")}
    evidence = tuple(f"{_WORDS[name]} {one[0]:+.3g} +/- {one[1]:.2g}" for name, one in gaps.items() if one is not None)
    if not _sure(gaps["gap"]):
        return ("covariate shift" if moved else "unexplained"), evidence
    labels = any(one.measurement.name == "label_shift" for one in moved)
    prior = labels and gaps["prior_gap"] is not None and not _sure(gaps["prior_gap"])
    return ("prior shift" if prior else "concept drift"), evidence


_WORDS = {"gap": "worse than expected by", "prior_gap": "log loss, adjusted to the new shares, worse than expected by"}


def _sure(gap: tuple[float, float] | None) -> bool:
    return gap is not None and score_of(tail(gap[0] / gap[1])) >= CERTAIN


def _shape(fall: Degradation) -> Shape:
    """Whether the scores go on rising once it has begun: the slope of a straight line, against its standard error."""
    after = np.array([one for one in fall.scores[fall.since :] if not math.isnan(one)])
    n = len(after)
    if n < LEAST_STEPS:
        return "abrupt"
    steps = np.arange(n) - (n - 1) / 2
    slope = float(steps @ after / (steps @ steps))
    return "gradual" if slope > STEADY / math.sqrt(float(steps @ steps)) else "abrupt"


def _recurs(fall: Degradation) -> WindowRecord | None:
    """An earlier window whose inputs were like the newest's, with others between them that were not."""
    newest, before = fall.records[-1], fall.records[: fall.since]
    apart = [input_distance(newest, one) for one in before]
    like = (place for place in reversed(range(len(apart) - 1)) if apart[place] < ALIKE * min(apart[place + 1 :]))
    place = next(like, None)
    return None if place is None else before[place]


def input_distance(first: WindowRecord, second: WindowRecord) -> float:
    """Mean Jensen-Shannon distance over the columns that both windows have counts of; 1 without any."""
    pairs = [(one, other) for one in first.named("shift") for other in second.named("shift") if _same(one, other)]
    counts = [tuple(np.asarray(each.counts, dtype=np.float64) for each in pair) for pair in pairs]
    return float(np.mean([jensen_shannon(a, b) for a, b in counts])) if counts else 1.0


def possible(metric: str, one: Comparison) -> Comparison:
    """The same as it is told: a reference that the metric cannot have, such as an RMSE below 0 where what is taken off
    an estimate is more than the estimate, is cut to what it can be, and the loss with it."""
    value = float(np.clip(one.reference.value, *BY_NAME[metric].bounds))
    if value == one.reference.value:
        return one
    against, loss = f"{one.against}, cut to what {metric} can be", BY_NAME[metric].gain(value, one.realised.value)
    return replace(one, reference=replace(one.reference, value=value), against=against, loss=loss)


def _same(one: Measurement, other: Measurement) -> bool:
    return one.subject == other.subject and len(one.counts) == len(other.counts) > 0


def _sentence(
    kind: Kind,
    fall: Degradation,
    shape: Shape,
    columns: Sequence[str],
    worst: Sequence[Worse],
    moved: Sequence[Finding],
    again: WindowRecord | None,
) -> str:
    one, at = possible(fall.records[-1].metric, fall.comparison), fall.records[fall.since].window.start
    parts = [f"{kind.capitalize()}, {shape}, since {at:%Y-%m-%d %H:%M}"]
    parts.append(f"{fall.records[-1].metric} {one.realised.value:.3f} instead of {one.reference.value:.3f}")
    through = "through" if kind == "covariate shift" else "inputs moved too:"
    parts += [f"{through} {', '.join(columns) or 'answers'}{_above_all(moved)}"] if columns or _above_all(moved) else []
    parts += [f"worst in {worst[0].subject}"] if worst else []
    parts += [f"inputs as in the window of {again.window.start:%Y-%m-%d %H:%M}"] if again is not None else []
    return "; ".join(parts)
