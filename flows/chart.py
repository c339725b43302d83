"""A line chart as inline SVG: performance by window, its interval, the reference it is held against, what was done;
small ticks under it for the steps of a champion that learns on; hollow dots for what is expected of windows whose
labels are still to come.

Pure text from numbers: no script, no request. Colours come from the page's CSS variables, so that it follows light and
dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from itertools import groupby

import numpy as np

WIDTH, NARROW, HEIGHT = 960, 340, 300
"""In pixels: of a page, of a telephone's (letters that shrink with the picture cannot be read), and of both."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 36, 26, 30
_PAUSE = 4
_STEP = 16  # pixels under the windows that steps take, where there are any
_APART = 3  # pixels between the ticks of two steps, at least
_STUB = 24  # pixels of a reference or an interval that is of one window alone
_LABEL = 26  # pixels that the label of a mark takes
_LETTERS = 110  # pixels that a day with its year takes, and room beside it


@dataclass(frozen=True)
class Point:
    """One window: the moment it begins, the value with its interval, and the reference of the version that served it.
    `expected`: its labels are still to come."""

    at: datetime
    value: float
    low: float | None
    high: float | None
    reference: float | None
    version: str
    expected: bool = False

    def within(self, least: float, most: float) -> Point:
        """The same with its interval cut to what the metric can be."""
        low, high = (None if one is None else min(max(one, least), most) for one in (self.low, self.high))
        return replace(self, low=low, high=high)


@dataclass(frozen=True)
class Mark:
    """Something done at a moment, drawn as a labelled vertical line; a step as a small tick under the windows."""

    at: datetime
    label: str


@dataclass(frozen=True)
class _Scale:
    """From event time and value to pixels. `times` are moments in seconds, `places` where they lie from 0 to 1; what
    lies before the first or after the last is drawn there."""

    times: tuple[float, ...]
    places: tuple[float, ...]
    low: float
    high: float
    width: int
    bottom: int

    def x(self, at: datetime) -> float:
        share = float(np.interp(at.timestamp(), self.times, self.places))
        return round(_LEFT + share * (self.width - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.bottom - share * (self.bottom - _TOP), 1)


def line_chart(
    points: Sequence[Point], marks: Sequence[Mark], steps: Sequence[Mark] = (), *, metric: str, width: int = WIDTH
) -> str:
    """The SVG element, so many pixels wide; a sentence in its place when there is nothing to draw yet."""
    if not points:
        return '<p class="quiet">No window has been measured yet.</p>'
    marks, steps = ([one for one in done if one.at >= points[0].at] for done in (marks, steps))
    bottom = HEIGHT - _BOTTOM - (_STEP if steps else 0)
    scale = _fit(points, [*marks, *steps], width, bottom)
    realised = [point for point in points if not point.expected]
    parts = [
        *_grid(scale),
        *_dates(points, scale),
        _band(realised, scale),
        *_references(points, scale),
        *_marks(marks, scale),
        *_steps(steps, scale),
        _path(realised, scale),
        *_whiskers([point for point in points if point.expected], scale),
        *_dots(points, scale, metric),
    ]
    title = f"{escape(metric)} by window, with its 95 % interval and the reference"
    return f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def figures(value: float) -> str:
    """A value in four figures, or all those before the point.

    >>> figures(0.70341), figures(103.7629), figures(-12345.6)
    ('0.7034', '103.8', '-12,346')
    """
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 4 - whole)}f}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values from `low` to `high`, about so many or up to twice as many.

    >>> ticks(0.61, 0.78)
    [0.62, 0.64, 0.66, 0.68, 0.7, 0.72, 0.74, 0.76, 0.78]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * max((factor for factor in (1, 2, 5, 10) if power * factor <= rough), default=1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(number * step, digits) for number in range(first, last + 1)]


def _fit(points: Sequence[Point], marks: Sequence[Mark], width: int, bottom: int) -> _Scale:
    values = [each for point in points for each in (point.value, point.low, point.high, point.reference)]
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    margin = (high - low) * 0.06 or max(abs(high) * 0.05, 0.01)
    return _Scale(*_axis(points, marks), low - margin, high + margin, width, bottom)


