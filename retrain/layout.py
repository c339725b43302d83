"""Where the nodes of a drawn network stand: layers by depth, and a lane of its own for every edge that skips a layer.

After Sugiyama et al. 1981, "Methods for Visual Understanding of Hierarchical System Structures": a node's layer is the
length of the longest way to it; an edge over several layers gets a stop in each, which takes room as a node does, so
that it passes beside nodes and never through them; the order within layers is that of few crossings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression

from registry.metrics import Array
from retrain.families.drawing import Drawing

SWEEPS = 12
STRAIGHT = {0: 6.0, 1: 1.0, 2: 6.0}
"""How much a link between neighbouring layers wants to be straight, by how many of its ends are stops of a long edge:
a chain keeps its line and a long edge its lane, which bends where it leaves and joins the nodes."""


@dataclass(frozen=True)
class Layout:
    """`layers` of spots, which are numbered: the drawing's nodes first, then the stops of long edges. `paths` are the
    spots of each of the drawing's edges, from its first node to its last; `lanes` (spots,) are positions across."""

    layers: tuple[tuple[int, ...], ...]
    paths: tuple[tuple[int, ...], ...]
    lanes: Array


def depths(drawing: Drawing) -> list[int]:
    """The longest way to each node, in edges."""
    found = [0] * len(drawing.nodes)
    for begin, end, _ in sorted(drawing.edges, key=lambda edge: edge[1]):
        found[end] = max(found[end], found[begin] + 1)
    return found


def lay_out(drawing: Drawing, sizes: Sequence[float], stop_sizes: Sequence[float], gap: float) -> Layout:
    """Layers and lanes. `sizes` is how much room across each node needs, `stop_sizes` each edge's stops, `gap` what is
    left between two of them."""
    depth = depths(drawing)
    layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for node, layer in enumerate(depth):
        layers[layer].append(node)
    paths, room = [], list(sizes)
    taken = [[0] * len(layers) for _ in (0, 1)]  # long edges on either side, so that a chain stays in the middle
    for place, (begin, end, _) in enumerate(drawing.edges):
        path = [begin]
        passed = range(depth[begin] + 1, depth[end])
        side = min((0, 1), key=lambda one: sum(taken[one][layer] for layer in passed))
        for layer in passed:
            path.append(len(room))
            layers[layer].insert(0 if side == 0 else len(layers[layer]), len(room))
            taken[side][layer] += 1
            room.append(stop_sizes[place])
        paths.append((*path, end))
    links = [link for path in paths for link in pairwise(path)]
    ordered = _ordered(layers, links)
    lanes = _lanes(ordered, links, np.asarray(room), gap, len(drawing.nodes))
    return Layout(tuple(map(tuple, ordered)), tuple(paths), lanes)


Links = Sequence[tuple[int, int]]


def crossings(layers: Sequence[Sequence[int]], links: Links) -> int:
    """How many pairs of links between neighbouring layers cross."""
    place = {spot: at for layer in layers for at, spot in enumerate(layer)}
    level = {spot: number for number, layer in enumerate(layers) for spot in layer}
    found = 0
    for number in range(len(layers) - 1):
        ends = np.array([(place[u], place[v]) for u, v in links if level[u] == number])
        if len(ends):
            ahead = np.sign(ends[:, None] - ends[None])
            found += int((ahead[..., 0] * ahead[..., 1] < 0).sum()) // 2
    return found


def _ordered(layers: list[list[int]], links: Links) -> list[list[int]]:
    """The order of fewest crossings that sweeps down and up by the mean place of neighbours come across."""
    best, fewest = [list(layer) for layer in layers], crossings(layers, links)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near: dict[int, list[int]] = {}
        for u, v in links:
            near.setdefault(v if down else u, []).append(u if down else v)
        place = {spot: at for layer in layers for at, spot in enumerate(layer)}
        for layer in layers if down else reversed(layers):
            means = {spot: float(np.mean([place[one] for one in near.get(spot, [spot])])) for spot in layer}
            layer.sort(key=means.__getitem__)
            place |= {spot: at for at, spot in enumerate(layer)}
        if (found := crossings(layers, links)) < fewest:
            best, fewest = [list(layer) for layer in layers], found
    return best


def _lanes(layers: Sequence[Sequence[int]], links: Links, room: Array, gap: float, nodes: int) -> Array:
    """Positions across: each spot near its neighbours, in the order of its layer, none nearer than their room."""
    lanes = np.zeros(len(room))
    offsets = []
    for layer in layers:
        widths = room[list(layer)]
        steps = (widths[1:] + widths[:-1]) / 2 + gap
        offsets.append(np.concatenate([[0.0], np.cumsum(steps)]))
        lanes[list(layer)] = offsets[-1] - offsets[-1][-1] / 2
    pulls: dict[int, list[tuple[int, float]]] = {spot: [] for spot in range(len(room))}
    for u, v in links:
        weight = STRAIGHT[int(u >= nodes) + int(v >= nodes)]
        pulls[u].append((v, weight))
        pulls[v].append((u, weight))
    for _ in range(SWEEPS * 4):
        for layer, offset in zip(layers, offsets, strict=True):
            _pull(lanes, layer, offset, pulls)
    return lanes - (lanes.max() + lanes.min()) / 2 if len(lanes) else lanes


def _pull(lanes: Array, layer: Sequence[int], offset: Array, pulls: dict[int, list[tuple[int, float]]]) -> None:
    """Move one layer to where its neighbours draw it, as near as order and room allow (isotonic regression)."""
    weights = np.array([sum(weight for _, weight in pulls[spot]) or 1e-3 for spot in layer])
    wanted = [
        sum(lanes[other] * weight for other, weight in pulls[spot]) / total if pulls[spot] else lanes[spot]
        for spot, total in zip(layer, weights, strict=True)
    ]
    lanes[list(layer)] = isotonic_regression(np.array(wanted) - offset, weights=weights).x + offset
