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

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from monitor.binned import counts_of, distance_of_column, known_column
from monitor.distribution import Distance, Distribution, distribution_of
from monitor.measurements import Measurement
from monitor.performance import known_influence, task_metric
from monitor.values import Codes, Names, Numbers, Values, names_of
from monitor.views import Measure, Side, View
from registry.metrics import Array, Metric
from registry.schema import Column
from registry.watched import SeenColumn


def moved(
    view: View,
    name: str,
    subject: str | None,
    counts: Codes,
    known: Distribution,
    distance: Distance | None,
    *,
    priced: bool = False,
) -> Measurement:
    """Shift of a window's values, counted by bin, that are so far from the reference's; with `priced`, and its cost."""
    by_bin = tuple(counts.tolist())
    rows = sum(by_bin)
    if distance is None:
        return Measurement(name=name, subject=subject, rows=rows, note="no values to compare")
    shares = counts / rows
    cost, error = _cost(view, str(subject), known, shares) if priced else (None, None)
    return Measurement(
        name=name,
        subject=subject,
        value=distance.value,
        p_value=distance.p_value,
        counts=by_bin,
        cost=cost,
        cost_error=error,
        rows=rows,
        note=_note(known, counts, shares),
    )


def _note(known: Distribution, counts: Codes, now: Array) -> str:
    if known.names is None:
        return f"median {_between(*known.usual_middle)} -> {_between(*known.middle(counts))}"
    before = known.counts / known.total
    most = int(np.abs(now - before).argmax())
    name = known.names[most] if most < len(known.names) else "others"
    return f"{name!s:.40}: {100 * before[most]:.3g} % -> {100 * now[most]:.3g} %"


def _between(low: float, high: float) -> str:
    """The inside of a bin, in words."""
    if not np.isfinite(low):
        return f"up to {high:.4g}"
    return f"above {low:.4g}" if not np.isfinite(high) else f"{(low + high) / 2:.4g}"


def _cost(view: View, name: str, known: Distribution, shares: Array) -> tuple[float | None, float | None]:
    """By how much the metric is worse for reference rows weighted as the window is, whose shares by bin are given, and
    the standard error of that."""
    metric = task_metric(view)
    pulls = view.once(f"influence on {metric.name} by bin of {name}", lambda: _by_bin(view, metric, known))
    if pulls is None:
        return None, None
    more = shares / pulls.shares - 1
    cost, error = metric.gain(0, 1) * float(more @ pulls.sums), math.sqrt(float(more**2 @ pulls.squares))
    return cost / pulls.rows, error / pulls.rows


@dataclass(frozen=True)
class _Pulls:
    """The influences of labelled reference rows: how many have one, and by bin of a column their sums and sums of
    squares; and the bins' shares of all rows, endless where there are none, so that nothing weighs in them."""

    rows: int
    shares: Array
    sums: Array
    squares: Array


def _by_bin(view: View, metric: Metric, known: Distribution) -> _Pulls | None:
    """None where no labelled row has a value."""
    pulls, labelled = view.once(f"influence on {metric.name}", lambda: known_influence(view, metric))
    codes = known.codes[labelled]
    there = codes >= 0
    if not there.any():
        return None
    sums, squares = (
        np.asarray(np.bincount(codes[there], each[there], known.size), dtype=np.float64) for each in (pulls, pulls**2)
    )
    shares = np.where(known.counts > 0, known.counts / known.counts.sum(), np.inf)
    return _Pulls(len(pulls), shares, sums, squares)


class ColumnShift(Measure):
    """Shift of each column."""

    name: ClassVar[str] = "shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column; without a value, and with the reason, where there is nothing to compare."""
        return [self._of(view, column) for column in view.manifest.data_schema.columns]

    def _of(self, view: View, column: Column) -> Measurement:
        time, name = view.manifest.task.time, column.name
        if column.kind != "datetime":
            counts, distance = counts_of(view, name), distance_of_column(view, name)
            found = moved(view, self.name, name, counts, known_column(view, name), distance, priced=True)
            if not isinstance(column, SeenColumn):
                return found
            seen = f"number {column.place} of what the model sees of {column.image}"
            return found.model_copy(update={"note": f"{seen}: {found.note}"})
        if time is None or name == time or time not in view.window.columns:
            return Measurement(name=self.name, subject=name, note="left out: time always moves on")
        known = view.once(f"lag of {name}", lambda: distribution_of(_lag(view.reference, name, time)))
        counts = known.count(_lag(view.window, name, time))
        distance = known.distance(counts, doubt=view.doubt, stride=view.stride)
        return moved(view, self.name, name, counts, known, distance, priced=True)


def _lag(side: Side, name: str, time: str) -> Numbers:
    """How many seconds a moment lies before the row's event time."""
    moment, event = side.column(name), side.column(time)
    if not isinstance(moment, Numbers) or not isinstance(event, Numbers):
        raise TypeError(f"columns {name!r} and {time!r} hold no moments")
    return Numbers(event.array - moment.array)


class OutputMeasure(Measure):
    """Shift of something else than a column."""

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        known, counts = self.known(view), self.count(view)
        distance = known.distance(counts, doubt=view.doubt, stride=view.stride)
        return [moved(view, self.name, None, counts, known, distance)]

    def known(self, view: View) -> Distribution:
        """What the reference has of it."""
        return view.once(self.name, lambda: distribution_of(self.values(view, view.reference)))

    def count(self, view: View) -> Codes:
        """Rows of the window by bin."""
        return self.known(view).count(self.values(view, view.window))

    @abstractmethod
    def values(self, view: View, side: Side) -> Values:
        """What is compared, of one side."""


class PredictionShift(OutputMeasure):
    """Shift of what the model answers: the number, the probability of the positive class, or the class."""

    name: ClassVar[str] = "prediction_shift"

    def count(self, view: View) -> Codes:
        """Of what segments ask for too."""
        return np.bincount(self.places(view) + 1, minlength=self.known(view).size + 1)[1:]

    def places(self, view: View) -> Codes:
        """In which bin each of the window's answers lies, -1 where missing; made once."""
        return view.here(self.name, lambda: self.known(view).code(self.values(view, view.window)))

    def values(self, view: View, side: Side) -> Values:
        """The answers."""
        if view.manifest.target.problem == "multiclass":
            return names_of(np.asarray(side.scores.prediction, dtype=object))
        scores = side.scores.scores
        return Numbers(scores if scores.ndim == 1 else scores[:, -1])


class UncertaintyShift(OutputMeasure):
    """Shift of the model's own uncertainty."""

    name: ClassVar[str] = "uncertainty_shift"

    def values(self, view: View, side: Side) -> Values:
        """The uncertainties."""
        return Numbers(np.asarray(side.scores.uncertainty, dtype=np.float64))


class LabelShift(OutputMeasure):
    """Shift of the labels that have arrived."""

    name: ClassVar[str] = "label_shift"

    def values(self, view: View, side: Side) -> Values:
        """The labels."""
        labels, target = side.known[0], view.manifest.target
        if target.problem == "regression":
            return Numbers(np.asarray(labels, dtype=np.float64))
        return Names(labels.astype(np.int64), view.once("classes", lambda: pd.Index(target.classes, dtype=object)))
