"""What the card's pictures share: colours, and figures on the Agg canvas, which need no display.

pyplot, which keeps state in the process, is not used.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN = "#2563a8", "#d9822b", "#8a8f98", "#3a8f5c"
DPI = 120


def save(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures into a folder as `NAME.png`, without the date; the paths, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in sorted(figures)}
    for name, path in paths.items():
        figures[name].savefig(path, dpi=DPI, metadata={"Software": None})
    return list(paths.values())


def one(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, in inches."""
    figure = _figure(width, height)
    axes = figure.add_subplot()
    _clean(axes)
    return figure, axes


def above_one_another() -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure with a high pair of axes and a low one beneath."""
    figure = _figure(6.4, 6.4)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    above, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    for axes in (above, below):
        _clean(axes)
    return figure, (above, below)


def side_by_side(width: float, height: float, count: int = 2) -> tuple[Figure, tuple[Axes, ...]]:
    """A figure with two pairs of axes, or as many as are asked for, that share their height."""
    figure = _figure(width, height)
    left = figure.add_subplot(1, count, 1)
    others = [figure.add_subplot(1, count, place, sharey=left) for place in range(2, count + 1)]
    for axes in (left, *others):
        _clean(axes)
    for axes in others:
        axes.tick_params(labelleft=False)
    return figure, (left, *others)


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that is all drawing area, without ticks and borders."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    return figure, axes


def short(text: str) -> str:
    """At most 18 letters of a name."""
    return textwrap.shorten(text, 18, placeholder="...") if " " in text else text[:18]


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
