"""What could be reached now: the champion averaged with a quick boosted model of the newest labelled rows, on the same
window.

A champion's metric moves with the luck of the days: some weeks are hard for any model. What newer rows would add moves
with them, so the difference shows ageing far sooner than the level does, and does not show a hard week. The mixture is
what counts, not the boosted model alone: which of two kinds of model is the stronger changes from week to week, while
two that learnt from the same rows add little to one another.

What little they do add is known: `headroom` in the manifest, measured on the champion's test rows with a boosted model
of its own age. It is taken off, so that only what is new counts.

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
from registry.metrics import BLOCKS, LEAST_IN_BLOCK
from registry.yardstick import Yardstick

LEAST_ROWS = 2_000
"""Fewest labelled rows that make a yardstick."""

VALIDATION = 0.1
_Z = 1.96


class Attainable(Measure):
    """The metric of the champion averaged with a fresh boosted model on the window, less the usual headroom.

    `reference` is the champion's realised metric on the same rows; `error` is the standard error of the difference
    between the two; `reference_error` is that of the headroom.
    """

    name: ClassVar[str] = "attainable"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, without a value where there are too few labels before the window or in it."""
        metric, side, headroom = task_metric(view), view.window, view.manifest.headroom
        rows = int(side.labelled.sum())
        if headroom is None:
            return [Measurement(name=self.name, note="the model's card has no boosted reference")]
        if view.fresh is None or rows < BLOCKS * LEAST_IN_BLOCK:
            return [Measurement(name=self.name, note="too few labelled rows before the window, or in it")]
        labels, mine = side.known[0], side.known[1].scores
        mixed = (mine + view.fresh.model.scores(side.inputs[side.own][side.labelled])) / 2
        usual = max(0.0, headroom.value)  # a boosted model that only spoilt the champion's is not held in its favour
        value = metric.value(labels, mixed) - (usual if metric.greater_is_better else -usual)
        error = metric.paired_error(labels, mine, mixed)
        return [
            Measurement(
                name=self.name,
                value=value,
                low=value - _Z * error,
                high=value + _Z * error,
                reference=metric.value(labels, mine),
                reference_error=headroom.error,
                error=error,
                rows=rows,
                note=f"averaged with a model boosted on {view.fresh.rows:,} newer rows; usual headroom {usual:.3g}",
            )
        ]


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
