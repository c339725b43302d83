"""The model card's pictures: calibration, confusion or residuals, the search's history. PNG files, no display needed.

Each function gives a `matplotlib.figure.Figure` on the Agg canvas. pyplot, which keeps state in the process, is not
used.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.metrics import Array, Labels, Metric, calibration_error, metrics_for
from registry.target import Target
from registry.task import TaskSpec
from retrain.splits import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN = "#2563a8", "#d9822b", "#8a8f98", "#3a8f5c"
ORIGINS = {"portfolio": (GREEN, "default"), "prior": (ORANGE, "from the prior"), "fresh": (GREY, "fresh")}
SAMPLED = (BLUE, "sampled")
BINS = 12
MAX_CLASSES = 12
MAX_POINTS = 4_000
DPI = 120


@dataclass(frozen=True)
class Tried:
    """A finished trial of a search: its number, its best validation score, where its candidate came from ("portfolio",
    "prior", "fresh" or "sampled"), and whether it trained to the end."""

    number: int
    score: float
    origin: str = "sampled"
    complete: bool = True


def draw(
    folder: Path, task: TaskSpec, target: Target, labels: Labels, scores: Array, tried: Sequence[Tried]
) -> list[Path]:
    """Write all pictures of a model into `folder`: of its test rows (labels and scores as metrics take them) and of its
    search. The paths, in the order of the card."""
    metric = metrics_for(task.problem)[task.metric]
    figures = {"search": search_history(tried, metric)} if tried else {}
    if task.problem == "regression":
        figures["residuals"] = residuals(np.asarray(labels, dtype=np.float64), scores, task.target)
    else:
        figures["calibration"] = calibration_curve(labels, scores, target.classes)
        figures["confusion"] = confusion(labels, scores, target.classes)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in sorted(figures)}
    for name, path in paths.items():
        figures[name].savefig(path, dpi=DPI, metadata={"Software": None})
    return list(paths.values())


def calibration_curve(labels: Labels, scores: Array, classes: Sequence[str]) -> Figure:
    """How often what was said with probability p came true, in bins of equal count, and where the predictions lie. For
    two classes of the positive one, else of the class predicted."""
    binary = scores.shape[1] == 2
    said = scores[:, 1] if binary else scores.max(axis=1)
    true = (labels == 1 if binary else scores.argmax(axis=1) == labels).astype(np.float64)
    what = f"'{_short(classes[1])}'" if binary else "the predicted class"
    figure, (above, below) = _two()
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
    figure, axes = _one(size + 0.8, size)
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
    figure, (above, below) = _two()
    error = labels - predicted
    shown = np.random.default_rng(0).permutation(len(labels))[:MAX_POINTS]
    above.scatter(predicted[shown], error[shown], s=6, color=BLUE, alpha=0.25, linewidths=0)
    above.axhline(0, color=GREY, linewidth=1, linestyle="--")
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(labels)))
    x = [predicted[part].mean() for part in parts]
    low, middle, high = np.array([np.quantile(error[part], [0.1, 0.5, 0.9]) for part in parts]).T
    above.fill_between(x, low, high, color=ORANGE, alpha=0.25, linewidth=0, label="middle 80 %")
    above.plot(x, middle, color=ORANGE, marker="o", markersize=4, label="median")
    above.set(xlabel=f"predicted {_short(name)}", ylabel="true - predicted", ylim=_middle(error))
    above.set_title(f"Residuals of {_short(name)} on {len(labels):,} test rows")
    above.legend(loc="upper left", frameon=False, ncols=2)
    below.hist(error, bins=60, range=_middle(error), color=BLUE, alpha=0.7)
    below.set(xlabel="true - predicted", ylabel="rows")
    return figure


def search_history(tried: Sequence[Tried], metric: Metric, *, reference: Sequence[float] | None = None) -> Figure:
    """The validation score of each trial by its origin, and the best so far; `reference` is a random search's best so
    far, drawn beside it. Far outliers are drawn at the border."""
    figure, axes = _one(8.0, 4.4)
    ordered = sorted(tried, key=lambda one: one.number)
    scores = np.array([one.score for one in ordered])
    best = _best_so_far(ordered, metric)
    low, high = _border(scores, best[-1])
    for origin in dict.fromkeys(one.origin for one in ordered):
        colour, label = ORIGINS.get(origin, SAMPLED)
        own = [one for one in ordered if one.origin == origin]
        faces = [colour if one.complete else "none" for one in own]
        x, y = [one.number + 1 for one in own], np.clip([one.score for one in own], low, high)
        axes.scatter(x, y, s=26, facecolors=faces, edgecolors=colour, zorder=3)
        axes.scatter([], [], s=26, color=colour, label=label)
    if not all(one.complete for one in ordered):
        axes.scatter([], [], s=26, facecolors="none", edgecolors="#222222", label="stopped early")
    axes.step(
        [one.number + 1 for one in ordered], best, where="post", color="#222222", linewidth=1.4, label="best so far"
    )
    if reference is not None:
        steps = range(1, len(reference) + 1)
        axes.step(
            steps, reference, where="post", color=GREY, linewidth=1.4, linestyle="--", label="random search, best"
        )
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    sense = "higher" if metric.greater_is_better else "lower"
    axes.set(xlabel="trial", ylabel=f"{metric.name} on validation ({sense} is better)")
    axes.set_title(f"Search: {len(ordered)} trials, best {best[-1]:.4f}")
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", frameon=False, ncols=4)
    return figure


def _best_so_far(ordered: Sequence[Tried], metric: Metric) -> Array:
    """The best score after each trial, of those that trained to the end if any did; NaN before the first."""
    any_complete = any(one.complete for one in ordered)
    scores = np.array([one.score if one.complete or not any_complete else np.nan for one in ordered])
    return np.asarray(np.fmax.accumulate(scores) if metric.greater_is_better else np.fmin.accumulate(scores))


def _border(scores: Array, best: float) -> tuple[float, float]:
    """The range that shows the middle of the scores and the best one."""
    q1, q3 = np.quantile(scores, [0.25, 0.75])
    reach = 1.5 * max(q3 - q1, 1e-6)
    low, high = max(scores.min(), q1 - reach), min(scores.max(), q3 + reach)
    low, high = float(min(low, best)), float(max(high, best))
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _middle(error: Array) -> tuple[float, float]:
    """A symmetric range that holds all but the outermost 1 % of residuals."""
    reach = float(np.quantile(np.abs(error), 0.99)) * 1.15 or 1.0
    return -reach, reach


def _pooled(true: Rows, said: Rows, classes: Sequence[str]) -> tuple[list[str], Rows, Rows]:
    """Classes and their indices; when there are many, the most frequent ones and "other"."""
    if len(classes) <= MAX_CLASSES:
        return [_short(name) for name in classes], true, said
    frequent = np.sort(np.argsort(-np.bincount(true, minlength=len(classes)), kind="stable")[: MAX_CLASSES - 1])
    place = np.full(len(classes), MAX_CLASSES - 1)
    place[frequent] = np.arange(MAX_CLASSES - 1)
    return [*(_short(classes[one]) for one in frequent), "other"], place[true], place[said]


def _short(text: str) -> str:
    return textwrap.shorten(text, 18, placeholder="...") if " " in text else text[:18]


def _one(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _figure(width, height)
    axes = figure.add_subplot()
    _clean(axes)
    return figure, axes


def _two() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = _figure(6.4, 6.4)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    above, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    for axes in (above, below):
        _clean(axes)
    return figure, (above, below)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e4e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.title.set_fontsize(11)