def _axis(points: Sequence[Point], marks: Sequence[Mark]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The windows' moments and their places from 0 to 1: by time, but a pause takes no more than `_PAUSE` usual steps
    from window to window, so that windows of other years are no heap at the edge. What was done after the last window,
    such as a promotion by hand of today beside data of last year, is a step after it. A window alone is in the middle.
    """
    times = [point.at.timestamp() for point in points]
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1.0
    if any(mark.at > points[-1].at for mark in marks):
        times, steps = [*times, times[-1] + usual], np.append(steps, usual)
    if len(times) == 1:
        return (times[0] - usual, times[0], times[0] + usual), (0.0, 0.5, 1.0)
    along = np.r_[0.0, np.cumsum(np.minimum(steps, _PAUSE * usual))]
    return tuple(times), tuple(along / max(along[-1], 1e-9))


def _grid(scale: _Scale) -> list[str]:
    values = ticks(scale.low, scale.high)
    digits = max(len(f"{value:.10g}".partition(".")[2]) for value in values)
    lines = ((scale.y(value), f"{value:.{digits}f}") for value in values)
    return [
        f'<line class="grid" x1="{_LEFT}" x2="{scale.width - _RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{text}</text>'
        for y, text in lines
    ]


def _dates(points: Sequence[Point], scale: _Scale) -> list[str]:
    """Days under the windows, the year with the first and wherever it is another one."""
    shown = points[:: math.ceil(len(points) / (scale.width // _LETTERS))]
    years = [None, *(point.at.year for point in shown)]
    return [
        f'<text x="{scale.x(point.at)}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{point.at:{'%d %b' if point.at.year == year else '%d %b %Y'}}</text>"
        for point, year in zip(shown, years, strict=False)
    ]


def _band(points: Sequence[Point], scale: _Scale) -> str:
    bounded = [point for point in points if point.low is not None and point.high is not None]
    if not bounded:
        return ""
    corners = [(scale.x(point.at), scale.y(point.high or 0.0), scale.y(point.low or 0.0)) for point in bounded]
    if len(corners) == 1:
        ((x, high, low),) = corners
        corners = [(x - _STUB / 2, high, low), (x + _STUB / 2, high, low)]
    upper = [f"{x},{high}" for x, high, _ in corners]
    lower = [f"{x},{low}" for x, _, low in reversed(corners)]
    return f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>'


def _references(points: Sequence[Point], scale: _Scale) -> list[str]:
    """One level line for each run of windows with the same reference, up to where the next run begins; across the chart
    for a window alone."""
    if len(points) == 1 and points[0].reference is not None:
        y = scale.y(points[0].reference)
        return [f'<line class="reference" x1="{_LEFT}" x2="{scale.width - _RIGHT}" y1="{y}" y2="{y}"/>']
    lines = []
    for reference, run in groupby(enumerate(points), key=lambda pair: pair[1].reference):
        numbers = [number for number, _ in run]
        if reference is not None:
            start, end = points[numbers[0]].at, points[min(numbers[-1] + 1, len(points) - 1)].at
            y, x = scale.y(reference), scale.x(start)
            until = max(scale.x(end), x + _STUB)
            lines.append(f'<line class="reference" x1="{x}" x2="{until}" y1="{y}" y2="{y}"/>')
    return lines


def _marks(marks: Sequence[Mark], scale: _Scale) -> Iterator[str]:
    """A line where something was done. Of labels that would lie on one another the later one is written, which is what
    holds."""
    lines, free = {scale.x(mark.at): mark.label for mark in marks}, math.inf
    for x in sorted(lines, reverse=True):
        yield f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{scale.bottom}"/>'
        if free - x >= _LABEL:
            yield f'<text class="mark" x="{x}" y="{_TOP - 12}" text-anchor="middle">{escape(lines[x])}</text>'
            free = x


def _steps(steps: Sequence[Mark], scale: _Scale) -> Iterator[str]:
    """A tick under the windows for each; of those that would lie on one another the latest, and so of labels."""
    lines, free, written = {scale.x(one.at): one for one in steps}, math.inf, math.inf
    for x in sorted(lines, reverse=True):
        if free - x < _APART:
            continue
        label, free = escape(lines[x].label), x
        said = f"<title>{label} has learnt what was known at {lines[x].at:%Y-%m-%d %H:%M}</title>"
        yield f'<line class="step" x1="{x}" x2="{x}" y1="{scale.bottom}" y2="{scale.bottom + 6}">{said}</line>'
        if written - x >= _LABEL:
            yield f'<text class="step" x="{x}" y="{scale.bottom + _STEP}" text-anchor="middle">{label}</text>'
            written = x


def _path(points: Sequence[Point], scale: _Scale) -> str:
    corners = " ".join(f"{scale.x(point.at)},{scale.y(point.value)}" for point in points)
    return f'<polyline class="value" points="{corners}"/>'


def _whiskers(points: Sequence[Point], scale: _Scale) -> list[str]:
    return [
        f'<line class="expected" x1="{scale.x(point.at)}" x2="{scale.x(point.at)}" y1="{scale.y(point.low)}" '
        f'y2="{scale.y(point.high)}"/>'
        for point in points
        if point.low is not None and point.high is not None
    ]


def _dots(points: Sequence[Point], scale: _Scale, metric: str) -> list[str]:
    return [
        f'<circle{_HOLLOW if point.expected else ""} cx="{scale.x(point.at)}" cy="{scale.y(point.value)}" r="3.5">'
        f"<title>{escape(_words(point, metric))}</title></circle>"
        for point in points
    ]


_HOLLOW = ' class="expected"'


def _words(point: Point, metric: str) -> str:
    bounds = [figures(bound) for bound in (point.low, point.high) if bound is not None]
    interval = f" ({' to '.join(bounds)})" if len(bounds) == 2 else ""
    said = "expected, labels to come" if point.expected else "on labels"
    of = f"window from {point.at:%Y-%m-%d %H:%M}, version {point.version}"
    return f"{of}: {metric} {figures(point.value)}{interval}, {said}"
