"""Networks of operations: which are akin, and what a child has from its parent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retrain.families import catalogue
from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.families.picture import PictureNet
from retrain.image_source import ImageInput
from retrain.search.defaults import DEFAULTS
from retrain.search.inputs import Layout
from retrain.search.morphism import akin, distance
from retrain.search.space import SearchSpace
from retrain.search.warm import Elder, PriorMembers, inherit
from tests.retrain.test_warm import OLD, build, candidate_of, grown

MUTATIONS: list[tuple[str, dict[str, Choice], str]] = [
    ("chain", {"kind_2": "attention"}, "body.layers.1."),
    ("cell", {"edge_0_1": "pool"}, "body.cells.0.edges.0_1."),
    ("cell", {"edge_0_2": "narrow"}, "body.cells.0.edges.0_2."),
    ("darts", {"normal_3_first": "gated"}, ".edges.0_3."),
    ("graph", {"node_3": "gated"}, "body.cells.0.edges.3_3o."),
    ("hierarchical", {"motif_b_1_2": "attention"}, "body.cells.0.edges.1-2_2."),
]


@pytest.mark.parametrize(("family", "mutation", "place"), MUTATIONS)
def test_a_child_has_all_of_its_parent_but_the_operation_that_changed(
    family: str, mutation: dict[str, Choice], place: str
) -> None:
    parent, child = candidate_of(family), candidate_of(family, **mutation)
    old, new = build(family, OLD, 0), build(family, OLD, 1, **mutation)
    own, state = new.state_dict(), inherit(new, old.state_dict(), OLD, OLD, keep=1.0)
    assert akin(parent, child)
    assert 0 < distance(parent, child) <= 2
    assert state is not None
    new.load_state_dict(state)
    begun = {name for name in own if name not in old.state_dict()}
    assert all(torch.equal(state[name], own[name]) for name in begun)
    assert all(torch.equal(state[name], old.state_dict()[name]) for name in own.keys() - begun)
    assert all(place in name for name in begun)
    assert len(own.keys() - begun) > 5


def test_networks_of_operations_are_akin_where_they_share_half_and_the_width() -> None:
    one, other = candidate_of("cell"), candidate_of("cell", edge_0_1="narrow", edge_1_2="wide", edge_2_3="pool")
    assert not akin(one, other)
    assert akin(one, candidate_of("cell", cells=3))
    assert not akin(one, candidate_of("cell", width=128))
    assert not akin(one, Candidate(family="chain", choices=one.choices))
    assert not akin(candidate_of("graph"), Candidate(family="graph", choices={"width": 64}))
    near, far = candidate_of("cell", edge_0_2="pool"), candidate_of("cell", edge_0_2="pool", cells=4)
    assert distance(one, near) == 1
    assert distance(one, far) == pytest.approx(1 + np.log(4))


def test_more_cells_begin_anew_behind_those_that_were_there() -> None:
    old, new = build("cell", OLD, 0, cells=1), build("cell", OLD, 1, cells=2)
    own = {name: value.clone() for name, value in new.state_dict().items()}
    grown(old, new)
    kept, begun = "body.cells.0.edges.0_1.wide.linear.weight", "body.cells.1.edges.0_1.wide.linear.weight"
    assert torch.equal(new.state_dict()[kept], old.state_dict()[kept])
    assert torch.equal(new.state_dict()[begun], own[begun])


CONVNETS = SearchSpace.of(("convnet",), 420, 9, "binary", "image")


def convnet(**own: Choice) -> Candidate:
    candidate = CONVNETS.fit(Candidate(family="convnet", choices=own), DEFAULTS)
    assert candidate is not None
    return candidate


def build_convnet(layout: Layout, seed: int, channels: int = 1, **own: Choice) -> PictureNet:
    """A network whose batch norms are no identity; images of 12 pixels."""
    torch.manual_seed(seed)
    image = ImageInput(size=12, channels=channels, mean=(100.0,) * channels, std=(50.0,) * channels)
    network = catalogue.build(convnet(**own), len(layout.numeric), layout.cardinalities, 2, image)
    assert isinstance(network, PictureNet)
    for one in network.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean, one.running_var = torch.randn(one.num_features), 0.5 + torch.rand(one.num_features)
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)
    return network.eval()


@pytest.mark.parametrize("layout", [OLD, Layout(numeric=(), categorical=())], ids=["columns", "image alone"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"stem_width": 16}, {"stem_width": 32}),
        ({"stem_width": 16}, {"stem_width": 24}),
        ({"stem_width": 24, "squeeze": False, "coarse": False}, {"stem_width": 48}),
        ({"stem_width": 16, "squeeze": True}, {"stem_width": 32}),
        ({"blocks": 1, "squeeze": True}, {"blocks": 2}),
        ({"stem_width": 16, "blocks": 1}, {"stem_width": 64, "blocks": 2}),
    ],
)
def test_wider_and_deeper_convolutional_networks_begin_with_the_same_answers(
    layout: Layout, before: dict[str, Choice], after: dict[str, Choice]
) -> None:
    old, new = build_convnet(layout, 0, **before), build_convnet(layout, 1, **{**before, **after})
    state = inherit(new, old.state_dict(), layout, layout, keep=1.0)
    assert state is not None
    new.load_state_dict(state)
    numeric, categories = torch.randn(7, len(layout.numeric)), torch.randint(2, (7, len(layout.categorical)))
    images = torch.randint(256, (7, 1, 12, 12), dtype=torch.uint8)
    torch.testing.assert_close(new(numeric, categories, images), old(numeric, categories, images))


def test_smaller_convolutional_networks_take_what_there_is() -> None:
    old, new = build_convnet(OLD, 0, stem_width=32, blocks=2), build_convnet(OLD, 1, stem_width=16, blocks=1)
    state = inherit(new, old.state_dict(), OLD, OLD, keep=1.0)
    assert state is not None
    stem, table = state["body.stem.0.weight"], state["head.weight"][:, -64:]
    assert torch.equal(stem, old.state_dict()["body.stem.0.weight"][:16])
    assert torch.equal(table, old.state_dict()["head.weight"][:, -64:])


def test_images_of_other_channels_and_other_ways_through_begin_anew() -> None:
    old = build_convnet(OLD, 0)
    assert inherit(build_convnet(OLD, 1, channels=3), old.state_dict(), OLD, OLD) is None
    assert not akin(convnet(squeeze=True), convnet(squeeze=False))
    assert not akin(convnet(coarse=True), convnet(coarse=False))
    assert inherit(build_convnet(OLD, 1, squeeze=True), old.state_dict(), OLD, OLD) is None


def test_the_nearest_convolutional_network_hands_down() -> None:
    by_prefix = {
        "a.": Elder(candidate=convnet(stem_width=64, blocks=2), layout=OLD),
        "b.": Elder(candidate=convnet(stem_width=24, blocks=1), layout=OLD),
        "c.": Elder(candidate=convnet(stem_width=32, blocks=1, squeeze=True), layout=OLD),
    }
    assert PriorMembers(by_prefix=by_prefix).nearest(convnet(stem_width=32, blocks=1, squeeze=False)) == "b."
    assert PriorMembers(by_prefix=by_prefix).nearest(convnet(stem_width=48, blocks=2, squeeze=False)) == "a."
    assert distance(convnet(stem_width=16, blocks=1), convnet(stem_width=32, blocks=2)) == pytest.approx(np.log(4))
