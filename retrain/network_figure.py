"""The picture of a network: its operations as boxes, what flows between them as arrows, skip connections on lanes of
their own. Short networks are drawn from left to right, long ones from top to bottom. All lengths are in inches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from registry.metrics import Array
from retrain.canvas import BLUE, GREY, ORANGE, blank, save
from retrain.families.base import read_candidate
from retrain.families.catalogue import FAMILIES, family_named
from retrain.families.drawing import Drawing
from retrain.families.hidden import kept_share
from retrain.families.parameters import is_int8
from retrain.layout import Layout, depths, lay_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, LINK = "#2b2f36", "#6b7078"
ENDS = ("#eef0f3", GREY)
FILLS = (
    ("#e3edf8", BLUE),
    ("#fbeedd", ORANGE),
    ("#e2f1e8", "#3a8f5c"),
    ("#f0e7f5", "#7d4f9b"),
    ("#fae5e6", "#b5444b"),
    ("#e2f2f3", "#2f8790"),
)
"""Fill and border of a node, by what it does."""
FONT, SMALL = 9.0, 8.0
LETTER, LINE = 0.0077, 0.0172
"""Width of a letter and height of a line, for each point of the font's size."""
PAD = 0.11
GAP, LANE_GAP, LABELLED_GAP = 0.42, 0.16, 0.34
LONG = 8
"""A network of more layers is drawn from top to bottom."""
MARGIN = 0.16
HEAD = 0.085
"""Length of an arrow's head."""
WHERE = (0.5, 0.34, 0.66, 0.22, 0.78)
"""Where on a curve a label may stand, the best place first."""


@dataclass(frozen=True)
class _Place:
    """A laid-out drawing: `along` and `across` are each spot's centre, in inches; `start` and `stop` the borders of its
    layer, `half` (nodes, 2) half of each node's length along and across."""

    layout: Layout
    along: Array
    start: Array
    stop: Array
    half: Array
    sideways: bool

    def point(self, along: float, across: float) -> tuple[float, float]:
        """Inches to the right and upwards."""
        return (along, -across) if self.sideways else (across, -along)


