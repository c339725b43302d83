"""The model card's pictures of the test rows: calibration, confusion or residuals. Those of the search are in
`search_figures.py`, those of the networks in `network_figure.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.metrics import Array, Labels, calibration_error
from registry.target import Target
from registry.task import TaskSpec
from retrain import canvas
from retrain.canvas import BLUE, GREY, ORANGE
from retrain.splits import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 12
MAX_CLASSES = 12
MAX_POINTS = 4_000


def draw(folder: Path, task: TaskSpec, target: Target, labels: Labels, scores: Array) -> list[Path]:
    """Write the pictures of a model's test rows into `folder`: labels and scores as metrics take them. The paths."""
    if task.problem == "regression":
        return canvas.save(folder, {"residuals": residuals(np.asarray(labels, dtype=np.float64), scores, task.target)})
    classes = target.classes
    curve, matrix = calibration_curve(labels, scores, classes), confusion(labels, scores, classes)
    return canvas.save(folder, {"calibration": curve, "confusion": matrix})


def calibration_curve(labels: Labels, scores: Array, classes: Sequence[str]) -> Figure:
    """How often what was said with probability p came true, in bins of equal count, and where the predictions lie. For
    two classes of the positive one, else of the class predicted."""
    binary = scores.shape[1] == 2
    said = scores[:, 1] if binary else scores.max(axis=1)
    true = (labels == 1 if binary else scores.argmax(axis=1) == labels).astype(np.float64)
    what = f"'{canvas.short(classes[1])}'" if binary else "the predicted class"
    figure, (above, below) = canvas.above_one_another()
    parts = np.array_split(np.argsort(said, kind="stable"), min(BINS, len(said)))
    x, y = (np.array([values[part].mean() for part in parts]) for values in (said, true))
    error = 1.645 * np.sqrt(np.maximum(y * (1 - y), 1e-4) / [len(part) for part in parts])
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfect")
    above.errorbar(x, y, yerr=error, color=BLUE, marker="o", markersize=4, capsize=2, label="observed, with 90 % bars")
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="observed share")
    above.set_title(f"Calibration of {what} on {len(said):,} test rows (ECE {calibration_error(labels, scores):.3f})")
    above.legend(loc="upper left", frameon=False)
    below.hist(said, bins=np.linspace(0, 1, 41).tolist(), color=BLUE, alpha=0.7)
    below.set(xlim=(-0.02, 1.02), xlabel=f"predicted probability of {what}", ylabel="rows")
    return figure


def confusion(labels: Labels, scores: Array, classes: Sequence[str]) -> Figure:
    """Predicted against true classes: shares of each true class, with counts. Of many classes the rarest are
    pooled."""
    names, true, said = _pooled(labels.astype(np.int64), scores.argmax(axis=1), classes)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (true, said), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 3.2 + 0.62 * len(names)
    figure, axes = canvas.one(size + 0.8, size)
    axes.grid(False)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{share:.0%}\n{counts[row, column]:,}"
        colour = "white" if share > 0.55 else "#222222"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    tilt = 0 if len(names) <= 3 else 45
    axes.set_xticks(range(len(names)), names, rotation=tilt, ha="right" if tilt else "center")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion on {len(labels):,} test rows")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def residuals(labels: Array, predicted: Array, name: str) -> Figure:
    """True minus predicted against predicted, with the median and the middle 80 % in bins, and their distribution."""
    figure, (above, below) = canvas.above_one_another()
    error = labels - predicted
    shown = np.random.default_rng(0).permutation(len(labels))[:MAX_POINTS]
    above.scatter(predicted[shown], error[shown], s=6, color=BLUE, alpha=0.25, linewidths=0)
    above.axhline(0, color=GREY, linewidth=1, linestyle="--")
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(labels)))
    x = [predicted[part].mean() for part in parts]
    low, middle, high = np.array([np.quantile(error[part], [0.1, 0.5, 0.9]) for part in parts]).T
    above.fill_between(x, low, high, color=ORANGE, alpha=0.25, linewidth=0, label="middle 80 %")
    above.plot(x, middle, color=ORANGE, marker="o", markersize=4, label="median")
    above.set(xlabel=f"predicted {canvas.short(name)}", ylabel="true - predicted", ylim=_middle(error))
    above.set_title(f"Residuals of {canvas.short(name)} on {len(labels):,} test rows")
    above.legend(loc="upper left", frameon=False, ncols=2)
    below.hist(error, bins=60, range=_middle(error), color=BLUE, alpha=0.7)
    below.set(xlabel="true - predicted", ylabel="rows")
    return figure


def _middle(error: Array) -> tuple[float, float]:
    """A symmetric range that holds all but the outermost 1 % of residuals."""
    reach = float(np.quantile(np.abs(error), 0.99)) * 1.15 or 1.0
    return -reach, reach


def _pooled(true: Rows, said: Rows, classes: Sequence[str]) -> tuple[list[str], Rows, Rows]:
    """Classes and their indices; when there are many, the most frequent ones and "other"."""
    if len(classes) <= MAX_CLASSES:
        return [canvas.short(name) for name in classes], true, said
    frequent = np.sort(np.argsort(-np.bincount(true, minlength=len(classes)), kind="stable")[: MAX_CLASSES - 1])
    place = np.full(len(classes), MAX_CLASSES - 1)
    place[frequent] = np.arange(MAX_CLASSES - 1)
    return [*(canvas.short(classes[one]) for one in frequent), "other"], place[true], place[said]
