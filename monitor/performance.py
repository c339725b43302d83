"""Realised performance: the task's metric on the labels that have arrived.

Only rows that the champion itself answered count; those of another version belong to that version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.dependence import Dependence
from monitor.measurements import Measurement
from monitor.views import Measure, Side, View
from registry.metrics import BLOCKS, LEAST_IN_BLOCK, METRICS, Array, Metric, error_of_mean

_Z = 1.96


def task_metric(view: View) -> Metric:
    """The metric the task names."""
    return next(metric for metric in METRICS if metric.name == view.manifest.task.metric)


def realised(metric: Metric, side: Side, rows: npt.NDArray[np.bool_] | None = None) -> tuple[float, float, int]:
    """Value, standard error and number of labels of those of the champion's rows (m,), by default of all; NaN where
    undefined."""
    if rows is None:
        labels, scores = side.known[0], side.known[1].scores
    else:
        chosen = np.flatnonzero(side.labelled & rows)  # by a mask it takes ten times as long
        labels, scores = side.labels.take(chosen), side.scores.scores.take(chosen, axis=0)
    if (n := len(labels)) < 2:
        return float("nan"), float("nan"), n
    value, pulls = metric.value_and_influence(labels, scores)
    return value, error_of_mean(pulls), n


def realised_of(view: View, metric: Metric) -> tuple[float, float, int]:
    """The same of all labels of a view's window, made once."""
    return view.here(f"realised {metric.name}", lambda: realised(metric, view.window))


def known_influence(view: View, metric: Metric) -> tuple[Array, npt.NDArray[np.int64]]:
    """How far each labelled reference row pulls a metric (`Metric.influence`), and which rows these are; no rows where
    it is undefined."""
    side = view.reference
    rows = np.flatnonzero(side.labelled)
    labels, scores = side.known
    pulls = metric.influence(labels, scores.scores) if len(rows) > 1 else np.empty(0)
    return (pulls, rows) if len(pulls) and np.isfinite(pulls).all() else (np.empty(0), rows[:0])


class Null(NamedTuple):
    """The law of a metric while nothing has changed: its standard error, its skew towards the bad side, and the degrees
    of freedom that the error is known with."""

    error: float
    skew: float
    freedom: float


def null_of(view: View, metric: Metric, rows: int) -> Null:
    """The law of a metric on `rows` rows while nothing has changed, from the labelled reference rows; NaN where these
    are too few, or it is undefined. Luck that outlasts a window is in it (`Dependence.over_windows`); what a window has
    that is longer than the stretches of the reference, its own blocks tell."""
    known = view.once(f"law of {metric.name}", lambda: _law(view, metric))
    if rows < 2 or known is None:
        return Null(float("nan"), float("nan"), float("nan"))
    luck = known.dependence.over_windows(rows, stride=view.stride)
    return Null(known.spread * math.sqrt(luck.effect / rows), known.skew / math.sqrt(rows), luck.freedom)


@dataclass(frozen=True)
class _Law:
    """How a metric's influences are distributed: standard deviation, skew towards the bad side (NaN where they do not
    vary), dependence in time."""

    spread: float
    skew: float
    dependence: Dependence


def _law(view: View, metric: Metric) -> _Law | None:
    pulls, _ = view.once(f"influence on {metric.name}", lambda: known_influence(view, metric))
    if len(pulls) < BLOCKS * LEAST_IN_BLOCK:
        return None
    centred, spread = (pulls - pulls.mean()) * metric.gain(0, 1), float(pulls.std())
    skew = float((centred * centred * centred).mean()) / spread**3 if spread > 0 else math.nan
    return _Law(float(pulls.std(ddof=1)), skew, Dependence(pulls[:, None]))


class Performance(Measure):
    """The task's metric over all labelled rows; the reference is the champion's figure on its test rows."""

    name: ClassVar[str] = "performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        metric, known = task_metric(view), view.manifest.reference
        value, error, n = realised_of(view, metric)
        note = metric.name if np.isfinite(value) else f"{metric.name} is undefined on {n} labels"
        null = null_of(view, metric, n)
        return [
            Measurement(
                name=self.name,
                value=value,
                low=value - _Z * error,
                high=value + _Z * error,
                reference=known.value,
                reference_error=known.error,
                error=error,
                null_error=null.error,
                skew=null.skew,
                freedom=null.freedom,
                rows=n,
                note=note,
            )
        ]


def beside(view: View, name: str, subject: str, rows: Callable[[Side], npt.NDArray[np.bool_]]) -> Measurement:
    """The task's metric on some of the champion's rows (m,) of the window, beside the same on the reference."""
    metric = task_metric(view)
    now, before = (realised(metric, side, rows(side)) for side in (view.window, view.reference))
    return compared(name, subject, metric, now, before)


def compared(
    name: str, subject: str, metric: Metric, now: tuple[float, float, int], before: tuple[float, float, int]
) -> Measurement:
    """Two of what `realised` gives, of the window and of the reference, side by side."""
    value, error, n = now
    return Measurement(
        name=name,
        subject=subject,
        value=value,
        low=value - _Z * error,
        high=value + _Z * error,
        reference=before[0],
        reference_error=before[1],
        error=error,
        rows=n,
        note=metric.name,
    )
