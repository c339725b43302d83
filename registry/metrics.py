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


def binary_auc(labels: Labels, positive: Array) -> float:
    """Area under the ROC curve by ranks, ties at half (Hanley & McNeil 1982). `positive`: (n,) scores of class 1."""
    ones = labels == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    order = np.argsort(positive, kind="stable")
    ordered = positive[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(ordered))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return float((ranks[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


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
    return float((scores.argmax(axis=1) == labels).mean())


def brier(labels: Labels, scores: Array) -> float:
    """Mean squared distance between probabilities and the one-hot label (Brier 1950), summed over classes."""
    return float(((scores - np.eye(scores.shape[1])[labels.astype(np.int64)]) ** 2).sum(axis=1).mean())


def rmse(labels: Labels, scores: Array) -> float:
    """Root mean squared error, in the target's unit."""
    return float(np.sqrt(np.mean((labels - scores) ** 2)))


def mae(labels: Labels, scores: Array) -> float:
    """Mean absolute error, in the target's unit."""
    return float(np.mean(np.abs(labels - scores)))


def r2(labels: Labels, scores: Array) -> float:
    """Coefficient of determination; NaN when the labels do not vary."""
    total = float(((labels - labels.mean()) ** 2).sum())
    return 1 - float(((labels - scores) ** 2).sum()) / total if total > 0 else float("nan")


def _log_losses(labels: Labels, scores: Array) -> Array:
    picked = scores[np.arange(len(labels)), labels.astype(np.int64)]
    return np.asarray(-np.log(np.clip(picked, _TINY, 1.0)), dtype=np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric by name: its direction, the problems it fits, and the function."""

    name: str
    greater_is_better: bool
    problems: tuple[str, ...]
    value: Callable[[Labels, Array], float]

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`: positive is better, whatever the direction."""
        return new - old if self.greater_is_better else old - new

    def standard_error(self, labels: Labels, scores: Array, *, draws: int = 200, seed: int = 0) -> float:
        """Bootstrap standard error over rows (Efron 1979)."""
        rng = np.random.default_rng(seed)
        n = len(labels)
        values = [self.value(labels[rows], scores[rows]) for rows in (rng.integers(0, n, n) for _ in range(draws))]
        return float(np.nanstd(values, ddof=1))


_CLASSES = ("binary", "multiclass")
METRICS = (
    Metric("auc", True, _CLASSES, auc),
    Metric("log_loss", False, _CLASSES, log_loss),
    Metric("accuracy", True, _CLASSES, accuracy),
    Metric("brier", False, _CLASSES, brier),
    Metric("rmse", False, ("regression",), rmse),
    Metric("mae", False, ("regression",), mae),
    Metric("r2", True, ("regression",), r2),
)


def metrics_for(problem: Problem) -> dict[str, Metric]:
    """The metrics that fit a problem, by name."""
    return {metric.name: metric for metric in METRICS if problem in metric.problems}


def calibration_error(labels: Labels, scores: Array, *, bins: int = 15) -> float:
    """Expected calibration error of the top class, equal-count bins (Naeini et al. 2015; Nixon et al. 2019)."""
    confidence = scores.max(axis=1)
    hit = (scores.argmax(axis=1) == labels).astype(np.float64)
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    return float(sum(len(part) * abs(hit[part].mean() - confidence[part].mean()) for part in parts) / len(labels))
