"""Shift: how far a distribution has moved from the reference's, on a scale from 0 to 1, with its p-value and its cost.

Missing values are counted apart (`quality.py`). Moments always move on, so a datetime column is compared by its lag
behind the row's event time, and the time column itself is left out.

The cost is what the task's metric is estimated to lose by this shift alone: the labelled reference rows weighted so
that they are distributed over the column's bins as the window is (importance weights, Shimodaira 2000), to first order

    cost = - mean over the reference of (w_i - 1) influence_i,    w_i = share of i's bin in the window / reference

A column that has nothing to do with the champion's errors costs nothing. It cannot see what values do that the
reference does not have, nor what several columns do together.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from monitor.distribution import Codes, Distribution, of_categories, of_numbers
from monitor.measurements import Measurement
from monitor.performance import task_metric
from monitor.views import Measure, Side, View
from registry.metrics import Array
from registry.schema import Column


def moved(
    view: View, name: str, subject: str | None, values: npt.NDArray[Any], known: Distribution, *, priced: bool = False
) -> Measurement:
    """Shift of (n,) values of a window; with `priced`, and its cost."""
    counts = known.count(values)
    rows = int(counts.sum())
    distance = known.distance(counts, stride=view.stride)
    if distance is None:
        return Measurement(name=name, subject=subject, rows=rows, note="no values to compare")
    cost, error = _cost(view, known, counts) if priced else (None, None)
    return Measurement(
        name=name,
        subject=subject,
        value=distance.value,
        p_value=distance.p_value,
        counts=tuple(counts.tolist()),
        cost=cost,
        cost_error=error,
        rows=rows,
        note=_note(known, counts, values),
    )


def _note(known: Distribution, counts: Codes, values: npt.NDArray[Any]) -> str:
    before, now = known.counts / known.counts.sum(), counts / counts.sum()
    most = int(np.abs(now - before).argmax())
    if known.names is not None:
        name = known.names[most] if most < len(known.names) else "others"
        return f"{name!s:.40}: {100 * before[most]:.3g} % -> {100 * now[most]:.3g} %"
    return f"median {known.middle:.4g} -> {np.nanmedian(np.asarray(values, dtype=np.float64)):.4g}"


def _cost(view: View, known: Distribution, counts: Codes) -> tuple[float | None, float | None]:
    """By how much the metric is worse for reference rows weighted as the window is, and the standard error of that."""
    pulls, labelled = view.once("influence", lambda: _influence(view))
    codes = known.codes[labelled]
    there = codes >= 0
    if pulls is None or not there.any():
        return None, None
    shares = known.counts / known.counts.sum()
    weights = np.where(shares > 0, counts / counts.sum() / np.where(shares > 0, shares, 1.0), 0.0)
    parts = (weights[codes[there]] - 1) * pulls[there]
    sign = task_metric(view).gain(0, 1)
    return float(sign * parts.sum() / len(pulls)), float(np.sqrt((parts**2).sum()) / len(pulls))


def _influence(view: View) -> tuple[Array | None, npt.NDArray[np.int64]]:
    """How far each labelled reference row pulls the metric, and which rows these are; None where it is undefined."""
    side = view.reference
    rows = np.flatnonzero(side.labelled)
    if len(rows) < 2:
        return None, rows
    pulls = task_metric(view).influence(side.labels[rows], side.scores.take(rows).scores)
    return (pulls if np.isfinite(pulls).all() else None), rows


class ColumnShift(Measure):
    """Shift of each column."""

    name: ClassVar[str] = "shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column; without a value, and with the reason, where there is nothing to compare."""
        return [self._of(view, column) for column in view.manifest.data_schema.columns]

    def _of(self, view: View, column: Column) -> Measurement:
        time, name = view.manifest.task.time, column.name
        if column.kind == "datetime" and (time is None or name == time or time not in view.window.inputs.columns):
            return Measurement(name=self.name, subject=name, note="left out: time always moves on")
        known = view.once(f"shift of {name}", lambda: _distribution(view.reference, column, time))
        return moved(view, self.name, name, _values(view.window, column, time), known, priced=True)


def _values(side: Side, column: Column, time: str | None) -> npt.NDArray[Any]:
    if column.kind == "datetime":
        return np.asarray((side.inputs[time] - side.inputs[column.name]).dt.total_seconds(), dtype=np.float64)
    return np.asarray(side.inputs[column.name].to_numpy())


def _distribution(side: Side, column: Column, time: str | None) -> Distribution:
    values = _values(side, column, time)
    return of_numbers(values) if column.kind in ("numeric", "datetime") else of_categories(values)


class PredictionShift(Measure):
    """Shift of what the model answers: the number, the probability of the positive class, or the class."""

    name: ClassVar[str] = "prediction_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        multiclass = view.manifest.target.problem == "multiclass"
        values, make = (_classes, of_categories) if multiclass else (_answers, of_numbers)
        known = view.once(self.name, lambda: make(values(view.reference)))
        return [moved(view, self.name, None, values(view.window), known)]


def _classes(side: Side) -> npt.NDArray[Any]:
    return np.asarray(side.scores.prediction, dtype=object)


def _answers(side: Side) -> Array:
    scores = side.scores.scores
    return scores if scores.ndim == 1 else scores[:, -1]


class UncertaintyShift(Measure):
    """Shift of the model's own uncertainty."""

    name: ClassVar[str] = "uncertainty_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        known = view.once(self.name, lambda: of_numbers(view.reference.scores.uncertainty))
        return [moved(view, self.name, None, np.asarray(view.window.scores.uncertainty), known)]


class LabelShift(Measure):
    """Shift of the labels that have arrived."""

    name: ClassVar[str] = "label_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        make = of_numbers if view.manifest.target.problem == "regression" else of_categories
        known = view.once(self.name, lambda: make(_labels(view, view.reference)))
        return [moved(view, self.name, None, _labels(view, view.window), known)]


def _labels(view: View, side: Side) -> npt.NDArray[Any]:
    labels = side.labels[side.labelled]
    if view.manifest.target.problem == "regression":
        return labels
    return np.array(view.manifest.target.classes, dtype=object)[labels.astype(np.int64)]
