"""What a back-test says: performance against compute for each policy, the best that was to be had, a recommendation.

A window's score is the metric of what was served there. The oracle knows the future: of all models that any policy had
made by then it serves each window's best. An improvement is wasted when none of its models is ever promoted, a
promotion regretted when the model it replaced would have done better than what was served until the next one (or the
end); a window is behind when what was served is worse than the oracle by more than the first policy on performance
tolerates. A step of a champion that follows is a training without a gate: counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flows.backtest import Plan, place_of, progress_of, stream_of
from flows.comparison import Comparison, WindowScore, aligned, compare
from flows.replay import Judged
from flows.spending import KINDS, Spending, spending
from flows.stream import Stream
from flows.workplace import Workplace
from registry.decisions import ROLLBACK
from registry.errors import StateError
from registry.ledger import Entry
from registry.metrics import Array, Labels, Metric, metrics_for
from registry.policies import PerformancePolicy
from registry.schema import Frozen
from registry.scoring import Scorer
from registry.target import Target

TOLERATED = PerformancePolicy().tolerate
"""What counts as behind where no policy says what it tolerates."""


class Result(Frozen):
    """One policy. `mean` is over windows, `gain` over the policy that is named first, with the standard error of its
    windows' differences; `researches` are improvements, whatever they tried, `steps` those of champions that followed;
    `cpu` are the CPU-seconds of remedies, gates, looks and steps, watching apart."""

    name: str
    policy: dict[str, Any]
    windows: tuple[WindowScore, ...]
    mean: float
    gain: float
    gain_error: float
    pooled: float
    researches: int
    promotions: int
    steps: int = 0
    wasted: int
    regretted: int
    behind: int
    cpu: float
    seconds: float


class Backtest(Frozen):
    """All policies, the oracle by window, and the recommended policy with the reason in words."""

    task: str
    metric: str
    greater_is_better: bool
    policies: tuple[Result, ...]
    oracle: tuple[float, ...]
    recommended: str
    reason: str


@dataclass(frozen=True)
class _Played:
    """A policy that was played to the end, and the scores of each of its versions by window, NaN before it was made."""

    name: str
    policy: dict[str, Any]
    steps: Sequence[Judged]
    comparison: Comparison
    versions: Mapping[str, Array]
    improvements: int
    wasted: int
    spent: Spending

    @property
    def served(self) -> Array:
        return np.array([one.served for one in self.comparison.windows])


def gather(folder: Path, plan: Plan) -> Backtest:
    """Read off what all policies left behind. Raises `StateError` while one is not finished."""
    played = [_played(folder, plan, number) for number in range(len(plan.policies))]
    metric = metrics_for(plan.task.problem)[plan.task.metric]
    every = np.array([scores for one in played for scores in one.versions.values()] + [one.served for one in played])
    oracle = np.nanmax(every, axis=0) if metric.greater_is_better else np.nanmin(every, axis=0)
    tolerate = next((one.tolerate for one in plan.policies.values() if isinstance(one, PerformancePolicy)), TOLERATED)
    results = tuple(_result(one, played[0], oracle, metric, tolerate) for one in played)
    name, reason = _recommended(results, metric)
    return Backtest(
        task=plan.task.name,
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        policies=results,
        oracle=tuple(oracle.tolist()),
        recommended=name,
        reason=reason,
    )


def _played(folder: Path, plan: Plan, number: int) -> _Played:
    name, progress, place = list(plan.policies)[number], progress_of(folder, number), place_of(folder, plan, number)
    if progress is None or not progress.finished:
        raise StateError(f"policy {name!r} is not finished: run the back-test again, it goes on where it stopped")
    stream = stream_of(folder, place.task)
    comparison = compare(stream, progress, task=place.task, log=place.log, versions=place.versions)
    spans = [(one.begin, one.end) for one in comparison.windows]
    versions = _scored(place, stream, spans, progress.first_version)
    policy = place.task.policy.model_dump(mode="json", exclude_unset=True)
    ends, chosen = (place.ledger.read(kinds={kind}) for kind in ("improvement", "promotion"))
    wasted = sum(not _made(end) & {one.version for one in chosen} for end in ends)
    spent = spending(place.ledger.costs(KINDS))
    return _Played(name, policy, progress.steps, comparison, versions, len(ends), wasted, spent)


def _made(improvement: Entry) -> set[str | None]:
    """The versions that an improvement has made."""
    return {one["version"] for one in improvement.details.get("tried", []) if one["version"]}


def _scored(
    place: Workplace, stream: Stream, spans: Sequence[tuple[datetime, datetime]], first: str
) -> dict[str, Array]:
    """Of each version the metric in each window that begins after it was made."""
    made = {first: datetime.min} | {one.version: one.at for one in place.ledger.read(kinds={"remedy"}) if one.version}
    target = place.versions.fetch(place.task.name, first).manifest.target
    labels = target.encode(pd.Series(stream.labels))
    metric = metrics_for(target.problem)[place.task.metric]
    return {
        version: _by_window(place, stream, labels, target, metric, spans, version, at) for version, at in made.items()
    }


def _by_window(
    place: Workplace,
    stream: Stream,
    labels: Labels,
    target: Target,
    metric: Metric,
    spans: Sequence[tuple[datetime, datetime]],
    version: str,
    at: datetime,
) -> Array:
    bundle = place.versions.fetch(place.task.name, version)
    out, first = np.full(len(spans), math.nan), next((begin for begin, _ in spans if begin >= at), None)
    if first is None:
        return out
    start = int(np.searchsorted(stream.times, np.datetime64(first, "us")))
    scores = aligned(Scorer.load(bundle).predict(stream.rows.iloc[start:]).scores, bundle.manifest.target, target)
    known = np.isfinite(labels) if target.problem == "regression" else labels >= 0
    for place_of_window, (begin, end) in enumerate(spans):
        if begin >= at:
            bounds = np.searchsorted(stream.times, np.array([begin, end], dtype="datetime64[us]"))
            rows = np.arange(*bounds)[known[bounds[0] : bounds[1]]]
            out[place_of_window] = metric.value(labels[rows], scores[rows - start])
    return out


def _result(one: _Played, first: _Played, oracle: Array, metric: Metric, tolerate: float) -> Result:
    gains = _gains(metric, one.served, first.served)
    promoted = [place for place, step in enumerate(one.steps) if step.promoted and step.outcome != ROLLBACK]
    lag = _gains(metric, oracle, one.served)
    return Result(
        name=one.name,
        policy=one.policy,
        windows=one.comparison.windows,
        mean=float(np.nanmean(one.served)),
        gain=float(np.nanmean(gains)),
        gain_error=_error(gains),
        pooled=one.comparison.pooled.served,
        researches=one.improvements,
        promotions=len(promoted),
        steps=one.spent.steps,
        wasted=one.wasted,
        regretted=sum(_regretted(one, place, metric) for place in promoted),
        behind=int(np.nansum(lag > tolerate * np.abs(oracle))),
        cpu=one.spent.cpu,
        seconds=sum(step.seconds for step in one.steps),
    )


def _gains(metric: Metric, new: Array, old: Array) -> Array:
    return new - old if metric.greater_is_better else old - new


def _error(gains: Array) -> float:
    known = gains[np.isfinite(gains)]
    return float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan


def _regretted(one: _Played, place: int, metric: Metric) -> bool:
    """Whether what was replaced would have done better in the windows until the next promotion."""
    step = one.steps[place]
    until = next((later.end for later in one.steps[place + 1 :] if later.promoted), None)
    inside = np.array(
        [window.begin >= step.end and (until is None or window.end <= until) for window in one.comparison.windows]
    )
    old = one.versions.get(step.version)  # unknown of one that followed: it would have gone on
    if old is None or not inside.any():
        return False
    gains = _gains(metric, one.served[inside], old[inside])
    return bool(np.isfinite(gains).any() and np.nanmean(gains) < 0)


def _recommended(results: Sequence[Result], metric: Metric) -> tuple[str, str]:
    """The cheapest policy that is not worse than the best by more than one standard error of the windows' differences
    (the one-standard-error rule, Breiman et al. 1984)."""
    best = max(results, key=lambda one: one.mean if metric.greater_is_better else -one.mean)
    lost = {one.name: _gains(metric, _served(best), _served(one)) for one in results}
    near = [one for one in results if one is best or np.nanmean(lost[one.name]) <= _error(lost[one.name])]
    chosen = min(near, key=lambda one: one.cpu)
    if chosen is best:
        return best.name, f"{best.name}: none is better, and nothing cheaper comes within one standard error of it"
    worse = f"{np.nanmean(lost[chosen.name]):.4f} +/- {_error(lost[chosen.name]):.4f}"
    costs = f"{chosen.cpu:,.0f} CPU-seconds instead of {best.cpu:,.0f}"
    return chosen.name, f"{chosen.name}: worse than {best.name}, the best, by no more than {worse}, at {costs}"


def _served(one: Result) -> Array:
    return np.array([window.served for window in one.windows])


def describe(found: Backtest) -> str:
    """The table and the recommendation in words."""
    width = max(len("policy"), *(len(one.name) for one in found.policies), len("oracle"))
    figures = f"{'policy':<{width}}  {found.metric:>8}  {'gain':>17}  {'pooled':>8}"
    lines = [f"{figures}  remedies promoted steps wasted regretted behind {'CPU-s':>7}"]
    for one in found.policies:
        gain = "" if one is found.policies[0] else f"{one.gain:+.4f} +/- {one.gain_error:.4f}"
        lines.append(
            f"{one.name:<{width}}  {one.mean:>8.4f}  {gain:>17}  {one.pooled:>8.4f}  {one.researches:>8} "
            f"{one.promotions:>8} {one.steps:>5} {one.wasted:>6} {one.regretted:>9} {one.behind:>6} {one.cpu:>7,.0f}"
        )
    oracle = f"{'oracle':<{width}}  {np.nanmean(found.oracle):>8.4f}"
    windows = len(found.oracle)
    told = (
        f"{found.metric} is the mean over {windows} windows, gain that over {found.policies[0].name!r}; the oracle "
        "serves each window\nwith the best model that any policy had by then. A step is a training, without a gate, of "
        "a champion\nthat follows; CPU-s are those of remedies, gates, looks and steps."
    )
    return "\n".join([*lines, oracle, "", told, f"Recommended: {found.reason}."])
