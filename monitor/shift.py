"""Shift: how far a distribution has moved from the reference's, on a scale from 0 to 1, with its p-value.

Numbers: Kolmogorov-Smirnov distance. Categories: Jensen-Shannon distance, missing values apart (`quality.py`).
Moments always move on, so a datetime column is compared by its lag behind the row's event time, and the time column
itself is left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd

from monitor.measurements import Measurement
from monitor.significance import homogeneity, jensen_shannon, smirnov
from monitor.views import Measure, Side, View
from registry.metrics import Array
from registry.schema import Column


def moved_numbers(name: str, subject: str | None, window: Array, reference: Array) -> Measurement:
    """Shift of a number; NaN are passed over."""
    window, reference = window[~np.isnan(window)], reference[~np.isnan(reference)]
    rows = len(window)
    if not rows or not len(reference):
        return Measurement(name=name, subject=subject, rows=rows, note="no values to compare")
    distance, p_value = smirnov(window, reference)
    note = f"median {np.median(reference):.4g} -> {np.median(window):.4g}"
    return Measurement(name=name, subject=subject, value=distance, p_value=p_value, rows=rows, note=note)


def moved_categories(name: str, subject: str | None, window: pd.Series[Any], reference: pd.Series[Any]) -> Measurement:
    """Shift of a category; missing values are passed over."""
    now, before = window.value_counts(), reference.value_counts()
    rows = int(now.sum())
    if not rows or not before.sum():
        return Measurement(name=name, subject=subject, rows=rows, note="no values to compare")
    every = before.index.union(now.index)
    new, old = (np.asarray(counts.reindex(every, fill_value=0), dtype=np.float64) for counts in (now, before))
    change = new / new.sum() - old / old.sum()
    most = int(np.abs(change).argmax())
    note = f"{every[most]!s:.40}: {100 * old[most] / old.sum():.3g} % -> {100 * new[most] / new.sum():.3g} %"
    p_value, value = homogeneity(new, old), jensen_shannon(new, old)
    return Measurement(name=name, subject=subject, value=value, p_value=p_value, rows=rows, note=note)


class ColumnShift(Measure):
    """Shift of each column."""

    name: ClassVar[str] = "shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column; without a value, and with the reason, where there is nothing to compare."""
        return [self._of(view, column) for column in view.manifest.data_schema.columns]

    def _of(self, view: View, column: Column) -> Measurement:
        sides = (view.window.inputs, view.reference.inputs)
        if column.kind == "datetime":
            return self._lag(column.name, view.manifest.task.time, *sides)
        window, reference = (side[column.name] for side in sides)
        if column.kind == "numeric":
            return moved_numbers(self.name, column.name, window.to_numpy(), reference.to_numpy())
        return moved_categories(self.name, column.name, window, reference)

    def _lag(self, name: str, time: str | None, window: pd.DataFrame, reference: pd.DataFrame) -> Measurement:
        if time is None or name == time or time not in window.columns:
            return Measurement(name=self.name, subject=name, note="left out: time always moves on")
        lags = [
            np.asarray((side[time] - side[name]).dt.total_seconds(), dtype=np.float64) for side in (window, reference)
        ]
        return moved_numbers(self.name, name, lags[0], lags[1])


class PredictionShift(Measure):
    """Shift of what the model answers: the number, the probability of the positive class, or the class."""

    name: ClassVar[str] = "prediction_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        if view.manifest.target.problem == "multiclass":
            classes = [pd.Series(side.scores.prediction, dtype=object) for side in (view.window, view.reference)]
            return [moved_categories(self.name, None, classes[0], classes[1])]
        return [moved_numbers(self.name, None, _answers(view.window), _answers(view.reference))]


def _answers(side: Side) -> Array:
    scores = side.scores.scores
    return scores if scores.ndim == 1 else scores[:, -1]


class UncertaintyShift(Measure):
    """Shift of the model's own uncertainty."""

    name: ClassVar[str] = "uncertainty_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        now, before = (np.asarray(side.scores.uncertainty, dtype=np.float64) for side in (view.window, view.reference))
        return [moved_numbers(self.name, None, now, before)]
