"""Uncertainty: how sure the model is on average, and whether its conformal promise holds."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from monitor.comparison import SURE
from monitor.dependence import Dependence
from monitor.measurements import Measurement
from monitor.significance import means_differ, share_below, spread_of, wilson
from monitor.views import Measure, Side, View
from registry.metrics import Array

_Z = 1.96


class MeanOutput(Measure):
    """A measure that is the mean of an output over the rows the champion answered."""

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, with the reference's mean beside it."""
        now = spread_of(self.output(view.window))
        before = view.once(f"spread of {self.name}", lambda: spread_of(self.output(view.reference)))
        if not now.rows:
            return [Measurement(name=self.name, note="no rows of this version")]
        enough = now.rows > 1 and before.rows > 1
        error = math.sqrt(now.variance / now.rows) if enough else None
        return [
            Measurement(
                name=self.name,
                value=now.mean,
                error=error,
                low=None if error is None else now.mean - _Z * error,
                high=None if error is None else now.mean + _Z * error,
                reference=before.mean,
                p_value=means_differ(now, before) if enough else None,
                rows=now.rows,
            )
        ]

    @abstractmethod
    def output(self, side: Side) -> Array:
        """The output, (m,)."""


class Uncertainty(MeanOutput):
    """Total uncertainty: predictive entropy in nats, or standard deviation in the target's unit."""

    name: ClassVar[str] = "uncertainty"

    def output(self, side: Side) -> Array:
        """Of each row."""
        return np.asarray(side.scores.uncertainty, dtype=np.float64)


class Disagreement(MeanOutput):
    """The part of the uncertainty that the ensemble's members disagree about."""

    name: ClassVar[str] = "disagreement"

    def output(self, side: Side) -> Array:
        """Of each row."""
        return np.asarray(side.scores.disagreement, dtype=np.float64)


class SetSize(MeanOutput):
    """Classes in the conformal set, or the width of the conformal interval."""

    name: ClassVar[str] = "set_size"

    def output(self, side: Side) -> Array:
        """Of each row."""
        if side.scores.sets is not None:
            sets = side.scores.sets.astype(np.float64)
            return np.asarray(sets @ np.ones(sets.shape[1]), dtype=np.float64)
        interval = np.asarray(side.scores.interval, dtype=np.float64)
        return interval[:, 1] - interval[:, 0]


class Coverage(Measure):
    """Share of labels inside the conformal set or interval, beside what was promised; the interval is Wilson's.

    The p-value is that of so few (binomial) under the promise, or under the reference's own coverage where that is
    lower: what never was kept has not changed. It is lower by SURE standard errors, since all windows share it. Rows
    count for as many independent ones as the reference's are worth.
    """

    name: ClassVar[str] = "coverage"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        promised = view.manifest.task.coverage
        inside, known = covered_now(view), covered_before(view)
        if not len(inside):
            return [Measurement(name=self.name, reference=promised, note="no labels yet")]
        hits, rows = int(inside.sum()), len(inside)
        low, high = wilson(hits, rows)
        effect = effect_on_coverage(view)
        p_value = chance_of_so_few(hits, rows, min(promised, surely_kept(int(known.sum()), len(known), effect)), effect)
        return [
            Measurement(
                name=self.name, value=hits / rows, low=low, high=high, reference=promised, p_value=p_value, rows=rows
            )
        ]


def chance_of_so_few(hits: int, rows: int, kept: float, effect: float) -> float:
    """Of so few hits if each row is one with the probability `kept`: binomial where rows are independent. Where
    `effect` rows are worth one, the normal law of a mean of as many, but never less than independent rows have."""
    alone = share_below(hits, rows, kept)
    if effect == 1 or not 0 < kept < 1:
        return alone
    error = math.sqrt(kept * (1 - kept) * effect / rows)
    return max(alone, float(ndtr((hits / rows - kept) / error)))


def surely_kept(hits: int, rows: int, effect: float) -> float:
    """The coverage that reference rows keep for sure; 1 where none has a label."""
    if not rows:
        return 1.0
    kept = hits / rows
    return max(0.0, kept - SURE * math.sqrt(kept * (1 - kept) * effect / rows))


def effect_on_coverage(view: View) -> float:
    """How many of the window's labels are worth one."""
    known = covered_before(view)
    dependence = view.once(f"dependence of {Coverage.name}", lambda: Dependence(known[:, None]))
    return dependence.over_windows(len(covered_now(view)), stride=view.stride, lasting=True).effect


def covered_now(view: View) -> npt.NDArray[np.bool_]:
    """`covered` of the window, made once."""
    return view.here(Coverage.name, lambda: covered(view.window))


def covered_before(view: View) -> npt.NDArray[np.bool_]:
    """That of the reference."""
    return view.once(Coverage.name, lambda: covered(view.reference))


def covered(side: Side) -> npt.NDArray[np.bool_]:
    """Which of the labels lie inside their set or interval: one flag a labelled row."""
    labels, scores = side.known
    if scores.sets is not None:
        n, k = scores.sets.shape
        return np.asarray(scores.sets.ravel().take(np.arange(n) * k + labels.astype(np.int64)), dtype=np.bool_)
    low, high = np.asarray(scores.interval, dtype=np.float64).T
    inside: npt.NDArray[np.bool_] = (low <= labels) & (labels <= high)
    return inside
