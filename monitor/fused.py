"""The metric on all rows of a window, from the outputs of all and the labels that have arrived so far.

Labels arrive late, and not at random: a claim that was paid comes sooner than one that is argued about. So the metric
on the labels that are there, M, is not the metric on all rows. With V the metric that outputs lead one to expect,
prediction-powered inference (Angelopoulos et al. 2023, arXiv 2301.09633; the augmented inverse propensity weighting of
Robins, Rotnitzky & Zhao 1994) gives

    fused = M_w(labelled rows) + lambda (V(all rows) - V_w(labelled rows))

w_i = 1 / pi_i, where pi_i is the share of labels that have arrived among rows of a like score and a like time in the
window (`propensity`). lambda = cov(m, v) / var(v), cut to 0 .. 1, over the rows' influences on M and V, makes the error
least (power tuning, Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453): outputs that say nothing count for nothing.
With u = m - lambda v and n rows in all, the error about the realised metric of all these rows is

    error^2 = sum over the labelled of (1 - pi_i) (u_i / pi_i)^2 / n^2    times what rows share with their neighbours

which is 0 once all labels are there: then the value is the realised metric itself. With too few it is the estimate.

With few labels this value F, error f, is far less sure than the estimate E of `estimated.py`, error e, which asks for
more: that inputs and labels are related as they were. If so, their errors about the realised metric are uncorrelated:
for lambda = 1 and a share s of labels, E has the noise of all rows, F that of the labelled ones times (1 - s) / s, less
that of the others. Weights by precision, w = e^2 / (e^2 + f^2) for F, make the best of both: the labels that are there,
the estimate for the others, never less sure than the surer one. Where F and E are further apart than 95 % allows, the
relation has moved: what lies beyond is variance of E (as DerSimonian & Laird 1986 take it), and F counts. About the
metric in the long run the value varies like the realised one, and by w^2 (f^2 + e^2) - e^2 more.

It holds if arrival is as good as random among rows of a like score and time. What it cannot mend: arrival that depends
on the label itself, or on anything that scores and time do not tell, among such rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from monitor.estimated import Expected, estimate_of, expected, expected_of, experience_of
from monitor.measurements import Measurement
from monitor.performance import Null, null_of, realised_of, task_metric
from monitor.views import Measure, Side, View
from registry.metrics import Array, Metric, error_of_mean
from registry.scoring import Scores

LEAST_LABELS = 20
"""Fewest labels that are weighed against the estimate."""

SCORES, TIMES = 10, 4
"""Most strata of the score, and of the time within each."""

LEAST_IN_STRATUM = 30
"""Labels that a stratum should hold on average: with fewer labels there are fewer strata."""

PRIOR = 2.0
"""As how many labels of a stratum the share in the coarser one counts."""

LEAST_SHARE = 0.05
"""Least propensity, as a share of the mean one: no row counts for more than twenty."""

MOST_REPEATED = 50_000

_APART = 1.96**2
"""Squared standard errors up to which labels do not contradict the estimate."""


@dataclass(frozen=True)
class Fusion:
    """The fused value, its standard error about the realised metric of all rows, and lambda."""

    value: float
    error: float
    power: float


@dataclass(frozen=True)
class Combined:
    """Fused value and estimate as one: the value, its error about the realised metric of all rows, and the variance
    that it has in the long run beyond the realised metric's own."""

    value: float
    error: float
    beyond: float


class Fused(Measure):
    """The task's metric on all rows that the champion answered, from all outputs and the labels that are there.

    `error`, `low` and `high` are about the realised metric of these very rows once all labels have come, and
    `null_error` is how much the value varies from window to window while nothing has changed. `rows` are all rows;
    `reference` is the realised metric on the reference's labelled rows.
    """

    name: ClassVar[str] = "fused"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        metric, side = task_metric(view), view.window
        labels, rows = int(side.labelled.sum()), len(side.scores)
        came = realised_of(view, metric)[0] if labels == rows > 1 else None
        found = fuse(metric, side, expected_of(view, metric) if rows else None, came)
        null = null_of(view, metric, rows)
        if found is None:
            alone = estimate_of(view)
            return [_renamed(alone, self.name, null, f"{labels} labels are too few: {alone.note}")]
        known, (least, most) = experience_of(view, metric), metric.bounds
        best = combined(found, estimate_of(view) if known.bias is not None else None)
        half = float(stdtrit(labels - 1, 0.975)) * best.error
        return [
            Measurement(
                name=self.name,
                value=best.value if best.error == 0 else min(max(best.value, least), most),
                low=min(max(best.value - half, least), most),
                high=min(max(best.value + half, least), most),
                reference=known.realised,
                reference_error=known.realised_error,
                error=best.error,
                null_error=math.sqrt(null.error**2 + max(0.0, best.beyond)),
                freedom=null.freedom,
                rows=rows,
                note=f"{metric.name}; {labels:,} of {rows:,} labels, outputs count for {found.power:.2f}",
            )
        ]


def _renamed(one: Measurement, name: str, null: Null, note: str) -> Measurement:
    """A measurement under another name; one without a value has no error either."""
    law = {"null_error": null.error, "freedom": null.freedom} if one.value is not None else {}
    return Measurement.model_validate(one.model_dump() | law | {"name": name, "note": note})


