"""The metrics a task can name: one tuple, names derived, each with its direction and its standard error.

Shapes: `labels` is (n,) of class indices (int) or real values; `scores` is (n, k) of probabilities for
classification, (n,) of predicted values for regression. Errors: `ValueError` on empty input; NaN where a metric is
undefined on the sample (AUC with one class).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from registry.task import Problem

Array: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]

_TINY = 1e-7

BLOCKS = 20
"""Consecutive runs of rows that count as independent of one another."""
LEAST_IN_BLOCK = 5


def mid_ranks(values: Array) -> Array:
    """Ranks of (n,) values from 1 to n, equal values sharing the mean of their ranks.

    >>> mid_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(ordered))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def binary_auc(labels: Labels, positive: Array) -> float:
    """Area under the ROC curve by ranks, ties at half (Hanley & McNeil 1982). `positive`: (n,) scores of class 1."""
    ones = labels == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    return float((mid_ranks(positive)[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def auc(labels: Labels, scores: Array) -> float:
    """ROC AUC; with more than two classes the unweighted mean of one class against the rest, over classes present."""
    if scores.shape[1] == 2:
        return binary_auc(labels, scores[:, 1])
    each = [binary_auc((labels == k).astype(np.int64), scores[:, k]) for k in range(scores.shape[1])]
    known = [value for value in each if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def log_loss(labels: Labels, scores: Array) -> float:
    """Mean negative log-likelihood, probabilities clipped to 1e-7."""
    return float(_log_losses(labels, scores).mean())


def accuracy(labels: Labels, scores: Array) -> float:
    """Share of rows whose most probable class is the label."""
    return float(_hits(labels, scores).mean())


def brier(labels: Labels, scores: Array) -> float:
    """Mean squared distance between probabilities and the one-hot label (Brier 1950), summed over classes."""
    return float(_brier_losses(labels, scores).mean())


def rmse(labels: Labels, scores: Array) -> float:
    """Root mean squared error, in the target's unit."""
    return float(np.sqrt(np.mean((labels - scores) ** 2)))


def mae(labels: Labels, scores: Array) -> float:
    """Mean absolute error, in the target's unit."""
    return float(_absolutes(labels, scores).mean())


def r2(labels: Labels, scores: Array) -> float:
    """Coefficient of determination; NaN when the labels do not vary."""
    total = float(((labels - labels.mean()) ** 2).sum())
    return 1 - float(((labels - scores) ** 2).sum()) / total if total > 0 else float("nan")


def _log_losses(labels: Labels, scores: Array) -> Array:
    picked = scores[np.arange(len(labels)), labels.astype(np.int64)]
    return np.asarray(-np.log(np.clip(picked, _TINY, 1.0)), dtype=np.float64)


def _absolutes(labels: Labels, scores: Array) -> Array:
    return np.asarray(np.abs(labels - scores), dtype=np.float64)


def _hits(labels: Labels, scores: Array) -> Array:
    return np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64)


def _brier_losses(labels: Labels, scores: Array) -> Array:
    gaps = scores - np.eye(scores.shape[1])[labels.astype(np.int64)]
    return np.asarray((gaps**2).sum(axis=1), dtype=np.float64)


def _binary_auc_influence(labels: Labels, positive: Array) -> Array:
    """DeLong's structural components (DeLong et al. 1988, by mid-ranks as in Sun & Xu 2014), one a row, centred and
    divided by the share of the row's class. NaN everywhere with one class only."""
    ones = labels == 1
    n, n1 = len(labels), int(ones.sum())
    if n1 in (0, n):
        return np.full(n, np.nan)
    ranks, out = mid_ranks(positive), np.empty(n)
    above = (ranks[ones] - mid_ranks(positive[ones])) / (n - n1)
    below = 1 - (ranks[~ones] - mid_ranks(positive[~ones])) / n1
    out[ones] = (above - above.mean()) * n / n1
    out[~ones] = (below - below.mean()) * n / (n - n1)
    return out


def _auc_influence(labels: Labels, scores: Array) -> Array:
    if scores.shape[1] == 2:
        return _binary_auc_influence(labels, scores[:, 1])
    present = [k for k in range(scores.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    if not present:
        return np.full(len(labels), np.nan)
    each = [_binary_auc_influence((labels == k).astype(np.int64), scores[:, k]) for k in present]
    return np.asarray(np.mean(each, axis=0), dtype=np.float64)


def _rmse_influence(labels: Labels, scores: Array) -> Array:
    squares = (labels - scores) ** 2
    return np.asarray(squares / (2 * max(float(np.sqrt(squares.mean())), _TINY)), dtype=np.float64)


def _r2_influence(labels: Labels, scores: Array) -> Array:
    squares, spread = (labels - scores) ** 2, (labels - labels.mean()) ** 2
    if (variance := float(spread.mean())) == 0:
        return np.full(len(labels), np.nan)
    return np.asarray((float(squares.mean()) / variance * spread - squares) / variance, dtype=np.float64)


def _weighted_mean(per_row: Callable[[Labels, Array], Array]) -> Callable[[Labels, Array, Array], Array]:
    def weighted(labels: Labels, scores: Array, weights: Array) -> Array:
        return np.asarray(weights @ per_row(labels, scores) / weights.sum(axis=1), dtype=np.float64)

    return weighted


def _ratio(above: Array, below: Array) -> Array:
    """Quotients (d,), NaN where divided by 0."""
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0), dtype=np.float64)


def _weighted_binary_auc(labels: Labels, positive: Array, weights: Array) -> Array:
    """One sort for all d weightings: of each run of equal scores, its positives against the negatives below it and
    half of those in it. NaN where a class has no weight."""
    order = np.argsort(positive, kind="stable")
    ordered, ones = positive[order], labels[order] == 1
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    up = np.add.reduceat(weights[:, order] * ones, starts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~ones, starts, axis=1)
    pairs = up.sum(axis=1) * down.sum(axis=1)
    concordant = (up * (down.cumsum(axis=1) - down / 2)).sum(axis=1)
    return _ratio(concordant, pairs)


def _weighted_auc(labels: Labels, scores: Array, weights: Array) -> Array:
    if scores.shape[1] == 2:
        return _weighted_binary_auc(labels, scores[:, 1], weights)
    each = [_weighted_binary_auc((labels == k).astype(np.int64), scores[:, k], weights) for k in range(scores.shape[1])]
    known = np.isfinite(each)
    return _ratio(np.where(known, each, 0).sum(axis=0), known.sum(axis=0))


def _weighted_rmse(labels: Labels, scores: Array, weights: Array) -> Array:
    return np.asarray(np.sqrt(weights @ (labels - scores) ** 2 / weights.sum(axis=1)), dtype=np.float64)


def _weighted_r2(labels: Labels, scores: Array, weights: Array) -> Array:
    y = labels - labels.mean()  # the sums below lose less to rounding around 0
    count = weights.sum(axis=1)
    total = weights @ y**2 - (weights @ y) ** 2 / count
    rest = weights @ (labels - scores) ** 2
    return np.asarray(1 - _ratio(rest, total), dtype=np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric by name: its direction, the problems it fits, and the functions.

    `weighted` gives the metric's values (d,) under d weightings of the rows (d, n) at once: a whole number is how often
    a resample holds a row.
    """

    name: str
    greater_is_better: bool
    problems: tuple[str, ...]
    value: Callable[[Labels, Array], float]
    per_row: Callable[[Labels, Array], Array]
    weighted: Callable[[Labels, Array, Array], Array]

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`: positive is better, whatever the direction."""
        return new - old if self.greater_is_better else old - new

    def influence(self, labels: Labels, scores: Array) -> Array:
        """How far each row pulls the metric away from its value, (n,) with mean 0 (Hampel 1974): the metric less its
        true value is close to the mean of these. Exact for means, DeLong's components for AUC (unweighted over the
        classes present), the delta method for the rest. NaN where the metric is undefined."""
        rows = self.per_row(labels, scores)
        return np.asarray(rows - rows.mean(), dtype=np.float64)

    def standard_error(self, labels: Labels, scores: Array) -> float:
        """Standard error on rows in time order, from `influence` (the infinitesimal jackknife, Efron 1982); see
        `error_of_mean`. NaN where the metric is undefined or with fewer than two rows."""
        return error_of_mean(self.influence(labels, scores))

    def paired_error(self, labels: Labels, scores: Array, others: Array) -> float:
        """Standard error of the difference in the metric between two models on the same n rows, in time order."""
        return error_of_mean(self.influence(labels, scores) - self.influence(labels, others))


def error_of_mean(values: Array) -> float:
    """Standard error of the mean of (n,) values in time order: the larger of what independent rows would have and what
    `BLOCKS` consecutive blocks have, within which rows may depend on one another (Liang & Zeger 1986).

    One storm delays all flights of a day: an error for independent rows is a third of the true one there. The larger of
    both, since twenty blocks alone may by chance agree too well. Under `BLOCKS * LEAST_IN_BLOCK` rows count as
    independent; fewer than two have no error (NaN).

    >>> error_of_mean(np.array([1.0, 3.0])), error_of_mean(np.repeat([0.0, 1.0], 500)) > 0.1
    (1.0, True)
    """
    n = len(values)
    if n < 2:
        return float("nan")
    alone = float(values.std(ddof=1) / np.sqrt(n))
    if n < BLOCKS * LEAST_IN_BLOCK:
        return alone
    sums = np.array([block.sum() for block in np.array_split(values - values.mean(), BLOCKS)])
    return max(alone, float(np.sqrt((sums**2).sum() * BLOCKS / (BLOCKS - 1)) / n))


_CLASSES = ("binary", "multiclass")
METRICS = (
    Metric("auc", True, _CLASSES, auc, _auc_influence, _weighted_auc),
    Metric("log_loss", False, _CLASSES, log_loss, _log_losses, _weighted_mean(_log_losses)),
    Metric("accuracy", True, _CLASSES, accuracy, _hits, _weighted_mean(_hits)),
    Metric("brier", False, _CLASSES, brier, _brier_losses, _weighted_mean(_brier_losses)),
    Metric("rmse", False, ("regression",), rmse, _rmse_influence, _weighted_rmse),
    Metric("mae", False, ("regression",), mae, _absolutes, _weighted_mean(_absolutes)),
    Metric("r2", True, ("regression",), r2, _r2_influence, _weighted_r2),
)


def metrics_for(problem: Problem) -> dict[str, Metric]:
    """The metrics that fit a problem, by name."""
    return {metric.name: metric for metric in METRICS if problem in metric.problems}


def calibration_error(labels: Labels, scores: Array, *, bins: int = 15) -> float:
    """Expected calibration error of the top class, equal-count bins (Naeini et al. 2015; Nixon et al. 2019)."""
    return float(weighted_calibration_error(labels, scores, np.ones((1, len(labels))), bins=bins)[0])


def weighted_calibration_error(labels: Labels, scores: Array, weights: Array, *, bins: int = 15) -> Array:
    """The same (d,) under d weightings of the rows (d, n), all with the bins of the unweighted rows."""
    confidence = scores.max(axis=1)
    gap = (scores.argmax(axis=1) == labels) - confidence
    order = np.argsort(confidence, kind="stable")
    starts = np.cumsum([0, *map(len, np.array_split(order, min(bins, len(labels))))])[:-1]
    sums = np.add.reduceat((weights * gap)[:, order], starts, axis=1)
    return np.asarray(np.abs(sums).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)
