"""What watching and repairing were worth: the served model against the first champion, frozen, on the same rows.

The served scores are those of the inference log. The frozen model scores the same rows offline, after the replay: it
takes no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.deeds import deed, missed
from flows.replay import Judged
from registry.decisions import ROLLBACK
from registry.errors import StateError
from registry.metrics import Array, Labels, Metric, metrics_for
from registry.policies import PerformancePolicy
from registry.schema import Frozen
from registry.target import Target

if TYPE_CHECKING:
    from flows.replay import Progress
    from flows.stream import Stream
    from registry.bundle import Manifest, ModelBundle
    from registry.inference_log import InferenceLog
    from registry.task import TaskSpec
    from registry.versions import Versions

_AT_ONCE = 20_000
"""Rows of the stream that are looked up in the log, and scored, together."""


class WindowScore(Frozen):
    """One window: the champion that served it (beside a canary, perhaps), how well all that was answered was, how well
    the frozen model would have been, and what was decided after it. `promoted`: another version served then, by more
    than a step of a champion that follows (`stepped`, or why it could not: `no_step`)."""

    index: int
    begin: datetime
    end: datetime
    rows: int
    version: str
    served: float
    frozen: float
    gain: float
    severity: str
    remedy: str
    by: str = ""
    outcome: str
    not_run: str = ""
    champion: str
    promoted: bool = False
    stepped: bool = False
    no_step: str = ""


class Pooled(Frozen):
    """The metric over all rows of a period at once."""

    begin: datetime
    end: datetime
    rows: int
    served: float
    frozen: float
    gain: float


class ByWindow(Frozen):
    """The metric of each window alone, on average over the `windows` that begin in the period. Unlike pooled, a metric
    of ranks does not compare the scores of one version with those of another here. `changed` of these windows came
    after the first change of model: before it both are the same; `ahead`: those of them with a gain."""

    windows: int
    served: float
    frozen: float
    gain: float
    changed: int
    ahead: int


class Comparison(Frozen):
    """The whole replay, by window and pooled. `references` is each version's own reference, by version; `tolerate` what
    the task's policy tolerates."""

    task: str
    metric: str
    greater_is_better: bool
    first_version: str
    references: dict[str, float]
    tolerate: float | None
    windows: tuple[WindowScore, ...]
    pooled: Pooled
    by_window: ByWindow | None


@dataclass(frozen=True)
class Rows:
    """The labelled rows of a replay: times (n,), labels (n,), and what metrics take of either model."""

    times: npt.NDArray[np.datetime64]
    labels: Labels
    served: Array
    frozen: Array

    def between(self, begin: datetime, end: datetime) -> Rows:
        """The rows with `begin <= time < end`."""
        keep = (self.times >= np.datetime64(begin)) & (self.times < np.datetime64(end))
        return Rows(self.times[keep], self.labels[keep], self.served[keep], self.frozen[keep])


def joined(parts: Sequence[Rows]) -> Rows:
    """Parts in time order as one."""
    return Rows(
        np.concatenate([one.times for one in parts]),
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.served for one in parts]),
        np.concatenate([one.frozen for one in parts]),
    )


def compare(
    stream: Stream,
    progress: Progress,
    *,
    task: TaskSpec,
    log: InferenceLog,
    versions: Versions,
    period: tuple[datetime, datetime] | None = None,
) -> Comparison:
    """The comparison of a replay, judged by the policy of `task`; `pooled` is over `period`, or over all rows. Raises
    `StateError` without rows."""
    first = versions.fetch(progress.task, progress.first_version)
    manifests = _Manifests(versions, progress.task)
    rows = scored(stream, log, first, manifests)
    metric = metrics_for(first.manifest.target.problem)[first.manifest.task.metric]
    period = period or (progress.steps[0].begin, progress.steps[-1].end)
    chosen = rows.between(*period)
    if not len(chosen.labels):
        raise StateError(f"no labelled row of the replay lies between {period[0]} and {period[1]}")
    served, frozen = metric.value(chosen.labels, chosen.served), metric.value(chosen.labels, chosen.frozen)
    windows = tuple(_windows(progress.steps, rows, metric))
    return Comparison(
        task=progress.task,
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        first_version=progress.first_version,
        references={one.version: manifests[one.version].reference.value for one in windows},
        tolerate=task.policy.tolerate if isinstance(task.policy, PerformancePolicy) else None,
        windows=windows,
        pooled=Pooled(
            begin=period[0],
            end=period[1],
            rows=len(chosen.labels),
            served=served,
            frozen=frozen,
            gain=metric.gain(served, frozen),
        ),
        by_window=_means(windows, period, progress.first_version),
    )


def _means(windows: Sequence[WindowScore], period: tuple[datetime, datetime], first: str) -> ByWindow | None:
    """Of windows where the metric is defined; None without any."""
    known = [one for one in windows if period[0] <= one.begin < period[1] and np.isfinite(one.gain)]
    if not known:
        return None
    served, frozen, gain = np.mean([(one.served, one.frozen, one.gain) for one in known], axis=0).tolist()
    change = min((one.begin for one in windows if one.version != first), default=period[1])
    changed = [one for one in known if one.begin >= change]
    ahead = sum(one.gain > 0 for one in changed)
    return ByWindow(windows=len(known), served=served, frozen=frozen, gain=gain, changed=len(changed), ahead=ahead)


