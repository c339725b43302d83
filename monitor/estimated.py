"""Estimated performance: the task's metric on a window whose labels have not arrived, from the champion's own answers.

If the answers are calibrated, they say what the metric will be (confidence-based performance estimation, CBPE: Kivimaki
et al. 2024, arXiv 2407.08649). With labels drawn from the served probabilities p (n, k),

    accuracy         mean of the largest p
    log loss, Brier  mean over the rows of sum_k p_k loss_k, loss_k being the loss if the label is k
    AUC              sum_{i != j} p_i (1 - p_j) ([p_i > p_j] + [p_i = p_j] / 2) / sum_{i != j} p_i (1 - p_j)

with p_i that of the positive class; with more than two classes the unweighted mean of one class against the rest. With
labels normal about the prediction m, and the served uncertainty s as their standard deviation,

    RMSE   sqrt(mean s^2)
    MAE    sqrt(2 / pi) mean s
    R2     1 - mean s^2 / (variance of m + (1 - 1/n) mean s^2)

No model is calibrated quite: how far this is off is known from the labelled reference rows that came with the model,
and taken off, as weighs for the kind of rows that the window has (`weighted.py`). What it cannot see is concept drift,
a relation of inputs to labels that has changed: the champion then is as sure as it was, and wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitor.dependence import unsure
from monitor.measurements import Measurement
from monitor.performance import task_metric
from monitor.views import Measure, Side, View
from monitor.weighted import Correction, Learnt, correct, learn
from registry.metrics import BLOCKS, LEAST_IN_BLOCK, Array, Metric, error_of_mean, runs, sorting
from registry.scoring import Scores

LEAST_LABELS = BLOCKS * LEAST_IN_BLOCK
"""Fewest labelled reference rows from which a bias is taken off."""

_Z = 1.96


@dataclass(frozen=True)
class Expected:
    """A metric on n rows as their outputs lead one to expect it.

    `influence` (n,) is how far each row pulls `value`, with mean 0, as `Metric.influence` is for labels that are known.
    `noise` is the standard deviation of the realised metric about `value`, for these very rows, if their labels are
    independent given the outputs.
    """

    value: float
    influence: Array
    noise: float


def expected(metric: Metric, scores: Scores) -> Expected:
    """The metric expected on n > 0 rows; its value is NaN where it is undefined (AUC or R2 of one row)."""
    if scores.probabilities is None:
        value, pulls, variances = _NUMBERS[metric.name](scores.scores, np.asarray(scores.uncertainty, dtype=np.float64))
    else:
        p = np.ascontiguousarray(scores.scores.T)  # classes are few and rows are many
        value, by_label = _auc(scores.scores) if metric.name == "auc" else _mean_loss(metric, scores.scores)
        pulls = (p * by_label).sum(axis=0)
        apart = by_label - pulls
        apart *= apart
        apart *= p
        variances = apart
    return Expected(value, pulls - pulls.mean(), math.sqrt(float(variances.sum())) / len(pulls))


def _mean_loss(metric: Metric, p: Array) -> tuple[float, Array]:
    """A metric that is a mean over rows: its expectation, and what each row contributes under each label, (k, n)."""
    n, k = p.shape
    by_label = np.stack([metric.per_row(np.full(n, label), p) for label in range(k)])
    return float(np.vdot(p.T, by_label)) / n, by_label


def _auc(p: Array) -> tuple[float, Array]:
    """Expected AUC of (n, k) probabilities, and how far each row pulls it under each label, (k, n)."""
    if p.shape[1] == 2:
        value, pulls = binary_auc(p[:, 1])
        return value, pulls.T
    each = [(k, *binary_auc(p[:, k])) for k in range(p.shape[1])]
    known = [one for one in each if not math.isnan(one[1])]
    if not known:
        return math.nan, np.full(p.shape[::-1], math.nan)
    by_label = np.zeros(p.shape[::-1])
    for k, _, pulls in known:
        by_label += pulls[:, 0]
        by_label[k] += pulls[:, 1] - pulls[:, 0]
    return float(np.mean([value for _, value, _ in known])), by_label / len(known)


def binary_auc(positive: Array) -> tuple[float, Array]:
    """Expected numerator over expected denominator of the AUC of (n,) probabilities of the positive class, and how far
    each row pulls it as a negative and as a positive, (n, 2); NaN where no pair can be formed. O(n log n).

    >>> binary_auc(np.array([0.0, 0.5, 1.0]))[0]
    1.0
    """
    n, weights = len(positive), np.array([1 - positive, positive])
    others = weights.sum(axis=1)[:, None] - weights  # (2, n): negatives and positives expected among the other rows
    pairs = float(positive @ others[0])
    if not pairs > 0:
        return math.nan, np.full((n, 2), math.nan)
    won = _weight_below(positive, weights)[::-1]  # pairs in the right order, were the row of that class
    won -= weights[::-1] / 2
    np.subtract(others[1], won[0], out=won[0])
    value = float(positive @ won[1]) / pairs
    won -= value * others[::-1]
    won *= n / pairs
    return value, won.T


def _weight_below(scores: Array, weights: Array) -> Array:
    """For each of (n,) scores the weight (w, n) of the rows with a lower one, and half of that with the same."""
    order = sorting(scores)
    starts, ends = runs(scores.take(order))
    out = np.empty_like(weights)
    for each, weight in zip(out, weights, strict=True):
        ordered = weight.take(order)
        tied = ordered if len(starts) == len(scores) else np.add.reduceat(ordered, starts)
        below = tied.cumsum() - tied / 2
        each[order] = below if len(starts) == len(scores) else np.repeat(below, ends - starts)
    return out


_Normal = tuple[float, Array, Array]
"""A metric's expected value, and of each row its pull (n,) and the variance of that over the label, (n,)."""


