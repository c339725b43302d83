"""Drawn networks: layers by depth, no edge through a node, nothing upon another, and every word is there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch, PathPatch

from retrain.families.catalogue import FAMILIES, build, family_named
from retrain.families.drawing import Drawing
from retrain.families.wiring import WIRE
from retrain.layout import crossings, depths, lay_out
from retrain.network_figure import ENDS, FILLS, _colours, draw_networks, network
from retrain.search.defaults import DEFAULTS
from retrain.search.space import SearchSpace

CELL = Drawing(
    ("c(k-2)", "c(k-1)", "0", "1", "2", "3", "concat"),
    (
        (0, 2, "linear relu"), (1, 2, "skip"), (0, 3, "gated"), (1, 3, "linear silu"), (1, 4, "linear relu"),
        (2, 4, "skip"), (2, 5, "dropout"), (3, 5, "linear elu"), (2, 6, ""), (3, 6, ""), (4, 6, ""), (5, 6, ""),
    ),
)  # fmt: skip
SKIPS = Drawing(
    ("inputs", "linear 128", "batch norm", "relu", "+", "linear 64", "silu", "+", "concat", "output"),
    (
        (0, 1, ""), (1, 2, ""), (2, 3, ""), (3, 4, ""), (1, 4, ""), (4, 5, ""), (5, 6, ""), (6, 7, ""), (4, 7, "skip"),
        (1, 8, ""), (7, 8, ""), (0, 8, ""), (8, 9, ""),
    ),
)  # fmt: skip
CHAIN = Drawing.chain("inputs", *["linear 64\nrelu"] * 3, "output")
TWINS = Drawing(("inputs", "sum", "output"), ((0, 1, "linear"), (0, 1, "skip"), (1, 2, "")))
DRAWINGS = {"cell": CELL, "skips": SKIPS, "chain": CHAIN, "twins": TWINS}


def drawn_at_random(seed: int) -> Drawing:
    """A connected graph of 4 to 12 nodes."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 13))
    edges = {(int(rng.integers(0, node)), node) for node in range(1, count)}
    edges |= {tuple(sorted(rng.choice(count, 2, replace=False).tolist())) for _ in range(count)}
    return Drawing(tuple(f"op {n % 4}" for n in range(count)), tuple((u, v, "") for u, v in sorted(edges)))


def boxes(drawing: Drawing) -> Iterator[tuple[float, float, float, float]]:
    """Left, bottom, right, top of each node's box in the picture."""
    for patch in network(drawing, "a network").axes[0].patches:
        if isinstance(patch, FancyBboxPatch):
            inset = patch.get_boxstyle().pad
            x, y, width, height = patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()
            yield x - inset, y - inset, x + width + inset, y + height + inset


def ways(drawing: Drawing) -> list[np.ndarray]:
    """Points along each edge, close together."""
    paths = [one.get_path() for one in network(drawing, "a network").axes[0].patches if isinstance(one, PathPatch)]
    lines = [path.interpolated(1).to_polygons(closed_only=False)[0] for path in paths]
    return [np.concatenate([np.linspace(a, b, 20) for a, b in pairwise(line)]) for line in lines]


@pytest.mark.parametrize("drawing", [*DRAWINGS.values(), *map(drawn_at_random, range(12))])
def test_no_edge_runs_through_a_node_and_no_node_stands_on_another(drawing: Drawing) -> None:
    found = list(boxes(drawing))
    assert len(found) == len(drawing.nodes)
    for number, (left, bottom, right, top) in enumerate(found):
        for other in found[:number]:
            assert other[2] <= left or right <= other[0] or other[3] <= bottom or top <= other[1]
    slack = 1e-3
    for (begin, end, _), way in zip(drawing.edges, ways(drawing), strict=True):
        for number, (left, bottom, right, top) in enumerate(found):
            if number in (begin, end):
                continue
            within = (way > [left + slack, bottom + slack]) & (way < [right - slack, top - slack])
            assert not within.all(axis=1).any(), (drawing.nodes[begin], drawing.nodes[end], drawing.nodes[number])


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_word_is_inside_the_picture(name: str) -> None:
    figure = network(DRAWINGS[name], "Network 1 of 2: mlp, weight 0.50")
    figure.canvas.draw()
    texts = figure.axes[0].texts
    wanted = [*DRAWINGS[name].nodes, *(label for _, _, label in DRAWINGS[name].edges if label)]
    assert sorted(text.get_text() for text in texts) == sorted([*wanted, "Network 1 of 2: mlp, weight 0.50"])
    for text in texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.y0 >= 0
        assert extent.x1 <= figure.bbox.width
        assert extent.y1 <= figure.bbox.height


