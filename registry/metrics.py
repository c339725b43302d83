"""The metrics a task can name: one tuple, names derived, each with its direction and its standard error.

Shapes: `labels` is (n,) of class indices (int) or real values; `scores` is (n, k) of probabilities for
classification, (n,) of predicted values for regression. Errors: `ValueError` on empty input; NaN where a metric is
undefined on the sample (AUC with one class).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Problem: TypeAlias = Literal["binary", "multiclass", "regression"]
Array: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Blocks: TypeAlias = npt.NDArray[np.int64]
Resampled: TypeAlias = Callable[[Array], Array]
"""From how often each of G blocks is drawn (d, G) to a statistic's values (d,)."""

_TINY = 1e-7
_MANY = 5_000  # values from which quicksort is faster than a sort that keeps the order of equal ones

BLOCKS = 20
"""Consecutive runs of rows that count as independent of one another."""
LEAST_IN_BLOCK = 5
CALIBRATION_BINS = 15
"""Of equal counts, by confidence."""


def mid_ranks(values: Array) -> Array:
    """Ranks of (n,) values from 1 to n, equal values sharing the mean of their ranks.

    >>> mid_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    order = sorting(values)
    starts, ends = runs(values.take(order))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks


def sorting(values: Array) -> Blocks:
    """The order (n,) that sorts values; among equal ones any: many are sorted faster where theirs need not be kept."""
    return np.argsort(values, kind="stable" if len(values) < _MANY else None)


def runs(ordered: Array) -> tuple[Blocks, Blocks]:
    """Where each run of equal values begins, and the place after its end, in sorted ones (n,)."""
    bounds = np.empty(len(ordered) + 1, dtype=np.bool_)
    bounds[0] = bounds[-1] = len(ordered) > 0
    np.not_equal(ordered[1:], ordered[:-1], out=bounds[1:-1])
    found = np.flatnonzero(bounds)
    return found[:-1], found[1:]


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
    """The share of `hits`."""
    return float(hits(labels, scores).mean())


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
    return np.asarray(-np.log(np.clip(_of_label(labels, scores), _TINY, 1.0)), dtype=np.float64)


def _of_label(labels: Labels, scores: Array) -> Array:
    """The label's probability, (n,)."""
    if scores.shape[1] == 2:
        return np.where(labels == 1, scores[:, 1], scores[:, 0])
    return np.asarray(scores[np.arange(len(labels)), labels.astype(np.int64)], dtype=np.float64)


def _absolutes(labels: Labels, scores: Array) -> Array:
    return np.asarray(np.abs(labels - scores), dtype=np.float64)


def hits(labels: Labels, scores: Array) -> Array:
    """1 for each row whose most probable class is the label, else 0, (n,)."""
    top = scores[:, 1] > scores[:, 0] if scores.shape[1] == 2 else scores.argmax(axis=1)  # of two, five times as fast
    return np.asarray(top == labels, dtype=np.float64)


def _brier_losses(labels: Labels, scores: Array) -> Array:
    gaps = scores - np.eye(scores.shape[1])[labels.astype(np.int64)]
    return np.asarray((gaps**2).sum(axis=1), dtype=np.float64)


def _binary_auc_and_influence(labels: Labels, positive: Array) -> tuple[float, Array]:
    """The AUC, and DeLong's structural components (DeLong et al. 1988), one a row, centred and divided by the share of
    the row's class, from one sorting. NaN everywhere with one class only."""
    ones = labels == 1
    n, n1 = len(labels), int(np.count_nonzero(ones))
    if n1 in (0, n):
        return math.nan, np.full(n, np.nan)
    order = sorting(positive)
    starts, ends = runs(positive.take(order))
    up = np.append(0, ones.take(order).cumsum())  # positives below each place, in order
    beaten, out = np.empty(n), np.empty(n)
    ahead = np.repeat((up[starts] + up[ends]) / 2, ends - starts)  # positives below a row, ties at half
    beaten[order] = np.where(ones.take(order), np.repeat((starts + ends) / 2, ends - starts) - ahead, ahead)
    won = beaten[ones]
    above, below = won / (n - n1), 1 - beaten[~ones] / n1
    out[ones] = (above - above.mean()) * n / n1
    out[~ones] = (below - below.mean()) * n / (n - n1)
    return float(won.sum() / (n1 * (n - n1))), out


