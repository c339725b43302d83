"""A champion and a challenger on the same fresh rows: aligned labels and scores, and each measurement of the gate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.bundle import ModelBundle
from registry.conforming import as_datetimes, as_strings, conform
from registry.errors import StateError
from registry.metrics import Array, Labels, Metric, calibration_by_block, mean_by_block, metrics_for
from registry.schema import Schema
from registry.scoring import Scorer, Scores, feed
from registry.target import UNKNOWN_CLASS, Target
from registry.task import TaskSpec
from retrain.checks import usable
from retrain.paired import Interval, blocks_of, clustered, jackknife
from retrain.splits import Rows

SEGMENT_ROWS = 50
SEGMENT_VALUES = 20
RUNS = 200
UNIT_METRICS = ("auc", "accuracy", "brier", "r2")
"""Metrics on a scale of their own; a tolerance on any other is a share of the champion's value."""


@dataclass(frozen=True)
class Contest:
    """Both models' view of the same n rows. `labels` and the scores share one order of classes."""

    task: TaskSpec
    frame: pd.DataFrame
    labels: Labels
    old: Array
    new: Array
    old_covered: npt.NDArray[np.bool_]
    new_covered: npt.NDArray[np.bool_]
    blocks: Rows

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return metrics_for(self.task.problem)[self.task.metric]

    @property
    def decidable(self) -> bool:
        """Whether the metric is defined for both on these rows."""
        return all(np.isfinite(self.metric.value(self.labels, scores)) for scores in (self.old, self.new))

    def take(self, rows: Rows) -> Contest:
        """The same of some of the rows, in blocks of their own."""
        arrays = ("labels", "old", "new", "old_covered", "new_covered")
        part = replace(self, frame=self.frame.iloc[rows].reset_index(drop=True))
        part = replace(part, **{name: getattr(self, name)[rows] for name in arrays})
        return replace(part, blocks=_blocks(self.task, part.frame))


@dataclass(frozen=True)
class Paired:
    """What one jackknife over the rows gives: the gain in the metric, the growth of the calibration error (None for
    regression), and the challenger's coverage."""

    gain: Interval
    calibration: Interval | None
    coverage: Interval


@dataclass(frozen=True)
class Segment:
    """The gain in the metric on the rows where a column has a value."""

    column: str
    value: str
    rows: int
    gain: Interval


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of a single row, and the challenger's as a multiple of the champion's."""

    old: float
    new: float
    ratio: Interval


ROW = "__row__"
"""Column with a row's position among recorded answers."""


class Answering(Protocol):
    """Whatever answers rows for a bundle: a `Scorer`, or what was `Recorded`."""

    bundle: ModelBundle

    def predict(self, frame: pd.DataFrame, /) -> Scores:
        """The answers to these rows."""


class Recorded:
    """Answers that were given before the labels came, by models that have learnt since: they are looked up by `ROW`."""

    def __init__(self, bundle: ModelBundle, answers: Scores) -> None:
        self.bundle, self._answers = bundle, answers

    def predict(self, frame: pd.DataFrame, /) -> Scores:
        """What was answered."""
        return self._answers.take(frame[ROW].to_numpy())


def meet(task: TaskSpec, champion: Answering, challenger: Answering, fresh: pd.DataFrame) -> Contest:
    """Both models' predictions of the fresh rows that have a label. Classes are the union of what the models and the
    rows know: whoever does not know a class gives it no probability; for a binary problem such rows are left out."""
    fresh = usable(fresh, task)
    targets = champion.bundle.manifest.target, challenger.bundle.manifest.target
    if task.problem == "binary":
        if targets[0].classes != targets[1].classes:
            raise StateError(f"champion and challenger know other classes: {targets[0].classes}, {targets[1].classes}")
        fresh = fresh[targets[0].encode(fresh[task.target]) != UNKNOWN_CLASS].reset_index(drop=True)
    shared = _union(targets, fresh[task.target])
    old, new = champion.predict(fresh), challenger.predict(fresh)
    return Contest(
        task=task,
        frame=fresh,
        labels=shared.encode(fresh[task.target]),
        old=_spread(old, targets[0], shared),
        new=_spread(new, targets[1], shared),
        old_covered=covered(old, targets[0].encode(fresh[task.target])),
        new_covered=covered(new, targets[1].encode(fresh[task.target])),
        blocks=_blocks(task, fresh),
    )


def _blocks(task: TaskSpec, rows: pd.DataFrame) -> Rows:
    return blocks_of(None if task.time is None else as_datetimes(rows[task.time], task.time).to_numpy(), len(rows))


def _union(targets: tuple[Target, Target], labels: pd.Series[Any]) -> Target:
    if targets[0].problem == "regression":
        return targets[0]
    known = dict.fromkeys([*targets[0].classes, *targets[1].classes, *as_strings(labels).dropna().unique()])
    return targets[0].model_copy(update={"classes": tuple(known)})