def draw_networks(folder: Path, members: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write a picture of each of a bundle's members, as `candidates.json` tells of them, the heaviest first, as
    `network-1.png` and so on; those of families that are no longer there are passed over. The paths."""
    known = {family.name for family in FAMILIES}
    figures = {}
    for number, member in enumerate(sorted(members, key=lambda one: -one["weight"]), start=1):
        candidate = read_candidate(member["candidate"])
        if candidate is not None and candidate.family in known:
            title = f"Network {number} of {len(members)}: {candidate.family}, weight {member['weight']:.2f}"
            drawing = family_named(candidate.family).drawing(candidate.choices)
            share = kept_share(candidate.choices)
            pruned = f"pruned to {share:.0%} of its hidden units" if share < 1 else ""
            whole = "weights as int8" if is_int8(candidate.choices) else ""
            told = filter(None, (title, drawing.caption, pruned, whole))
            figures[f"network-{number}"] = network(drawing, ", ".join(told))
    return save(folder, figures)


def network(drawing: Drawing, title: str) -> Figure:
    """The picture of one network."""
    place = _place(drawing)
    half = place.half if place.sideways else place.half[:, ::-1]
    centres = np.array([place.point(place.along[node], place.layout.lanes[node]) for node in range(len(half))])
    routes = [_route(place, path, bow) for path, bow in zip(place.layout.paths, _bows(drawing), strict=True)]
    every = np.concatenate([centres - half, centres + half, *(route[0] for route in routes)])
    low, high = every.min(axis=0) - MARGIN, every.max(axis=0) + MARGIN
    wide = max(high[0] - low[0], _width(title, 10.5) + 2 * MARGIN)
    centre = (low[0] + high[0]) / 2
    low[0], high[0] = centre - wide / 2, centre + wide / 2
    high[1] += 0.34
    figure, axes = blank(*(high - low))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.text(low[0] + MARGIN, high[1] - 0.1, title, fontsize=10.5, color=INK, va="top")
    for path, route in zip(place.layout.paths, routes, strict=True):
        _draw_edge(axes, place, path, route)
    for number, spot in _label_spots(drawing, place, routes).items():
        skips = len(place.layout.paths[number]) > 2
        _draw_label(axes, spot, drawing.edges[number][2], ORANGE if skips else INK)
    for node, text in enumerate(drawing.nodes):
        _draw_node(axes, text, centres[node], half[node], _colours(drawing)[node])
    return figure


def _place(drawing: Drawing) -> _Place:
    sideways = max(depths(drawing), default=0) < LONG
    half = np.array([_size(text) for text in drawing.nodes]) / 2
    half = half if sideways else half[:, ::-1]  # along, across
    labels = [_width(label, SMALL) + 0.1 if label else 0.0 for _, _, label in drawing.edges]
    lines = [LINE * SMALL + 0.06 if label else 0.0 for label in labels]
    stops = [max(0.1, one) for one in (lines if sideways else labels)]
    layout = lay_out(drawing, list(2 * half[:, 1]), stops, LABELLED_GAP if any(labels) else LANE_GAP)
    along, start, stop = (np.zeros(len(layout.lanes)) for _ in range(3))
    at = 0.0
    need = labels if sideways else lines
    for number, layer in enumerate(layout.layers):
        spots, reach = list(layer), max((half[spot, 0] for spot in layer if spot < len(half)), default=0.1)
        short = [one for one, path in zip(need, layout.paths, strict=True) if len(path) == 2 and path[1] in layer]
        crowd = 1.0 if sum(map(bool, short)) < 3 else 1.7  # labels that stand one after the other
        at += (crowd * max([0.0, *short]) + GAP if number else 0.0) + reach
        along[spots], start[spots], stop[spots] = at, at - reach, at + reach
        at += reach
    return _Place(layout, along, start, stop, half, sideways)


def _bows(drawing: Drawing) -> list[float]:
    """How far each edge bends aside: those between the same two nodes part ways."""
    seen: dict[tuple[int, int], int] = {}
    bows = []
    for begin, end, _ in drawing.edges:
        number = seen[begin, end] = seen.get((begin, end), 0) + 1
        bows.append((number // 2) * (0.5 if number % 2 else -0.5))
    return bows


def _route(place: _Place, path: Sequence[int], bow: float) -> tuple[Array, list[int]]:
    """An edge's way as points and matplotlib's path codes: straight through the layers, bent between them."""
    from matplotlib.path import Path

    lanes, last = place.layout.lanes, len(path) - 1
    begin, end = path[0], path[last]
    points = [place.point(place.along[begin] + place.half[begin, 0], lanes[begin])]
    codes: list[int] = [int(Path.MOVETO)]
    for u, v in pairwise(path):
        leave, arrive = place.stop[u], place.start[v]
        middle = (leave + arrive) / 2
        curve = [(leave, lanes[u]), (middle, lanes[u] + bow), (middle, lanes[v] + bow), (arrive, lanes[v])]
        points += [place.point(*one) for one in curve]
        codes += [int(Path.LINETO), *[int(Path.CURVE4)] * 3]
    points.append(place.point(place.along[end] - place.half[end, 0], lanes[end]))
    return np.array(points), [*codes, int(Path.LINETO)]


def _draw_edge(axes: Axes, place: _Place, path: Sequence[int], route: tuple[Array, list[int]]) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    colour = ORANGE if len(path) > 2 else LINK
    points, codes = route
    axes.add_patch(PathPatch(Path(points, codes), edgecolor=colour, facecolor="none", linewidth=1.3, zorder=2))
    along, across = place.along[path[-1]] - place.half[path[-1], 0], place.layout.lanes[path[-1]]
    corners = [(along, across), (along - HEAD, across - HEAD / 2.4), (along - HEAD, across + HEAD / 2.4)]
    axes.add_patch(Polygon([place.point(*one) for one in corners], facecolor=colour, edgecolor="none", zorder=2.5))


def _label_spots(drawing: Drawing, place: _Place, routes: Sequence[tuple[Array, list[int]]]) -> dict[int, Array]:
    """Where each edge's label stands: on its lane, in the middle; or on its way to the next layer, where it is farthest
    from the labels there already. By the edge's number."""
    spots: dict[int, Array] = {}
    for number, ((_, _, label), path) in enumerate(zip(drawing.edges, place.layout.paths, strict=True)):
        if not label:
            continue
        if len(path) > 2:
            spot = path[len(path) // 2]
            spots[number] = np.array(place.point(place.along[spot], place.layout.lanes[spot]))
            continue
        curve = [_bezier(routes[number][0][1:5], t) for t in WHERE]
        spots[number] = max(curve, key=lambda point: _clearance(point, list(spots.values())))
    return spots


def _bezier(points: Array, t: float) -> Array:
    """The point at `t`, 0 to 1, of a cubic Bezier curve with these four points (4, 2)."""
    weights = np.array([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return np.asarray(weights @ points)


def _clearance(point: Array, others: Sequence[Array]) -> float:
    """How far a label's centre is from the nearest other, in label heights, up to one and a half."""
    apart = [max(abs(point[1] - other[1]) / 0.2, abs(point[0] - other[0]) / 0.8) for other in others]
    return float(min([1.5, *apart]))


def _draw_label(axes: Axes, spot: Array, text: str, colour: str) -> None:
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    axes.text(
        float(spot[0]),
        float(spot[1]),
        text,
        fontsize=SMALL,
        color=colour,
        ha="center",
        va="center",
        bbox=box,
        zorder=2.8,
    )


def _draw_node(axes: Axes, text: str, centre: Array, half: Array, colours: tuple[str, str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, border = colours
    inset = 0.05
    box = FancyBboxPatch(
        (float(centre[0] - half[0] + inset), float(centre[1] - half[1] + inset)),
        float(2 * (half[0] - inset)),
        float(2 * (half[1] - inset)),
        boxstyle=f"round,pad={inset},rounding_size=0.07",
        facecolor=fill,
        edgecolor=border,
        linewidth=1.2,
        zorder=3,
    )
    axes.add_patch(box)
    axes.text(
        float(centre[0]),
        float(centre[1]),
        text,
        fontsize=FONT,
        color=INK,
        ha="center",
        va="center",
        zorder=4,
        linespacing=1.25,
    )


def _colours(drawing: Drawing) -> list[tuple[str, str]]:
    """Grey for where the network begins and ends, and for sums; one colour for what does the same."""
    operations = drawing.operations or ("",) * len(drawing.nodes)
    known = dict.fromkeys(filter(None, operations))
    fills = {one: FILLS[number % len(FILLS)] for number, one in enumerate(known)}
    return [fills.get(one, ENDS) for one in operations]


def _size(text: str) -> tuple[float, float]:
    """Inches wide and high of a node's box."""
    lines = text.split("\n")
    return max(_width(text, FONT) + 2 * PAD, 0.34), len(lines) * LINE * FONT * 1.12 + 2 * PAD - 0.04


def _width(text: str, font: float) -> float:
    return max(len(line) for line in text.split("\n")) * LETTER * font