def _rmse(answers: Array, spread: Array) -> _Normal:
    squares = spread**2
    value = float(np.sqrt(squares.mean()))
    slope = 1 / (2 * max(value, 1e-12))
    return value, slope * squares, 2 * (slope * squares) ** 2


def _mae(answers: Array, spread: Array) -> _Normal:
    share = 2 / math.pi
    return float(spread.mean()) * math.sqrt(share), spread * math.sqrt(share), (1 - share) * spread**2


def _r2(answers: Array, spread: Array) -> _Normal:
    n, squares, offsets = len(answers), spread**2, answers - answers.mean()
    unexplained = float(squares.mean())
    total = float((offsets**2).mean()) + (1 - 1 / n) * unexplained
    if not total > 1e-24 * float((answers**2).mean()):  # answers that are all the same, up to rounding
        return math.nan, np.full(n, math.nan), np.full(n, math.nan)
    share = unexplained / total
    pulls = (share * (offsets**2 + squares) - squares) / total
    variances = 2 * ((1 - share) * squares) ** 2 + 4 * (share * offsets * spread) ** 2
    return 1 - share, pulls, variances / total**2


_NUMBERS: Mapping[str, Callable[[Array, Array], _Normal]] = {"rmse": _rmse, "mae": _mae, "r2": _r2}


@dataclass(frozen=True)
class Experience:
    """What `rows` labelled reference rows say: the realised metric and its standard error; the bias of the estimate,
    its standard error; and `dispersion`, how many times the calibrated noise the labels' noise on a window is, known
    with so many degrees of `freedom`. With fewer than `LEAST_LABELS` labels, or where the metric is undefined, `bias`
    is None."""

    rows: int
    realised: float = math.nan
    realised_error: float = math.nan
    bias: float | None = None
    bias_error: float = 0.0
    dispersion: float = 1.0
    freedom: float = math.inf


def experience(metric: Metric, side: Side, *, served: int) -> Experience:
    """The estimate held against the labels of the reference, of which `served` rows were drawn.

    Rows of one day share their luck, so errors are over blocks in time order (`error_of_mean`), and the labels' noise
    on a window is as many times that of independent calibrated labels as it is here. The luck that is shared, the
    excess over independent rows, weighs more the more rows share it: a reference that holds one of r rows of its time
    shows an r-th of it. Few blocks tell it badly, and a bad week may be in none of them: it is taken to be as large as
    it is with a probability of 10 % only (chi-squared), and Student's law that of few blocks, as in `dependence.py`.
    """
    labels, scores = side.known
    if (n := len(labels)) < 2:
        return Experience(n)
    value, error = metric.value(labels, scores.scores), metric.standard_error(labels, scores.scores)
    found = expected(metric, scores)
    if n < LEAST_LABELS or not math.isfinite(value + found.value):
        return Experience(n, value, error)
    gaps = found.influence - metric.influence(labels, scores.scores)
    bias_error, alone = error_of_mean(gaps), float(gaps.std(ddof=1)) / math.sqrt(n)
    shared = max(1.0, served / len(side)) * max(0.0, bias_error**2 - alone**2) * unsure(BLOCKS)
    dispersion = math.sqrt(alone**2 + shared) / found.noise if found.noise > 0 else 1.0
    freedom = (BLOCKS - 1) * (1 + alone**2 / shared) ** 2 if shared > 0 else math.inf
    return Experience(n, value, error, found.value - value, bias_error, dispersion, freedom)