def _auc_and_influence(labels: Labels, scores: Array) -> tuple[float, Array]:
    if scores.shape[1] == 2:
        return _binary_auc_and_influence(labels, scores[:, 1])
    present = [k for k in range(scores.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    if not present:
        return math.nan, np.full(len(labels), np.nan)
    each = [_binary_auc_and_influence((labels == k).astype(np.int64), scores[:, k]) for k in present]
    pulls = np.asarray(np.mean([one for _, one in each], axis=0), dtype=np.float64)
    return float(np.mean([value for value, _ in each])), pulls


def _auc_influence(labels: Labels, scores: Array) -> Array:
    return _auc_and_influence(labels, scores)[1]


def _rmse_influence(labels: Labels, scores: Array) -> Array:
    squares = (labels - scores) ** 2
    return np.asarray(squares / (2 * max(float(np.sqrt(squares.mean())), _TINY)), dtype=np.float64)


def _r2_influence(labels: Labels, scores: Array) -> Array:
    squares, spread = (labels - scores) ** 2, (labels - labels.mean()) ** 2
    if (variance := float(spread.mean())) == 0:
        return np.full(len(labels), np.nan)
    return np.asarray((float(squares.mean()) / variance * spread - squares) / variance, dtype=np.float64)


def mean_by_block(values: Array, blocks: Blocks) -> Resampled:
    """The mean of (n,) values, resampled by block."""
    sums, counts = np.bincount(blocks, weights=values), np.bincount(blocks)
    return lambda drawn: np.asarray(drawn @ sums / (drawn @ counts), dtype=np.float64)


def _by_block(per_row: Callable[[Labels, Array], Array]) -> Callable[[Labels, Array, Blocks], Resampled]:
    return lambda labels, scores, blocks: mean_by_block(per_row(labels, scores), blocks)


def _binary_auc_by_block(labels: Labels, positive: Array, blocks: Blocks) -> Resampled:
    """How often a positive of one block beats a negative of another, ties at half, is counted once for each pair of
    blocks (G, G): under any resample the AUC is a quotient of two forms of its draws. NaN where a class is not drawn.
    """
    order = np.argsort(positive, kind="stable")
    ordered, ones, blocks = positive[order], labels[order] == 1, blocks[order]
    run = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])
    count = int(blocks.max()) + 1
    beaten = np.empty((count, count))
    for block in range(count):  # one at a time: memory does not grow with the number of blocks
        negatives = np.bincount(run[~ones & (blocks == block)], minlength=run[-1] + 1)
        below = (negatives.cumsum() - negatives / 2)[run[ones]]
        beaten[:, block] = np.bincount(blocks[ones], weights=below, minlength=count)
    up, down = (np.bincount(blocks[each], minlength=count) for each in (ones, ~ones))
    return lambda drawn: _ratio(((drawn @ beaten) * drawn).sum(axis=1), (drawn @ up) * (drawn @ down))


def _auc_by_block(labels: Labels, scores: Array, blocks: Blocks) -> Resampled:
    if scores.shape[1] == 2:
        return _binary_auc_by_block(labels, scores[:, 1], blocks)
    classes = range(scores.shape[1])
    each = [_binary_auc_by_block((labels == k).astype(np.int64), scores[:, k], blocks) for k in classes]

    def resampled(drawn: Array) -> Array:
        values = np.stack([one(drawn) for one in each])
        known = np.isfinite(values)
        return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))

    return resampled


def _rmse_by_block(labels: Labels, scores: Array, blocks: Blocks) -> Resampled:
    squares = mean_by_block((labels - scores) ** 2, blocks)
    return lambda drawn: np.asarray(np.sqrt(squares(drawn)), dtype=np.float64)


def _r2_by_block(labels: Labels, scores: Array, blocks: Blocks) -> Resampled:
    y = labels - labels.mean()  # the difference below loses less to rounding around 0
    rest, first, second = (mean_by_block(one, blocks) for one in ((labels - scores) ** 2, y, y**2))
    return lambda drawn: np.asarray(1 - _ratio(rest(drawn), second(drawn) - first(drawn) ** 2), dtype=np.float64)


