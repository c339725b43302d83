"""The spaces of architectures: bodies for images, what is built and what is not, names, drawings and costs."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from retrain.families.base import Candidate
from retrain.families.catalogue import FAMILIES, family_named
from retrain.families.cost import flops, parameters
from retrain.families.drawing import Drawing
from retrain.families.image_operations import IMAGE
from retrain.families.modality import Modality, Style
from retrain.families.parameters import Choice
from retrain.families.spaces import ArchitectureSpace
from retrain.families.stack import Body
from retrain.families.table_operations import GROUPS, TABLE, GroupAttention, GroupMean
from retrain.families.wiring import Edge, Wiring
from retrain.search.defaults import DEFAULTS

SPACES = [family for family in FAMILIES if isinstance(family, ArchitectureSpace)]
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
every_modality = pytest.mark.parametrize("modality", [TABLE, IMAGE], ids=lambda modality: modality.name)


def drawn(space: ArchitectureSpace, modality: Modality, count: int, **own: Choice) -> list[Candidate]:
    """Small candidates at random."""
    rng, found = np.random.default_rng(3), []
    small = {"width": modality.widths[0], "cells": 1, **{f"width_{place}": modality.widths[0] for place in range(2, 7)}}
    for _ in range(count):
        choices: dict[str, Choice] = {}
        for one in space.dimensions(modality):
            if one.when is None or one.when.holds(choices):
                choices[one.name] = {**small, **own}.get(one.name) or one.sample(rng)
        found.append(Candidate(family=space.name, choices=choices))
    return found


def images(n: int, side: int) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(side))


@every_space
@pytest.mark.parametrize("side", [28, 33, 64, 224])
def test_images_of_any_size_become_features(space: ArchitectureSpace, side: int) -> None:
    (candidate,) = drawn(space, IMAGE, 1)
    body = space.body(candidate, IMAGE, d_in=3, side=side).eval()
    with torch.no_grad():
        features = body(images(2, side))
        alone = body(images(2, side)[1:])
    assert features.shape == (2, body.d_out)
    assert features.isfinite().all()
    torch.testing.assert_close(features[1:], alone, rtol=1e-3, atol=1e-4)


@every_space
def test_all_of_a_body_for_images_learns(space: ArchitectureSpace) -> None:
    for candidate in drawn(space, IMAGE, 8):
        body = space.body(candidate, IMAGE, d_in=3, side=28)
        body(images(4, 28)).square().sum().backward()
        assert [name for name, one in body.named_parameters() if one.grad is None] == []


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")  # torch of itself
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
@pytest.mark.parametrize("kinds", [("excitation", "gated", "residual"), ("pool", "max", "pool")])
def test_a_body_for_images_becomes_a_graph(tmp_path, kinds: tuple[str, str, str]) -> None:
    space = family_named("chain")
    assert isinstance(space, ArchitectureSpace)
    own = {f"kind_{place}": kind for place, kind in enumerate(kinds, start=1)}
    (candidate,) = drawn(space, IMAGE, 1, length=3, width_1=16, width_3=32, **own)
    body, n = space.body(candidate, IMAGE, d_in=3, side=28).eval(), torch.export.Dim("n")
    program = torch.onnx.export(
        body, (images(3, 28),), dynamo=True, dynamic_shapes=({0: n},), external_data=False, verbose=False
    )
    program.save(tmp_path / "body.onnx")
    session = ort.InferenceSession(tmp_path / "body.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        found = session.run(None, {session.get_inputs()[0].name: images(count, 28).numpy()})[0]
        np.testing.assert_allclose(found, body(images(count, 28)).detach().numpy(), atol=1e-4)


@every_space
def test_its_dimensions_for_images_are_told_by_the_same_names(space: ArchitectureSpace) -> None:
    tables, pictures = ({one.name for one in space.dimensions(modality)} for modality in (TABLE, IMAGE))
    assert tables == pictures
    assert len(pictures) < 30


@every_space
def test_an_architecture_for_images_is_written_in_one_way(space: ArchitectureSpace) -> None:
    for candidate in drawn(space, IMAGE, 5):
        written = Candidate(family=space.name, choices=space.canonical(candidate.choices))
        assert space.canonical(written.choices) == written.choices
        bodies = [space.body(one, IMAGE, d_in=3, side=28) for one in (candidate, written)]
        assert parameters(bodies[0]) == parameters(bodies[1])


@every_modality
def test_operations_keep_the_shape_and_layers_the_rows(modality: Modality) -> None:
    x = torch.randn(4, 32) if modality is TABLE else torch.randn(4, 32, 6, 6)
    for normalisation in modality.normalisations:
        style = Style("silu", normalisation, 0.1)
        for name, make in modality.operations.items():
            assert make(32, style)(x).shape == x.shape, name
        for name, layer in modality.layers.items():
            assert layer(32, 64, style)(x).shape == (4, 64, *x.shape[2:]), name
    assert modality.reduce(32, 16, Style())(x).shape[:2] == (4, 16)


def test_both_modalities_have_the_operations_of_a_cell() -> None:
    assert {"skip", "narrow", "wide", "pool"} <= TABLE.operations.keys() & IMAGE.operations.keys()


def test_attention_sees_which_group_is_which() -> None:
    torch.manual_seed(0)
    attention = GroupAttention(2 * GROUPS, 2 * GROUPS, Style(normalisation="layer")).eval()
    x = torch.randn(1, 2 * GROUPS)
    assert not torch.allclose(attention(x).sort().values, attention(x.roll(2, dims=1)).sort().values, atol=1e-3)


def test_groups_are_averaged_with_their_neighbours() -> None:
    x = torch.zeros(1, 2 * GROUPS)
    x[0, :2] = torch.tensor([3.0, 6.0])
    averaged = GroupMean()(x)[0].reshape(GROUPS, 2)
    expected = torch.tensor([1.0, 2.0])
    assert all(torch.equal(averaged[place], expected) for place in (GROUPS - 1, 0, 1))
    assert averaged[2 : GROUPS - 1].abs().max() == 0


def test_a_layer_that_pools_changes_the_width_by_a_convolution_alone() -> None:
    """Of the same width it trains nothing, and chains that differ in its activation are one, but for the ends."""
    x, style = images(2, 6), Style()
    for kind, expected in (("pool", x[0, 0, :2, :2].mean()), ("max", x[0, 0, :2, :2].max())):
        same, wider = IMAGE.layers[kind](3, 3, style), IMAGE.layers[kind](3, 8, style)
        assert same(x)[0, 0, 0, 0] == pytest.approx(expected.item(), abs=1e-6)
        assert (parameters(same), parameters(wider)) == (0, 3 * 8 + 2 * 8)
    space = family_named("chain")
    for place, width, one in ((1, 16, False), (2, 16, True), (2, 32, False), (3, 16, False)):
        own = {"length": 3, "width_1": 16, "width_2": width, f"kind_{place}": "max", "kind_3": "max"}
        first, other = ({**own, f"activation_{place}": each} for each in ("relu", "silu"))
        pair = [drawn(space, IMAGE, 1, **each)[0].choices for each in (first, other)]  # type: ignore[arg-type]
        assert (space.canonical(pair[0]) == space.canonical(pair[1])) is one


def body_of(family: str, **own: Choice) -> Body:
    space = family_named(family)
    assert isinstance(space, ArchitectureSpace)
    choices = {**DEFAULTS, "width": 64, **own}
    return space.body(Candidate(family=family, choices=choices), TABLE)


def test_modules_bear_names_that_do_not_depend_on_the_others() -> None:
    names = body_of("cell", cells=2).state_dict()
    assert {"cells.0.edges.0_1.wide.linear.weight", "cells.1.edges.1_2.narrow.norm.bias"} <= names.keys()
    assert "cells.2.edges.2_4.narrow.linear.weight" in body_of("darts").state_dict()
    assert "cells.0.edges.2_2o.wide.linear.weight" in body_of("graph").state_dict()
    assert "cells.0.edges.0_0-1.wide.linear.weight" in body_of("hierarchical").state_dict()
    assert "layers.1.residual.branch.linear.weight" in body_of("chain").state_dict()


def test_what_is_on_no_path_is_not_built() -> None:
    dead = {"edge_0_1": "wide", "edge_1_2": "wide", "edge_0_3": "narrow"}
    none = {"edge_0_2": "none", "edge_1_3": "none", "edge_2_3": "none"}
    edges = [name for name in body_of("cell", **dead, **none).state_dict() if "edges" in name]
    assert edges
    assert all("edges.0_3.narrow" in name for name in edges)


@pytest.mark.parametrize("family", ["cell", "hierarchical"])
def test_a_cell_of_no_path_passes_on_what_it_gets(family: str) -> None:
    prefix = "edge" if family == "cell" else "join"
    none = {f"{prefix}_{i}_{j}": "none" for j in range(1, 4) for i in range(j)}
    body = body_of(family, **{**none, f"{prefix}_0_1": "wide" if family == "cell" else "a"}).eval()
    x = torch.randn(3, 64)
    torch.testing.assert_close(body(x), body.finish(x))


def test_costs_are_those_counted_by_hand() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert parameters(network) == 4 * 3 + 3 + 3 * 2 + 2
    assert flops(network, torch.randn(5, 4)) == 5 * 2 * (4 * 3 + 3 * 2)
    conv = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    assert parameters(conv) == 3 * 8 * 25 + 8
    assert flops(conv, torch.randn(2, 3, 10, 10)) == 2 * (5 * 5) * 2 * (3 * 25 * 8)
    assert flops(nn.Conv2d(6, 6, 3, groups=6), torch.randn(1, 6, 4, 4)) == 2 * 2 * 2 * (9 * 6)
    assert flops(nn.Embedding(10, 4), torch.tensor([1, 2])) == 0


def test_a_cell_costs_what_its_operations_do() -> None:
    """Width 64: "wide" 64 to 128 and back, "narrow" 64 to 64, with normalisations of 128 numbers each."""
    body = body_of("cell", cells=3)
    wide, narrow, norm = 64 * 128 + 128 + 128 * 64 + 64, 64 * 64 + 64, 2 * 64
    assert parameters(body) == 3 * (wide + narrow + 2 * norm) + norm
    assert flops(body, torch.randn(7, 64)) == 7 * 3 * 2 * (2 * 64 * 128 + 64 * 64)


def edges_of(family: str, choices: dict[str, Choice]) -> set[tuple[str, str, str]]:
    drawing = family_named(family).drawing(choices)
    return {(drawing.nodes[source], drawing.nodes[target], label) for source, target, label in drawing.edges}


def test_drawings_follow_the_architecture() -> None:
    choices = {**DEFAULTS, "width": 64}
    assert family_named("chain").drawing(choices).nodes == ("inputs", *["residual 128 relu"] * 2, "output")
    cell = family_named("cell").drawing(choices)
    assert cell.nodes == ("0", "1", "2", "3")
    assert (0, 1, "wide") in cell.edges
    assert cell.caption == "cells: 1, width: 64"
    graph = family_named("graph").drawing(choices)
    assert graph.nodes == ("1 narrow", "2 wide", "3 narrow", "4 wide", "5 narrow")
    edges = edges_of("graph", choices)
    assert {("1 narrow", "2 wide", ""), ("1 narrow", "3 narrow", "skip")} <= edges
    assert ("normal 0", "normal 2", "skip") in edges_of("darts", choices)
    assert ("0", "0-1", "wide") in edges_of("hierarchical", choices)


def test_a_drawing_is_a_graph_in_order() -> None:
    with pytest.raises(ValueError, match="expected nodes of different names"):
        Drawing.named(("a", "a"), ())
    for edge in ((0, 2, ""), (1, 0, "")):
        with pytest.raises(ValueError, match="expected edges forward between 2 nodes"):
            Drawing(("a", "b"), (edge,))


def test_a_wiring_without_a_path_gets_a_skip_connection() -> None:
    wiring = Wiring.between("abc", [Edge("a", "b", "wide"), Edge("b", "c", "none")])
    assert wiring.live().edges == ()
    assert wiring.joined().edges == (Edge("a", "c", "skip"),)
    assert list(wiring.joined().paths("a")) == [("skip",)]


def test_paths_are_encoded_by_their_operations() -> None:
    choices = {**DEFAULTS, "width": 64}
    cell = family_named("cell")
    encoding = cell.path_encoding(choices)
    assert encoding is not None
    assert len(encoding) == 4 + 4**2 + 4**3
    assert sum(encoding) == 3  # skip; wide, skip; wide, narrow, skip
    assert family_named("mlp").path_encoding(choices) is None
