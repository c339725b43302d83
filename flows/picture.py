"""The one picture of a replay: the served model and the frozen first champion by window, with what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import matplotlib.dates as mdates
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flows.comparison import Comparison, WindowScore
from registry.decisions import ROLLBACK
from registry.plurals import counted

_SERVED, _FROZEN, _GAIN, _BAD, _GOOD = "#1b5e9e", "#8a8a8a", "#cfe3f5", "#c0392b", "#2e7d32"


def draw(comparison: Comparison, path: Path, *, title: str | None = None) -> Path:
    """Write the picture as PNG; its path."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _lines(axes, comparison)
    _tolerance(axes, comparison)
    _decisions(axes, comparison.windows)
    _swaps(axes, comparison.windows)
    _finish(axes, comparison, title or f"{comparison.task}: kept fit against left alone")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _day(moment: datetime) -> float:
    """A moment as matplotlib counts: days since 1970."""
    return (moment - datetime(1970, 1, 1)) / timedelta(days=1)


def _middles(windows: Sequence[WindowScore]) -> list[float]:
    return [_day(one.begin + (one.end - one.begin) / 2) for one in windows]


def _lines(axes: Axes, comparison: Comparison) -> None:
    windows = comparison.windows
    x = _middles(windows)
    served, frozen = [one.served for one in windows], [one.frozen for one in windows]
    axes.plot(x, frozen, "--", color=_FROZEN, lw=1.8, label=f"version {comparison.first_version}, frozen")
    axes.plot(x, served, "-", color=_SERVED, lw=2.4, label="served by Everfit", zorder=3)
    axes.fill_between(x, frozen, served, color=_GAIN, lw=0, zorder=1)


def _tolerance(axes: Axes, comparison: Comparison) -> None:
    """The worst that is tolerated of each version while it served: a step line."""
    if comparison.tolerate is None:
        return
    bounds = [_bound(comparison, one) for one in comparison.windows]
    edges = [_day(one.begin) for one in comparison.windows] + [_day(comparison.windows[-1].end)]
    label = f"tolerated ({comparison.tolerate * 100:.2g} % worse than the version's own test)"
    axes.stairs(bounds, edges, baseline=None, color=_BAD, lw=1.0, ls=":", label=label, zorder=2)


def _bound(comparison: Comparison, one: WindowScore) -> float:
    reference, tolerate = comparison.references[one.version], comparison.tolerate or 0.0
    worse = -1 if comparison.greater_is_better else 1
    return reference + worse * tolerate * abs(reference)


def _decisions(axes: Axes, windows: Sequence[WindowScore]) -> None:
    if bad := [one for one in windows if one.severity == "degraded"]:
        axes.plot(
            _middles(bad), [one.served for one in bad], "o", color=_BAD, ms=6.5, label="judged degraded", zorder=5
        )
    refused = [one for one in windows if one.outcome in ("hold", "reject")]
    if refused:
        x, y = _middles(refused), [one.served for one in refused]
        axes.plot(x, y, "o", color="white", mec=_BAD, ms=11, mew=1.5, label="challenger not promoted", zorder=4)


def _swaps(axes: Axes, windows: Sequence[WindowScore]) -> None:
    back = [one for one in windows if one.promoted and one.outcome == ROLLBACK]
    new = [one for one in windows if one.promoted and one.outcome != ROLLBACK]
    for swaps, color, label in ((new, _GOOD, "challenger promoted"), (back, _BAD, "rolled back")):
        for one in swaps:
            where = _day(one.end)
            axes.axvline(where, color=color, lw=1.4, alpha=0.85, label=label if one is swaps[0] else None, zorder=2)
            axes.annotate(
                f"v{one.champion}",
                (where, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -12),
                textcoords="offset points",
                color=color,
                fontsize=9,
                fontweight="bold",
            )


def _finish(axes: Axes, comparison: Comparison, title: str) -> None:
    pooled = comparison.pooled
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=26)
    begin, last = pooled.begin, pooled.end - timedelta(seconds=1)
    said = (
        f"{begin:{'%d %b' if begin.year == last.year else '%d %b %Y'}} to {last:%d %b %Y}, "
        f"{pooled.rows:,} rows pooled: "
        f"{comparison.metric} {pooled.served:.3f} served, {pooled.frozen:.3f} frozen"
    )
    if (each := comparison.by_window) is not None:
        said += f"; mean of {counted(each.windows, 'window')} {each.served:.3f}, {each.frozen:.3f}"
    axes.text(0, 1.025, said, transform=axes.transAxes, fontsize=10, color="#444444")
    better = "higher" if comparison.greater_is_better else "lower"
    axes.set_ylabel(f"{comparison.metric} of the window ({better} is better)")
    locator = mdates.AutoDateLocator(minticks=5, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    windows = comparison.windows
    axes.set_xlim(_day(windows[0].begin), _day(windows[-1].end))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False, fontsize=9)