def _ratio(above: Array, below: Array) -> Array:
    """Quotients (d,), NaN where nothing positive divides."""
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0), dtype=np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric by name: its direction, the problems it fits, and the functions.

    `by_block` takes labels, scores and the block (0 to G - 1) of each row, and gives the function from d resamples, how
    often each holds each block (d, G), to the metric's values (d,) on them. `both` are value and `per_row` where one
    comes with the other.
    """

    name: str
    greater_is_better: bool
    problems: tuple[str, ...]
    value: Callable[[Labels, Array], float]
    per_row: Callable[[Labels, Array], Array]
    by_block: Callable[[Labels, Array, Blocks], Resampled]
    both: Callable[[Labels, Array], tuple[float, Array]] | None = None

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`: positive is better, whatever the direction."""
        return new - old if self.greater_is_better else old - new

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that it can be: an interval around a value does not know them."""
        return _BOUNDS.get(self.name, (0.0, np.inf))

    def influence(self, labels: Labels, scores: Array) -> Array:
        """How far each row pulls the metric away from its value, (n,) with mean 0 (Hampel 1974): the metric less its
        true value is close to the mean of these. Exact for means, DeLong's components for AUC (unweighted over the
        classes present), the delta method for the rest. NaN where the metric is undefined."""
        rows = self.per_row(labels, scores)
        return np.asarray(rows - rows.mean(), dtype=np.float64)

    def value_and_influence(self, labels: Labels, scores: Array) -> tuple[float, Array]:
        """`value` and `influence`, for the price of one where both are had from the same sorting."""
        if self.both is None:
            return self.value(labels, scores), self.influence(labels, scores)
        value, rows = self.both(labels, scores)
        return value, np.asarray(rows - rows.mean(), dtype=np.float64)

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
    sums = np.add.reduceat(values - values.mean(), _block_starts(n))
    return max(alone, float(np.sqrt((sums**2).sum() * BLOCKS / (BLOCKS - 1)) / n))


def _block_starts(rows: int) -> Blocks:
    """Where each of `BLOCKS` begins; the first ones are a row longer where they cannot be of a length."""
    places, (length, longer) = np.arange(BLOCKS), divmod(rows, BLOCKS)
    return places * length + np.minimum(places, longer)


_BOUNDS = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "brier": (0.0, 2.0), "r2": (-np.inf, 1.0)}
_CLASSES = ("binary", "multiclass")
METRICS = (
    Metric("auc", True, _CLASSES, auc, _auc_influence, _auc_by_block, _auc_and_influence),
    Metric("log_loss", False, _CLASSES, log_loss, _log_losses, _by_block(_log_losses)),
    Metric("accuracy", True, _CLASSES, accuracy, hits, _by_block(hits)),
    Metric("brier", False, _CLASSES, brier, _brier_losses, _by_block(_brier_losses)),
    Metric("rmse", False, ("regression",), rmse, _rmse_influence, _rmse_by_block),
    Metric("mae", False, ("regression",), mae, _absolutes, _by_block(_absolutes)),
    Metric("r2", True, ("regression",), r2, _r2_influence, _r2_by_block),
)


def metrics_for(problem: Problem) -> dict[str, Metric]:
    """The metrics that fit a problem, by name."""
    return {metric.name: metric for metric in METRICS if problem in metric.problems}


def calibration_error(labels: Labels, scores: Array, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of the top class, equal-count bins (Naeini et al. 2015; Nixon et al. 2019)."""
    return float(
        calibration_by_block(labels, scores, np.zeros(len(labels), dtype=np.int64), bins=bins)(np.ones((1, 1)))[0]
    )


def calibration_by_block(labels: Labels, scores: Array, blocks: Blocks, *, bins: int = CALIBRATION_BINS) -> Resampled:
    """The same, resampled by block: all resamples share the bins of the whole."""
    confidence = scores.max(axis=1)
    gap = (scores.argmax(axis=1) == labels) - confidence
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    counts = np.bincount(blocks)
    sums = np.stack([np.bincount(blocks[part], gap[part], len(counts)) for part in parts], axis=1)
    return lambda drawn: np.asarray(np.abs(drawn @ sums).sum(axis=1) / (drawn @ counts), dtype=np.float64)