def combined(found: Fusion, alone: Measurement | None) -> Combined:
    """The best of a fused value and the estimate, if there is one.

    >>> combined(Fusion(0.8, 0.04, 1.0), Measurement(name="estimated", value=0.75, error=0.02)).error < 0.02
    True
    """
    if alone is None or alone.value is None or alone.error is None or found.error == 0:
        return Combined(found.value, found.error, found.error**2)
    mine, other = found.error**2, alone.error**2
    moved = max(0.0, (found.value - alone.value) ** 2 - _APART * (mine + other))
    weight = (other + moved) / (other + moved + mine)
    value = weight * found.value + (1 - weight) * alone.value
    return Combined(value, math.sqrt(weight * mine), weight**2 * (mine + other) - other)


def fuse(metric: Metric, side: Side, whole: Expected | None = None, realised: float | None = None) -> Fusion | None:
    """The fused metric on a side's own rows; None with too few labels, or where the metric is undefined. `whole`
    is what is expected of all rows, and `realised` what came of them, where somebody knows that already."""
    labels, scores = side.known
    if len(labels) < min(LEAST_LABELS, max(2, len(side.scores))):
        return None
    if len(labels) == len(side.scores):
        realised = metric.value(labels, scores.scores) if realised is None else realised
        return Fusion(realised, 0.0, 0.0) if math.isfinite(realised) else None
    chance = propensity(strata_score(side.scores), side.labelled)[side.labelled]
    again = repeats(1 / chance)
    mine, whole = expected(metric, scores), whole or expected(metric, side.scores)
    came = metric.value(labels[again], scores.scores[again])
    told = expected(metric, scores.take(again)).value
    if not math.isfinite(came + told + whole.value):
        return None
    pulls, weights = metric.influence(labels, scores.scores), 1 / chance / (1 / chance).mean()
    power = tuned(pulls, mine.influence, weights)
    error = _error(pulls - power * mine.influence, weights, chance)
    return Fusion(came + power * (whole.value - told), error, power)


def strata_score(scores: Scores) -> Array:
    """The score (n,) by which arrival may differ: the positive class's probability, the largest one of several, or the
    predicted number."""
    if scores.probabilities is None:
        return scores.scores
    return scores.scores[:, 1] if scores.scores.shape[1] == 2 else scores.scores.max(axis=1)


def propensity(score: Array, labelled: npt.NDArray[np.bool_]) -> Array:
    """The chance (n,) that the label of each of n rows in time order has arrived: the share in its stratum of score and
    time, drawn towards the share in its stratum of score, and that towards the share of all.

    >>> propensity(np.zeros(4), np.array([True, False, True, False])).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    n, share = len(score), float(labelled.mean())
    scores = min(SCORES, max(1, int(labelled.sum()) // LEAST_IN_STRATUM))
    times = min(TIMES, max(1, int(labelled.sum()) // (LEAST_IN_STRATUM * scores)))
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(score, kind="stable")] = np.arange(n)
    by_score = place * scores // n
    by_both = by_score * times + np.arange(n) * times // n
    coarse = _shares(by_score, labelled, np.full(n, share))
    return np.maximum(_shares(by_both, labelled, coarse), LEAST_SHARE * share)


def _shares(strata: npt.NDArray[np.int64], labelled: npt.NDArray[np.bool_], prior: Array) -> Array:
    arrived, rows = np.bincount(strata, weights=labelled), np.bincount(strata)
    counted = PRIOR / prior  # so many rows of the coarser stratum hold PRIOR labels
    return np.asarray((arrived[strata] + PRIOR) / (rows[strata] + counted), dtype=np.float64)


def repeats(weights: Array) -> npt.NDArray[np.int64]:
    """Positions (r,) in which row i of n stands in proportion to its weight, evenly spaced on the scale of the sums
    (systematic sampling): any metric of them is the weighted metric, whatever its form.

    >>> repeats(np.array([1.0, 3.0])).tolist().count(1) / len(repeats(np.array([1.0, 3.0])))
    0.75
    """
    n = len(weights)
    count = max(2 * n, min(16 * n, MOST_REPEATED))
    marks = (np.arange(count) + 0.5) / count * weights.sum()
    return np.asarray(np.minimum(np.searchsorted(weights.cumsum(), marks), n - 1), dtype=np.int64)


def tuned(pulls: Array, expected_pulls: Array, weights: Array) -> float:
    """lambda, from 0 to 1: how much of the realised influences (n,) the expected ones explain."""
    centred = expected_pulls - float((weights * expected_pulls).mean())
    spread = float((weights * centred**2).mean())
    return min(1.0, max(0.0, float((weights * centred * pulls).mean()) / spread)) if spread > 0 else 0.0


def _error(rest: Array, weights: Array, chance: Array) -> float:
    pulls = weights * (rest - float((weights * rest).mean()))
    total = float((pulls**2).sum())
    missing = float(((1 - np.minimum(chance, 1.0)) * pulls**2).sum()) / total if total > 0 else 0.0
    return error_of_mean(pulls) * math.sqrt(missing)