def _spread(scores: Scores, own: Target, shared: Target) -> Array:
    """A model's scores in the shared order of classes."""
    if own.problem == "regression":
        return scores.scores
    out = np.zeros((len(scores), len(shared.classes)))
    out[:, [shared.classes.index(name) for name in own.classes]] = scores.scores
    return out


def covered(scores: Scores, labels: Labels) -> npt.NDArray[np.bool_]:
    """Whether each label lies in its conformal set or interval; a class the model does not know never does."""
    if scores.interval is not None:
        return np.asarray((scores.interval[:, 0] <= labels) & (labels <= scores.interval[:, 1]))
    if scores.sets is None:
        raise StateError("the model gives neither sets nor intervals")
    return np.asarray(scores.sets[np.arange(len(labels)), labels.astype(np.int64)] & (labels != UNKNOWN_CLASS))


def paired(contest: Contest) -> Paired:
    """One jackknife of everything that is a statistic of the rows."""
    metric, labels, blocks = contest.metric, contest.labels, contest.blocks
    classes = contest.task.problem != "regression"
    scores = (contest.new, contest.old)
    new, old = (metric.by_block(labels, one, blocks) for one in scores)
    covers = mean_by_block(contest.new_covered.astype(np.float64), blocks)
    errors = [calibration_by_block(labels, one, blocks) for one in scores] if classes else []

    def statistics(held: Array) -> tuple[Array, ...]:
        gain = new(held) - old(held) if metric.greater_is_better else old(held) - new(held)
        growth = errors[0](held) - errors[1](held) if classes else np.zeros(len(held))
        return gain, growth, covers(held)

    gain, growth, coverage = jackknife(statistics, blocks, confidence=contest.task.gate.confidence)
    return Paired(gain, growth if classes else None, coverage)


def segment_columns(contest: Contest, champion: ModelBundle) -> list[str]:
    """The columns whose values are compared apart: those the task names, else categories of few values and truths."""
    if contest.task.monitor.segments:
        return [name for name in contest.task.monitor.segments if name in contest.frame.columns]
    columns = champion.manifest.data_schema.columns
    few = [one.name for one in columns if one.kind == "categorical" and one.distinct <= SEGMENT_VALUES]
    quoted = (name for name in few if name not in contest.task.log.encrypt)  # the worst one's value is in the verdict
    return [name for name in quoted if name in contest.frame.columns]


def segments(contest: Contest, columns: list[str]) -> list[Segment]:
    """The gain in each segment of at least `SEGMENT_ROWS` rows where the metric is defined. Bounds hold for all
    segments together (Bonferroni)."""
    members = list(_members(contest, columns))
    confidence = 1 - (1 - contest.task.gate.confidence) / max(len(members), 1)
    found = [Segment(name, value, len(rows), _gain(contest, rows, confidence)) for name, value, rows in members]
    return [one for one in found if np.isfinite(one.gain.low)]


def _members(contest: Contest, columns: list[str]) -> Iterator[tuple[str, str, Rows]]:
    for name in columns:
        values = as_strings(contest.frame[name])
        for value, rows in values.groupby(values).indices.items():
            if len(rows) >= SEGMENT_ROWS:
                yield name, str(value), np.asarray(rows, dtype=np.int64)


def _gain(contest: Contest, rows: Rows, confidence: float) -> Interval:
    metric, y, old, new = contest.metric, contest.labels[rows], contest.old[rows], contest.new[rows]
    value = metric.gain(metric.value(y, new), metric.value(y, old))
    if not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    sign = 1 if metric.greater_is_better else -1
    influence = sign * (metric.influence(y, new) - metric.influence(y, old))
    return clustered(influence, contest.blocks[rows], value, confidence=confidence)


def tolerated(contest: Contest, share: float) -> float:
    """A tolerance in the metric's own unit: as it stands for metrics on a unit scale, else times the champion's."""
    if contest.task.metric in UNIT_METRICS:
        return share
    return share * abs(contest.metric.value(contest.labels, contest.old))


def latency(champion: Scorer, challenger: Scorer, frame: pd.DataFrame, *, runs: int = RUNS) -> Latency:
    """Single rows through both graphs in turn, so that whatever else the machine does slows both alike."""
    inputs = [feed(conform(frame.head(1), one), one) for one in _schemas(champion, challenger)]
    taken = np.empty((runs + 10, 2))
    for run in taken:
        for k, scorer in enumerate((champion, challenger)):
            start = time.perf_counter()
            scorer.run(inputs[k])
            run[k] = (time.perf_counter() - start) * 1e3
    taken = taken[10:]  # the first runs allocate
    old, new = (float(value) for value in np.median(taken, axis=0))
    ratios = [np.median(part[:, 1]) / np.median(part[:, 0]) for part in np.array_split(taken, 10)]
    return Latency(old, new, Interval(new / old, float(np.quantile(ratios, 0.1)), float(np.quantile(ratios, 0.9))))


def _schemas(*scorers: Scorer) -> list[Schema]:
    return [scorer.bundle.manifest.data_schema for scorer in scorers]
