"""Networks of operations: which are akin, and what a child has from its parent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.morphism import akin, distance
from retrain.search.warm import inherit
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
