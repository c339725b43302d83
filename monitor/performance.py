"""Realised performance: the task's metric on the labels that have arrived, over all rows and by segment.

Only rows that the champion itself answered count; those of another version belong to that version.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from monitor.measurements import Measurement
from monitor.views import Measure, Side, View
from registry.metrics import METRICS, Metric
from registry.schema import canonical_category

_Z = 1.96
MOST_SEGMENTS = 50
"""Most values of one column that are watched apart: the most frequent of the reference."""


def task_metric(view: View) -> Metric:
    """The metric the task names."""
    return next(metric for metric in METRICS if metric.name == view.manifest.task.metric)


def realised(metric: Metric, side: Side, rows: npt.NDArray[np.bool_]) -> tuple[float, float, int]:
    """Value, standard error and number of labels of those of the champion's rows (m,); NaN where undefined."""
    chosen = side.labelled & rows
    if (n := int(chosen.sum())) < 2:
        return float("nan"), float("nan"), n
    labels, scores = side.labels[chosen], side.scores.take(chosen).scores
    return metric.value(labels, scores), metric.standard_error(labels, scores), n


class Performance(Measure):
    """The task's metric over all labelled rows; the reference is the champion's figure on its test rows."""

    name: ClassVar[str] = "performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        metric, known = task_metric(view), view.manifest.reference
        value, error, n = realised(metric, view.window, np.ones(len(view.window.labels), dtype=bool))
        note = metric.name if np.isfinite(value) else f"{metric.name} is undefined on {n} labels"
        return [
            Measurement(
                name=self.name,
                value=value,
                low=value - _Z * error,
                high=value + _Z * error,
                reference=known.value,
                reference_error=known.error,
                error=error,
                rows=n,
                note=note,
            )
        ]


class SegmentPerformance(Measure):
    """The task's metric in each value of the columns that the task watches apart, beside the same on the reference."""

    name: ClassVar[str] = "segment_performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment that has labels; its subject is `column=value`."""
        columns = [name for name in view.manifest.task.monitor.segments if name in view.window.inputs.columns]
        return [one for column in columns for one in self._by_value(view, column)]

    def _by_value(self, view: View, column: str) -> list[Measurement]:
        values = view.reference.inputs[column].value_counts().index[:MOST_SEGMENTS]
        made = (self._of(view, column, value) for value in values)
        return [one for one in made if one.rows]

    def _of(self, view: View, column: str, value: object) -> Measurement:
        metric = task_metric(view)
        (now, error, n), (before, known_error, _) = (
            realised(metric, side, (side.inputs[column] == value).to_numpy()[side.own])
            for side in (view.window, view.reference)
        )
        subject = f"{column}={canonical_category(value)}"
        return Measurement(
            name=self.name,
            subject=subject,
            value=now,
            low=now - _Z * error,
            high=now + _Z * error,
            reference=before,
            reference_error=known_error,
            error=error,
            rows=n,
            note=metric.name,
        )