def test_text_fits_into_its_box() -> None:
    figure = network(SKIPS, "skips")
    figure.canvas.draw()
    patches = [one for one in figure.axes[0].patches if isinstance(one, FancyBboxPatch)]
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    for patch, name in zip(patches, SKIPS.nodes, strict=True):
        assert texts[name].get_window_extent().width <= patch.get_window_extent().width


def test_layers_are_the_longest_ways() -> None:
    assert depths(CELL) == [0, 0, 1, 1, 2, 2, 3]
    assert depths(SKIPS) == list(range(10))


def test_a_chain_is_straight_and_long_edges_have_lanes_of_their_own() -> None:
    straight = lay_out(CHAIN, [1.0] * 5, [0.1] * 4, 0.2)
    assert np.ptp(straight.lanes) == pytest.approx(0, abs=1e-9)
    found = lay_out(SKIPS, [1.0] * 10, [0.1] * 13, 0.2)
    for layer in found.layers:
        lanes = np.sort(found.lanes[list(layer)])
        assert (np.diff(lanes) >= 0.3 - 1e-9).all()
    assert [len(path) for path, edge in zip(found.paths, SKIPS.edges, strict=True) if edge[:2] == (0, 8)] == [9]


def test_crossings_that_need_not_be_are_not_there() -> None:
    drawing = Drawing(tuple("abcdef"), ((0, 3, ""), (1, 2, ""), (2, 5, ""), (3, 4, "")))
    found = lay_out(drawing, [1.0] * 6, [0.1] * 4, 0.2)
    links = [link for path in found.paths for link in pairwise(path)]
    assert crossings(found.layers, links) == 0
    assert crossings(((0, 1), (2, 3)), ((0, 3), (1, 2))) == 1


def test_the_same_operation_has_one_colour_and_the_ends_are_grey() -> None:
    colours = _colours(CHAIN)
    assert colours[1] == colours[2] == colours[3] == FILLS[0]
    assert colours[0] == colours[4]
    assert colours[0] not in FILLS


def test_what_does_the_same_has_one_colour_in_every_space() -> None:
    """Nodes of graphs stand under their number; sums are grey, however they are called."""
    choices = {**DEFAULTS, "width": 64, "depth": 2, "expansion": 2.0}
    for family, count in {
        "graph": 2,
        "resnet": 2,
        "mlp": 1,
        "chain": 1,
        "cell": 0,
        "darts": 0,
        "hierarchical": 0,
    }.items():
        drawing = family_named(family).drawing(choices)
        colours = _colours(drawing)
        assert len(set(colours).difference({ENDS})) == count, family
        for text, colour in zip(drawing.nodes, colours, strict=True):
            assert (colour == ENDS) is (text in ("inputs", "+", "output") or count == 0)
    graph = _colours(family_named("graph").drawing(choices))
    assert graph == [FILLS[0], FILLS[1], FILLS[0], FILLS[1], FILLS[0]]
    with pytest.raises(ValueError, match="expected an operation for each of 2 nodes"):
        Drawing(("a", "b"), (), operations=("a",))


def test_every_link_of_a_graph_is_drawn_and_those_past_others_as_skips() -> None:
    """The links are those of the network that is built; one that is on no path is in neither."""
    space, rng = SearchSpace.of(("graph",), 1_000, 9, "binary"), np.random.default_rng(0)
    for candidate in (space.sample(rng) for _ in range(12)):
        drawing = family_named("graph").drawing(candidate.choices)
        numbers = [text.split()[0] for text in drawing.nodes]
        drawn = {(numbers[one], numbers[other]) for one, other, _ in drawing.edges}
        cell = build(candidate, 3, (), 2).body.cells[0]
        built = {(edge.source.rstrip("o"), edge.target) for edge in cell.wiring.edges if edge.operation == WIRE}
        assert drawn == built
        layers = depths(drawing)
        assert all(label == "skip" for one, other, label in drawing.edges if layers[other] > layers[one] + 1)
        figure = network(drawing, "graph")
        arrows = [one for one in figure.axes[0].patches if isinstance(one, PathPatch)]
        assert len(arrows) == len(built)
        assert sum(text.get_text() == "skip" for text in figure.axes[0].texts) == sum(
            label == "skip" for *_, label in drawing.edges
        )


def test_one_picture_for_each_network_the_heaviest_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = []
    for weight, family in zip((0.25, 0.75), FAMILIES, strict=False):
        choices = {}
        for one in family.parameters():
            if one.when is None or one.when.holds(choices):
                choices[one.name] = one.sample(rng)
        members.append({"candidate": {"family": family.name, "choices": choices}, "weight": weight})
    gone = {"candidate": {"family": "gone", "choices": {}}, "weight": 0.0}
    paths = draw_networks(tmp_path, [*members, gone])
    assert [path.name for path in paths] == ["network-1.png", "network-2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert draw_networks(tmp_path, [{"candidate": {}, "weight": 1.0}]) == []
