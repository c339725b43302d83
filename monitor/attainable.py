"""What could be reached now: a quick boosted model, fitted to the newest labelled rows, on the same window.

A champion's metric moves with the luck of the days: some weeks are hard for any model. What a retrained model would
have reached on the very same rows moves with them, so the difference shows ageing far sooner than the level does, and
does not show a hard week. The champion's usual lead over a boosted model of its own age, known from its test rows, is
added: a boosted model that is simply stronger, or weaker, on these data is no sign of age.

It leaks nothing: the yardstick sees only rows before the window whose labels had arrived when the window began. One is
fitted a pass, for the oldest window of it: a pass that catches up on many windows stays cheap, at the price of a
yardstick that is somewhat old for the newest of them.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from monitor.measurements import Measurement
from monitor.performance import task_metric
from monitor.views import Fresh, Measure, Side, View
from registry.bundle import Manifest
from registry.metrics import Array, Labels, Metric
from registry.yardstick import Yardstick

LEAST_ROWS = 2_000
"""Fewest labelled rows that make a yardstick."""

VALIDATION = 0.1
BLOCKS = 20
_Z = 1.96


class Attainable(Measure):
    """The metric that a fresh boosted model reaches on the window, plus the champion's lead over one of its own age.

    `reference` is the champion's realised metric on the same rows; `error` is the standard error of the difference
    between the two, rows in 20 consecutive blocks depending on one another (Liang & Zeger 1986); `reference_error` is
    that of the lead.
    """

    name: ClassVar[str] = "attainable"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, without a value where there are too few labels before the window or in it."""
        metric, side = task_metric(view), view.window
        rows = int(side.labelled.sum())
        if (lead := _lead(view, metric)) is None:
            return [Measurement(name=self.name, note="the model's card has no boosted reference")]
        if view.fresh is None or rows < BLOCKS:
            return [Measurement(name=self.name, note="too few labelled rows before the window, or in it")]
        labels, mine = side.labels[side.labelled], side.scores.take(side.labelled).scores
        fresh = view.fresh.model.scores(side.inputs[side.own][side.labelled])
        value, own = metric.value(labels, fresh), metric.value(labels, mine)
        value += lead if metric.greater_is_better else -lead
        error = paired_error(metric, labels, mine, fresh)
        return [
            Measurement(
                name=self.name,
                value=value,
                low=value - _Z * error,
                high=value + _Z * error,
                reference=own,
                reference_error=view.manifest.reference.error,
                error=error,
                rows=rows,
                note=f"boosted on {view.fresh.rows:,} newer rows; usual lead {lead:+.3g}",
            )
        ]


def paired_error(metric: Metric, labels: Labels, scores: Array, others: Array) -> float:
    """Standard error of the difference in a metric between two models on the same n rows, in time order."""
    each = metric.influence(labels, scores) - metric.influence(labels, others)
    sums = np.array([block.sum() for block in np.array_split(each, min(BLOCKS, len(each)))])
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(each))


def _lead(view: View, metric: Metric) -> float | None:
    """By how much the champion was better than a boosted model on its own test rows."""
    found = [view.manifest.metrics.get(name, {}).get(metric.name) for name in ("champion", "boosted")]
    return None if found[0] is None or found[1] is None else metric.gain(found[0], found[1])


def fit_fresh(past: Side, manifest: Manifest) -> Fresh | None:
    """The yardstick of labelled rows in time order, the newest tenth of which stops it early; None on too few."""
    rows, labels = past.inputs[past.labelled], past.labels[past.labelled]
    cut = len(rows) - round(VALIDATION * len(rows))
    several = manifest.target.problem == "regression" or len(np.unique(labels[:cut])) > 1
    if len(rows) < LEAST_ROWS or not several:
        return None
    model = Yardstick.fit(
        rows.iloc[:cut],
        labels[:cut],
        rows.iloc[cut:],
        labels[cut:],
        schema=manifest.data_schema,
        target=manifest.target,
    )
    return Fresh(model, len(rows))
