"""The contract of families that read columns: one suite that each passes. `test_picture_families.py` has the other."""

from __future__ import annotations

import re
import zlib

import numpy as np
import onnxruntime as ort
import pytest
import torch

from registry.errors import TaskError
from retrain.families.base import Candidate, Family, TabularNet
from retrain.families.catalogue import FAMILIES, family_named
from retrain.families.cost import flops, parameters
from retrain.families.embeddings import CategoryEmbedding, InputEncoder, PiecewiseEmbedding
from retrain.search.defaults import DEFAULTS
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace

SHAPES = [(3, (4, 7)), (3, ()), (0, (4, 7))]
TABLES = [family for family in FAMILIES if "table" in family.reads]
every_family = pytest.mark.parametrize("family", TABLES, ids=lambda family: family.name)
every_shape = pytest.mark.parametrize(("d_numeric", "cardinalities"), SHAPES)


def candidates(family: Family, count: int = 6) -> list[Candidate]:
    space = SearchSpace((family,), 1_000, 9, "binary")
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(count)]
    for kind in ("periodic", "piecewise"):
        embedding = space.fit(Candidate(family=family.name, choices={"numeric_embedding": kind}), DEFAULTS)
        assert embedding is not None
        drawn.append(embedding)
    return drawn


def rows(n: int, d_numeric: int, cardinalities: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    codes = [torch.randint(k, (n,), generator=generator) for k in cardinalities]
    categories = torch.stack(codes, dim=1) if codes else torch.zeros(n, 0, dtype=torch.int64)
    return torch.randn(n, d_numeric, generator=generator), categories


@every_family
@every_shape
def test_gives_the_outputs_asked_for(family: Family, d_numeric: int, cardinalities: tuple[int, ...]) -> None:
    for candidate in candidates(family):
        network = family.build(candidate, d_numeric, cardinalities, 3)
        outputs = network(*rows(5, d_numeric, cardinalities))
        assert outputs.shape == (5, 3)
        assert outputs.isfinite().all()


@every_family
def test_every_parameter_learns(family: Family) -> None:
    for candidate in candidates(family):
        network = family.build(candidate, 3, (4, 7), 2)
        network(*rows(64, 3, (4, 7))).square().sum().backward()
        assert [name for name, one in network.named_parameters() if one.grad is None] == []


@every_family
def test_can_be_brought_to_another_level(family: Family) -> None:
    """Outputs are divided by the temperature, then the biases are added, whatever the network is made of."""
    for candidate in candidates(family):
        network = family.build(candidate, 3, (4, 7), 2).eval()
        with torch.no_grad():
            before = network(*rows(5, 3, (4, 7)))
            network.level(2.0, torch.tensor([0.5, -1.0]))
            after = network(*rows(5, 3, (4, 7)))
        assert torch.allclose(after, before / 2 + torch.tensor([0.5, -1.0]), atol=1e-6)


@every_family
def test_is_the_same_by_seed(family: Family) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(family.build(candidates(family)[0], 3, (4,), 2).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@every_family
def test_rows_do_not_meet_in_evaluation(family: Family) -> None:
    for candidate in candidates(family):
        network = family.build(candidate, 3, (4, 7), 2).eval()
        numeric, categories = rows(6, 3, (4, 7))
        with torch.no_grad():
            together = network(numeric, categories)
            alone = torch.cat([network(numeric[i : i + 1], categories[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_family
def test_names_the_parts_a_warm_start_matches(family: Family) -> None:
    for candidate in candidates(family):
        network = family.build(candidate, 3, (4, 7), 2)
        wide, narrow = network.inputs.widths
        assert network.state_dict()["first.weight"].shape[1] == 3 * wide + 2 * narrow
        assert network.state_dict()["inputs.words.table.weight"].shape == (11, narrow)
        if candidate.text("numeric_embedding") == "periodic":
            assert network.state_dict()["inputs.numbers.frequencies"].shape[0] == 3


@every_family
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")  # torch of itself
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
def test_becomes_a_graph_with_any_number_of_rows(family: Family, tmp_path) -> None:
    network = family.build(candidates(family)[-1], 3, (4, 7), 2).eval()
    n = torch.export.Dim("n")
    program = torch.onnx.export(
        network,
        rows(3, 3, (4, 7)),
        dynamo=True,
        dynamic_shapes=({0: n}, {0: n}),
        input_names=["numeric", "categories"],
        external_data=False,
        verbose=False,
    )
    program.save(tmp_path / "network.onnx")
    session = ort.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 17):
        numeric, categories = rows(count, 3, (4, 7))
        found = session.run(None, {"numeric": numeric.numpy(), "categories": categories.numpy()})[0]
        np.testing.assert_allclose(found, network(numeric, categories).detach().numpy(), atol=1e-5)


@every_family
def test_is_written_in_one_way(family: Family) -> None:
    space = SearchSpace((family,), 1_000, 9, "binary")
    for candidate in candidates(family):
        once = family.canonical(candidate.choices)
        assert family.canonical(once) == once
        written = Candidate(family=family.name, choices=once)
        assert space.fit(written, {}) == written


def alike(network: TabularNet, period: int = 32) -> TabularNet:
    """With weights that depend on an operation and its cell, but not on its edge, and recur along every axis: the same
    for isomorphic networks, whatever the order of their nodes."""
    with torch.no_grad():
        for name, one in network.named_parameters():
            role = re.sub(r"edges\.[^.]+\.", "", name)
            generator = torch.Generator().manual_seed(zlib.crc32(role.encode()))
            values = torch.randn([min(period, size) for size in one.shape], generator=generator)
            for axis, size in enumerate(one.shape):
                values = values.index_select(axis, torch.arange(size) % period)
            one.copy_(values / one.shape[-1] ** 0.5)
    return network.eval()


@every_family
def test_ways_to_write_a_network_give_the_same_network(family: Family) -> None:
    for candidate in candidates(family, 4):
        choices = {**candidate.choices, "width": 64}
        both = [Candidate(family=family.name, choices=one) for one in (choices, family.canonical(choices))]
        given, written = (alike(family.build(one, 3, (4, 7), 2)) for one in both)
        assert parameters(given) == parameters(written) == sum(one.numel() for one in given.parameters())
        with torch.no_grad():
            torch.testing.assert_close(given(*rows(5, 3, (4, 7))), written(*rows(5, 3, (4, 7))), rtol=1e-4, atol=1e-5)


@every_family
def test_costs_twice_as_much_for_twice_the_rows(family: Family) -> None:
    network = family.build(candidates(family)[0], 3, (4, 7), 2).train()
    assert 0 < 2 * flops(network, *rows(4, 3, (4, 7))) == flops(network, *rows(8, 3, (4, 7)))
    assert network.training


@every_family
def test_can_be_drawn(family: Family) -> None:
    for candidate in candidates(family):
        drawing = family.drawing(candidate.choices)
        ends = {end for source, target, _ in drawing.edges for end in (source, target)}
        assert ends == set(range(len(drawing.nodes)))
        shown = [one for one in (*drawing.nodes, *(label for *_, label in drawing.edges)) if one]
        assert all(any(part in one for one in shown) for part in family.parts(candidate.choices).values())
        assert sum(len(one) for one in shown) < 2_000


@every_family
def test_encodings_have_one_length_and_are_the_same_for_the_same_network(family: Family) -> None:
    found = [family.path_encoding(one.choices) for one in candidates(family)]
    assert found == [family.path_encoding(family.canonical(one.choices)) for one in candidates(family)]
    if found[0] is not None:
        assert {len(one) for one in found if one} == {len(found[0])}
        assert {bit for one in found if one for bit in one} == {0, 1}
    else:
        assert not any(found)


@every_family
def test_a_search_has_fewer_than_forty_dimensions(family: Family) -> None:
    assert len(SearchSpace((family,), 1_000, 9, "binary").parameters(family.name)) < 40


@every_family
def test_every_dimension_has_a_default(family: Family) -> None:
    candidate = SearchSpace((family,), 1_000, 9, "binary").fit(Candidate(family=family.name, choices={}), DEFAULTS)
    assert candidate is not None
    assert any(one.family == family.name for one in portfolio(SearchSpace((family,), 1_000, 9, "binary")))


def test_names_are_unique_and_known() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert all(family_named(name).name == name for name in names)
    with pytest.raises(TaskError, match=r"unknown family 'mpl'.*did you mean 'mlp'"):
        family_named("mpl")


def test_unknown_and_missing_categories_begin_at_zero() -> None:
    embedding = CategoryEmbedding((4, 5), 3)
    assert embedding(torch.tensor([[0, 1]])).abs().max() == 0
    assert embedding(torch.tensor([[2, 4]])).abs().min() > 0


def test_a_network_needs_a_column() -> None:
    with pytest.raises(ValueError, match="at least one numeric or categorical column"):
        InputEncoder(0, (), cap=8)


def test_a_candidate_is_known_by_its_choices() -> None:
    one = Candidate(family="mlp", choices={"a": 1, "b": 0.5})
    assert one.key == Candidate(family="mlp", choices={"b": 0.5, "a": 1}).key
    assert one.key != Candidate(family="resnet", choices={"a": 1, "b": 0.5}).key
    with pytest.raises(TaskError, match="lacks 'width'"):
        one.count("width")


def test_piecewise_numbers_fill_one_interval_after_the_other() -> None:
    """As many pieces as there are quarters of a normal distribution: knots at -3, -.674, 0, .674 and 3."""
    filled = PiecewiseEmbedding(1, 4)(torch.tensor([[-9.0], [-3.0], [0.0], [0.33725], [3.0], [9.0]]))
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0.5, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert torch.allclose(filled, torch.tensor(expected, dtype=torch.float32), atol=1e-3)
    assert PiecewiseEmbedding(3, 8)(torch.zeros(2, 3)).shape == (2, 24)
