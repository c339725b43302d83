"""The picture of a back-test: performance against compute on the left, what each policy did over time on the right."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import shorten

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flows.comparison import WindowScore
from flows.frontier import Backtest, Result
from registry.decisions import ROLLBACK, TRAINS

_COLOURS = ("#8a8a8a", "#c77c11", "#8e44ad", "#1b5e9e", "#2e7d32", "#c0392b", "#00838f", "#5d4037")
_ORACLE = "#111111"


def draw(found: Backtest, path: Path) -> Path:
    """Write the picture as PNG; its path."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _frontier(left, found)
    _time_line(right, found)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        f"{found.task}: what each policy would have done", x=0.01, ha="left", fontsize=13, fontweight="bold"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _frontier(axes: Axes, found: Backtest) -> None:
    for number, one in enumerate(found.policies):
        error = 0.0 if np.isnan(one.gain_error) else one.gain_error
        axes.errorbar(one.cpu, one.mean, yerr=error, fmt="o", ms=8, capsize=3, color=_colour(number), zorder=3)
        chosen = one.name == found.recommended
        axes.annotate(
            shorten(f"{one.name} (recommended)" if chosen else one.name, 36, placeholder=" ..."),
            (one.cpu, one.mean),
            xytext=(9, 5 - 13 * number if number else 5),  # policies that did the same lie on one another
            textcoords="offset points",
            color=_colour(number),
            fontsize=9,
            fontweight="bold" if chosen else "normal",
            annotation_clip=False,
        )
    axes.axhline(float(np.nanmean(found.oracle)), color=_ORACLE, ls=":", lw=1.4)
    axes.annotate("oracle", (0.01, float(np.nanmean(found.oracle))), xycoords=("axes fraction", "data"), va="bottom")
    if not found.greater_is_better:
        axes.invert_yaxis()
    axes.margins(y=0.2)
    dearest = max(one.cpu for one in found.policies) or 1.0
    axes.set_xlim(-0.06 * dearest, 1.6 * dearest)  # room for names
    axes.set_xlabel("CPU-seconds of remedies")
    axes.set_ylabel(f"{found.metric}, mean over windows (bars: standard error of the gain)")
    _plain(axes)


def _time_line(axes: Axes, found: Backtest) -> None:
    windows = found.policies[0].windows
    x = _middles(windows)
    axes.plot(x, found.oracle, ":", color=_ORACLE, lw=1.4, label="oracle")
    for number, one in enumerate(found.policies):
        axes.plot(x, [window.served for window in one.windows], "-", color=_colour(number), lw=1.8, label=one.name)
        _marks(axes, one, _colour(number))
    axes.plot([], [], "^", color="#444444", label="promoted")
    if any(window.outcome == ROLLBACK for one in found.policies for window in one.windows):
        axes.plot([], [], "v", color="#444444", label="rolled back")
    axes.plot([], [], "x", color="#444444", label="re-search without promotion")
    if not found.greater_is_better:
        axes.invert_yaxis()
    locator = mdates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_ylabel(f"{found.metric} of the window")
    _plain(axes)


def _marks(axes: Axes, one: Result, colour: str) -> None:
    for window, place in zip(one.windows, _middles(one.windows), strict=True):
        if window.promoted or (window.outcome and window.remedy in TRAINS):
            mark = "v" if window.outcome == ROLLBACK else "^" if window.promoted else "x"
            axes.plot(place, window.served, mark, color=colour, ms=9, mew=2, zorder=4)


def _middles(windows: Sequence[WindowScore]) -> list[float]:
    start = datetime(1970, 1, 1)
    return [(one.begin + (one.end - one.begin) / 2 - start) / timedelta(days=1) for one in windows]


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