def experience_of(view: View, metric: Metric) -> Experience:
    """The experience of a view's reference, made once."""
    served = view.manifest.reference.rows
    return view.once(f"experience of {metric.name}", lambda: experience(metric, view.reference, served=served))


class Estimated(Measure):
    """The task's metric as it is expected on all rows that the champion answered, without their labels.

    The value is the estimate from the outputs less its bias on the reference. `error` is the standard deviation of the
    realised metric about the value, once all labels have arrived, while inputs and labels are related as they were:
    from the noise of the labels given the outputs and from the error of the bias. The choice of the rows is not in it,
    since both figures are of the same rows. `low` and `high` allow for a relation that moves, too: what is taken off
    beyond its error has moved, or was never right, between the rows that the model was fitted to and the reference,
    one step of a random walk, and the window is taken to lie one such step further. `reference` is the
    realised metric on the reference's labelled rows. All are cut to the range of the metric.
    """

    name: ClassVar[str] = "estimated"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, without a value where the champion answered no row or the metric is undefined."""
        return [estimate_of(view)]


def estimate_of(view: View) -> Measurement:
    """The measurement `estimated` of a view, made once."""
    return view.here(Estimated.name, lambda: _estimate(view))


def expected_of(view: View, metric: Metric) -> Expected:
    """What is expected of all rows that the champion answered, made once."""
    return view.here(f"expected {metric.name}", lambda: expected(metric, view.window.scores))


def _estimate(view: View) -> Measurement:
    metric, scores = task_metric(view), view.window.scores
    rows = len(scores)
    if not rows:
        return Measurement(name=Estimated.name, note="no rows of this version")
    found = expected_of(view, metric)
    if not math.isfinite(found.value):
        return Measurement(name=Estimated.name, rows=rows, note=f"{metric.name} is undefined on {rows} rows")
    known = experience_of(view, metric)
    added = _correction(view, metric, known)
    value = found.value + added.value
    error = math.hypot(known.dispersion * found.noise, added.error)
    half = _Z * math.hypot(error, max(0.0, abs(added.value) - _Z * added.error))
    low, middle, high = np.clip([value - half, value, value + half], *metric.bounds)
    return Measurement(
        name=Estimated.name,
        value=float(middle),
        low=float(low),
        high=float(high),
        reference=known.realised,
        reference_error=known.realised_error,
        error=error,
        rows=rows,
        note=_note(metric, known, added),
    )


def _correction(view: View, metric: Metric, known: Experience) -> Correction:
    """What the reference's labels add to the expectation for this window's rows."""
    if known.bias is None:
        return Correction(0.0, known.bias_error, 0.0)
    return correct(view, view.once(f"corrections of {metric.name}", lambda: _learnt(view, metric)))


def _learnt(view: View, metric: Metric) -> Learnt:
    side = view.reference
    rows, (labels, scores) = np.flatnonzero(side.labelled), side.known
    found = expected(metric, scores)
    pulls = metric.influence(labels, scores.scores) - found.influence
    return learn(view, rows, pulls + (metric.value(labels, scores.scores) - found.value))


def _note(metric: Metric, known: Experience, added: Correction) -> str:
    if known.bias is None:
        return f"{metric.name}; no bias is taken off: {known.rows} labels on the reference do not show it"
    said = f"{metric.name}; its bias of {-added.value:+.3g} on {known.rows:,} reference labels is taken off"
    return said if added.effective > 0.99 else f"{said}, an effective {added.effective:.0%} of them like these rows"
