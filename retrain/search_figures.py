"""The model card's pictures of a search: how it went beside random search, quality against cost, what mattered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from registry.metrics import Array, Metric
from registry.plurals import counted
from registry.task import Objective
from retrain import canvas
from retrain.canvas import BLUE, GREEN, GREY, ORANGE
from retrain.trials import (
    Draws,
    Importances,
    Searched,
    Tried,
    best_so_far,
    expected_best,
    front,
    random_draws,
    unbeaten,
    values_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Which of the trials, in the order in which they were begun."""
INK, FAINT = "#222222", "#b9bdc4"
ORIGINS = {"portfolio": (GREEN, "default"), "prior": (ORANGE, "from the prior"), "fresh": (GREY, "fresh")}
SAMPLED = (BLUE, "sampled")
RANDOM = "#b5444b"
SHOWN = 12
"""Most dimensions in the picture and the table of importances."""


def draw_search(folder: Path, searched: Searched, metric: Metric) -> list[Path]:
    """Write the pictures of a search into `folder`; none without a trial. The paths."""
    if not searched.tried:
        return []
    figures = {"search": history(searched, metric)}
    if _costs(searched):
        figures["pareto"] = pareto(searched, metric)
    if searched.importances.shares:
        figures["importances"] = importances(searched.importances)
    return canvas.save(folder, figures)