class _Manifests(dict[str, "Manifest"]):
    """The manifests of a task's versions, each read when it is first needed."""

    def __init__(self, versions: Versions, task: str) -> None:
        super().__init__()
        self._versions, self._task = versions, task

    def __missing__(self, version: str) -> Manifest:
        self[version] = self._versions.manifest(self._task, version)
        return self[version]


def logged_parts(stream: Stream, log: InferenceLog) -> Iterator[tuple[slice, pd.DataFrame]]:
    """The stream's rows as the log holds them, without features, in parts: which rows of the stream were looked up, and
    those of them that are logged, by id. However long the log is, a part is what lies between two moments of it."""
    for start in range(0, len(stream), _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, len(stream)))
        first, last = (moment.astype("datetime64[us]").item() for moment in stream.times[[part.start, part.stop - 1]])
        found = log.frame(start=first, end=last + timedelta(microseconds=1), columns=()).set_index("__id__")
        yield part, found[found.index.isin(stream.ids(part.start, part.stop))]


def scored(stream: Stream, log: InferenceLog, first: ModelBundle, manifests: Mapping[str, Manifest]) -> Rows:
    """The rows of the stream that were served and whose label is a class (or number) the first champion knows."""
    from registry.scoring import Scorer

    target, scorer = first.manifest.target, Scorer.load(first)
    labels = target.encode(pd.Series(stream.labels))
    known = np.isfinite(labels) if target.problem == "regression" else labels >= 0
    parts = []
    for part, logged in logged_parts(stream, log):
        ids = np.array(stream.ids(part.start, part.stop), dtype=object)
        own = np.flatnonzero(known[part] & pd.Index(ids).isin(logged.index))
        keep = part.start + own
        frozen = scorer.predict(stream.rows.iloc[keep]).scores
        parts.append(Rows(stream.times[keep], labels[keep], _served(logged.loc[ids[own]], target, manifests), frozen))
    return joined(parts)


def _served(logged: pd.DataFrame, target: Target, manifests: Mapping[str, Manifest]) -> Array:
    """Logged scores in the class order of `target`: (n, k), a class a version did not know with probability 0."""
    if target.problem == "regression":
        return logged["__prediction__"].to_numpy(dtype=np.float64)
    out = np.zeros((len(logged), len(target.classes)))
    names = logged["__version__"].to_numpy(object)
    for version in np.unique(names.astype(str)):
        here = np.flatnonzero(names == version)
        scores = np.array(logged["__scores__"].iloc[here].tolist(), dtype=np.float64)
        out[here] = aligned(scores, manifests[version].target, target)
    return out


def aligned(scores: Array, own: Target, target: Target) -> Array:
    """Scores (n, k) of a version in the class order of `target`, 0 for a class it does not know."""
    if own.classes == target.classes:
        return scores
    out = np.zeros((len(scores), len(target.classes)))
    for k, name in enumerate(target.classes):
        if name in own.classes:
            out[:, k] = scores[:, own.classes.index(name)]
    return out


def _windows(steps: Sequence[Judged], rows: Rows, metric: Metric) -> Iterator[WindowScore]:
    for step in steps:
        part = rows.between(step.begin, step.end)
        if not len(part.labels):
            continue
        served, frozen = metric.value(part.labels, part.served), metric.value(part.labels, part.frozen)
        yield WindowScore(
            **step.model_dump(include=set(WindowScore.model_fields) & set(Judged.model_fields) - {"rows"}),
            promoted=step.promoted,
            rows=len(part.labels),
            served=served,
            frozen=frozen,
            gain=metric.gain(served, frozen),
        )


def table(comparison: Comparison) -> str:
    """The comparison as lines of text, a window a line."""
    name = comparison.metric
    head = f"{'window from':<12} {'rows':>7} {'version':>8} {name:>9} {'frozen':>9} {'gain':>7}  {'judged':<9} action"
    return "\n".join([head, *(_line(window) for window in comparison.windows)])


def _line(one: WindowScore) -> str:
    shown = f"{one.gain:+7.3f}" if one.gain else f"{'':>7}"
    return (
        f"{one.begin:%Y-%m-%d}   {one.rows:>7,} {one.version:>8} {one.served:>9.4f} {one.frozen:>9.4f} {shown}"
        f"  {one.severity:<9} {action(one)}"
    ).rstrip()


def action(one: WindowScore) -> str:
    """What was done after a window, in words; empty for nothing."""
    by = one.by or one.remedy
    if one.promoted:
        done = "is back" if one.outcome == ROLLBACK else "promoted"
        return f"{by}: version {one.champion} {done}"
    done = deed(one.remedy, by, one.outcome, not_run=one.not_run)
    learnt = f"version {one.champion} has learnt on" if one.stepped else ""
    return "; ".join(filter(None, [done, learnt, missed(one.no_step)]))