def history(searched: Searched, metric: Metric) -> Figure:
    """The validation score of each trial by its origin, and the best so far beside the expected best of as many random
    trials: over trials, and over their CPU-seconds where these are known. Far outliers are drawn at the border."""
    ordered, draws = searched.ordered, random_draws(searched)
    spent = np.cumsum([one.cpu for one in ordered])
    figure, panels = canvas.side_by_side(10.5, 4.6) if spent[-1] > 0 else _alone(8.0, 4.6)
    best = best_so_far(ordered, greater_is_better=metric.greater_is_better)
    low, high = _border(ordered, metric, best[-1])
    steps = np.arange(1, len(ordered) + 1, dtype=np.float64)
    for axes, x, unit in zip(panels, (steps, spent), (1.0, draws.cpu if draws else 0.0), strict=False):
        _scatter(axes, ordered, x, low, high)
        axes.step(x, best, where="post", color=INK, linewidth=1.5, label="best so far", zorder=4)
        if draws is not None:
            _random(axes, draws, steps, unit, metric)
    panels[0].set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    panels[0].set(xlabel="trial", ylabel=_axis(metric))
    panels[0].locator_params(axis="x", integer=True)
    if len(panels) > 1:
        panels[1].set(xlabel="CPU-seconds of the trials so far", xlim=(0, 1.04 * spent[-1]))
    figure.suptitle(f"Search: {counted(searched.candidates, 'candidate')}, best {best[-1]:.4f}", fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
    return figure


def _alone(width: float, height: float) -> tuple[Figure, tuple[Axes, ...]]:
    figure, axes = canvas.one(width, height)
    return figure, (axes,)


def _scatter(axes: Axes, ordered: Sequence[Tried], x: Array, low: float, high: float) -> None:
    styles = [ORIGINS.get(one.origin, SAMPLED) for one in ordered]
    y = np.array([one.score for one in ordered])
    inside = (y >= low) & (y <= high)
    for colour, label in dict.fromkeys(styles):
        own = np.flatnonzero(np.array([one == (colour, label) for one in styles]) & inside)
        faces = [colour if ordered[int(place)].complete else "none" for place in own]
        axes.scatter(x[own], y[own], s=26, facecolors=faces, edgecolors=colour, zorder=3)
        axes.scatter([], [], s=26, color=colour, label=label)
    if not all(one.complete for one in ordered):
        axes.scatter([], [], s=26, facecolors="none", edgecolors=INK, label="stopped early")
    _mark_outside(axes, x, y, low, high)


def _random(axes: Axes, draws: Draws, steps: Array, unit: float, metric: Metric) -> None:
    """The reference, dotted beyond as many trials as there were random ones."""
    counts = [int(step) for step in steps]
    expected = expected_best(draws.scores, counts, greater_is_better=metric.greater_is_better)
    seen = steps <= len(draws.scores)
    label = "random search, expected best"
    axes.plot(steps[seen] * unit, expected[seen], color=RANDOM, linewidth=1.5, linestyle="--", label=label)
    if not seen.all():
        rest = steps >= len(draws.scores)
        label = f"the same beyond {len(draws.scores)} draws, too low"
        axes.plot(steps[rest] * unit, expected[rest], color=RANDOM, linewidth=1.3, linestyle=":", label=label)


def pareto(searched: Searched, metric: Metric) -> Figure:
    """The validation score of each trial against what its network costs, with the front and the members of the model.
    Costs are the count of parameters, and the time for one row or else the CPU-seconds of training; one of them must be
    known of two trials at least. A search of several objectives shows the costs among them, and the front of all its
    objectives at once: with three of them or more it is no line. Networks that are too slow for the task's limit are
    marked, and on no front."""
    ordered = searched.ordered
    kinds = _costs(searched)
    many = max(2, len(kinds))
    figure, panels = canvas.side_by_side(3.5 + 3.5 * many, 4.6, many) if len(kinds) > 1 else _alone(8.0, 4.6)
    scores = np.array([one.score for one in ordered])
    low, high = _border(ordered, metric, *(one.score for one in searched.chosen))
    eligible = _eligible(ordered)
    several = _unbeaten_among(searched, eligible, metric) if len(searched.objectives) > 2 else None
    for axes, (label, costs) in zip(panels, kinds, strict=False):
        _cloud(axes, searched, costs, scores)
        _front(axes, costs, scores, eligible, several, metric)
        _ring(axes, searched, costs, scores)
        _mark_outside(axes, costs, np.where(costs > 0, scores, np.nan), low, high)
        axes.set(xlabel=label, xscale="log")
        _plain_ticks(axes)
    panels[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    panels[0].set_ylabel(_axis(metric))
    figure.suptitle("Quality against cost; up and to the left is better", fontsize=11)
    if not metric.greater_is_better:
        figure.suptitle("Quality against cost; down and to the left is better", fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
    return figure


def _costs(searched: Searched) -> list[tuple[str, Array]]:
    """What is known of the costs of two trials at least, 0 where it is not: those among the objectives, or else at most
    two kinds."""
    kinds: dict[Objective, str] = {
        "size": "parameters",
        "latency": "milliseconds for one row, by torch",
        "energy": "CPU-seconds",
    }
    known = [one for one in kinds if len(searched.objectives) == 1 or one in searched.objectives]
    values = {one: np.array([values_of(trial, (one,))[0] for trial in searched.ordered]) for one in known}
    finite = {one: np.where(np.isfinite(costs), costs, 0.0) for one, costs in values.items()}
    found = [(f"{kinds[one]} (log scale)", costs) for one, costs in finite.items() if (costs > 0).sum() > 1]
    return found if len(searched.objectives) > 1 else found[:2]


def _eligible(ordered: Sequence[Tried]) -> Mask:
    """The trials that may be on a front: quick enough, and trained to the end if any of these is."""
    complete, allowed = (np.array([getattr(one, name) for one in ordered]) for name in ("complete", "allowed"))
    return np.asarray(allowed & complete if (allowed & complete).any() else allowed)


def _unbeaten_among(searched: Searched, eligible: Mask, metric: Metric) -> Mask:
    """The eligible trials that no other eligible one dominates in all objectives."""
    rows, found = np.flatnonzero(eligible), np.zeros(len(eligible), dtype=np.bool_)
    tried = [searched.ordered[int(place)] for place in rows]
    found[rows] = unbeaten(tried, searched.objectives, greater_is_better=metric.greater_is_better)
    return found


def _cloud(axes: Axes, searched: Searched, costs: Array, y: Array) -> None:
    complete, allowed = (np.array([getattr(one, name) for one in searched.ordered]) for name in ("complete", "allowed"))
    known = costs > 0
    stopped, ended, slow = known & allowed & ~complete, known & allowed & complete, known & ~allowed
    axes.scatter(costs[ended], y[ended], s=30, color=GREY, zorder=3, label="trial")
    if stopped.any():
        axes.scatter(costs[stopped], y[stopped], s=30, facecolors="none", edgecolors=GREY, label="stopped early")
    if slow.any():
        axes.scatter(costs[slow], y[slow], s=30, color=GREY, marker="x", label="too slow for the model")


def _front(axes: Axes, costs: Array, y: Array, eligible: Mask, several: Mask | None, metric: Metric) -> None:
    """The Pareto front as dots, on a line unless it is that of three objectives or more (`several`)."""
    rows = np.flatnonzero((eligible if several is None else several) & (costs > 0))
    if not len(rows):
        return
    if several is None:
        rows = rows[front(y[rows], costs[rows], greater_is_better=metric.greater_is_better)]
        axes.step(costs[rows], y[rows], where="post", color=BLUE, linewidth=1.5, zorder=2)
    axes.scatter(costs[rows], y[rows], s=34, color=BLUE, zorder=4)
    line = "-" if several is None else "none"
    axes.plot([], [], color=BLUE, linestyle=line, marker="o", markersize=5, label="Pareto front")


def _ring(axes: Axes, searched: Searched, costs: Array, y: Array) -> None:
    own = (costs > 0) & np.array([one.chosen for one in searched.ordered])
    if own.any():
        axes.scatter(
            costs[own], y[own], s=130, facecolors="none", edgecolors=ORANGE, linewidths=2.0, label="in the model"
        )


def _plain_ticks(axes: Axes) -> None:
    """Numbers such as 20,000 or 0.3 on a logarithmic axis, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 3.0, 5.0) if high / low < 6 else (1.0, 3.0) if high / low < 300 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def importances(found: Importances) -> Figure:
    """The largest shares as bars."""
    shown = found.shares[:SHOWN]
    figure, axes = canvas.one(7.0, 1.3 + 0.28 * len(shown))
    names, shares = [name for name, _ in shown], [share for _, share in shown]
    bars = axes.barh(names, shares, color=BLUE, height=0.65)
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize=9)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1.12 * max(shares)), xlabel="share of the importance")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_title(f"What it took to be among the best {found.best} of {found.trials} trials")
    return figure


def _axis(metric: Metric) -> str:
    return f"{metric.name} on validation ({'higher' if metric.greater_is_better else 'lower'} is better)"


def _border(tried: Sequence[Tried], metric: Metric, *kept: float) -> tuple[float, float]:
    """The range of scores to show: from the best, stopped early or not, to twice as far as the median lies behind it,
    and those to be kept."""
    scores = np.array([one.score for one in tried])
    best = scores.max() if metric.greater_is_better else scores.min()
    reach = best + 2 * (np.median(scores) - best)
    furthest = max(reach, scores.min()) if metric.greater_is_better else min(reach, scores.max())
    low, high = float(min(furthest, best, *kept)), float(max(furthest, best, *kept))
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _mark_outside(axes: Axes, x: Array, scores: Array, low: float, high: float) -> None:
    """Triangles at the border for scores that lie beyond it."""
    for beyond, border, marker in ((scores < low, low, "v"), (scores > high, high, "^")):
        if beyond.any():
            at = np.full(int(beyond.sum()), border)
            axes.scatter(x[beyond], at, s=30, color=FAINT, marker=marker, zorder=3, label="worse than the axis shows")
