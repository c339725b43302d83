"""The contract of families that read images: one suite that each passes, for whatever body it builds."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from retrain.families.base import Candidate
from retrain.families.catalogue import FAMILIES, build
from retrain.families.convnet import ConvBlock, ConvNets, Gate
from retrain.families.drawing import SUM
from retrain.families.picture import PictureFamily, PictureNet
from retrain.image_source import ImageInput
from retrain.network_graph import FEATURES, IMAGES, OUTPUTS, embed, exported
from retrain.preparation_graph import OPSET, GraphBuilder
from retrain.search.defaults import DEFAULTS
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace

PICTURES = [family for family in FAMILIES if "image" in family.reads]
every_family = pytest.mark.parametrize("family", PICTURES, ids=lambda family: family.name)
EXPORTED = ("convnet", "chain", "darts")
"""Of the others the bodies are made of the same operations in the same stacks, and an export takes seconds."""
GREY = ImageInput(size=8, channels=1, mean=(100.0,), std=(60.0,))
COLOURS = ImageInput(size=20, channels=3, mean=(100.0, 120.0, 90.0), std=(60.0, 50.0, 40.0))


def candidates(family: PictureFamily, count: int = 4) -> list[Candidate]:
    space = SearchSpace((family,), 1_000, 9, "binary", "image")
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(count)]


def rows(n: int, image: ImageInput, d_numeric: int = 0, codes: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, image.channels, image.size, image.size), generator=generator, dtype=torch.uint8)
    categories = torch.randint(0, 4, (n, codes), generator=generator)
    return torch.randn(n, d_numeric, generator=generator), categories, images


@every_family
@pytest.mark.parametrize("image", [GREY, COLOURS], ids=["grey", "colours"])
@pytest.mark.parametrize(("d_numeric", "cardinalities"), [(0, ()), (3, (4, 4)), (3, ()), (0, (4,))])
def test_gives_the_outputs_asked_for(
    family: PictureFamily, image: ImageInput, d_numeric: int, cardinalities: tuple[int, ...]
) -> None:
    for candidate in candidates(family, 2):
        network = build(candidate, d_numeric, cardinalities, 3, image)
        outputs = network(*rows(5, image, d_numeric, len(cardinalities)))
        assert outputs.shape == (5, 3)
        assert outputs.isfinite().all()


@every_family
def test_every_parameter_learns(family: PictureFamily) -> None:
    for candidate in candidates(family):
        network = build(candidate, 3, (4,), 2, GREY)
        network(*rows(16, GREY, 3, 1)).square().sum().backward()
        assert [name for name, one in network.named_parameters() if one.grad is None] == []


@every_family
def test_can_be_brought_to_another_level(family: PictureFamily) -> None:
    for candidate in candidates(family):
        network = build(candidate, 0, (), 2, GREY).eval()
        with torch.no_grad():
            before = network(*rows(5, GREY))
            network.level(2.0, torch.tensor([0.5, -1.0]))
            after = network(*rows(5, GREY))
        assert torch.allclose(after, before / 2 + torch.tensor([0.5, -1.0]), atol=1e-5)


@every_family
def test_rows_do_not_meet_in_evaluation_and_seeds_decide(family: PictureFamily) -> None:
    for candidate in candidates(family):
        networks = []
        for _ in range(2):
            torch.manual_seed(3)
            networks.append(build(candidate, 0, (), 2, GREY).eval())
        given = rows(6, GREY)
        with torch.no_grad():
            whole, again = (network(*given) for network in networks)
            alone = networks[0](*(one[2:3] for one in given))
        torch.testing.assert_close(whole, again)
        torch.testing.assert_close(whole[2:3], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [one for one in PICTURES if one.name in EXPORTED], ids=lambda family: family.name)
def test_becomes_a_graph_with_features_and_any_number_of_rows(family: PictureFamily) -> None:
    (candidate,) = candidates(family, 1)
    network = build(candidate, 0, (), 2, GREY).eval()
    assert isinstance(network, PictureNet)
    builder = GraphBuilder()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    alone = exported(network, 0, 0, GREY)
    assert {one.name for one in alone.initializer}.isdisjoint(name for node in alone.node for name in node.output)
    found = embed(builder, alone, {IMAGES: IMAGES}, state)
    assert found is not None
    inputs = [helper.make_tensor_value_info(IMAGES, 2, ["n", 1, 8, 8])]
    outputs = [helper.make_empty_tensor_value_info(found[name]) for name in (OUTPUTS, FEATURES)]
    graph = helper.make_graph(builder.nodes, "one", inputs, outputs, builder.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString())
    for n in (1, 5):
        given = rows(n, GREY)
        answers, features = session.run(None, {IMAGES: given[2].numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(answers, network(*given).numpy(), atol=1e-4)
            np.testing.assert_allclose(features, network.features(given[2]).numpy(), atol=1e-4)
            assert features.shape == (n, network.d_features)


def test_convolutional_networks_are_drawn_block_by_block_with_their_shortcuts() -> None:
    family = ConvNets()
    for candidate in candidates(family, 6):
        blocks = [one for one in build(candidate, 0, (), 2, GREY).modules() if isinstance(one, ConvBlock)]
        drawing = family.drawing(candidate.choices)
        sums = [place for place, node in enumerate(drawing.nodes) if node == SUM]
        shortcuts = [label for source, target, label in drawing.edges if target in sums and source < target - 1]
        branches = [drawing.nodes[place - 1] for place in sums]
        assert len(sums) == len(shortcuts) == len(blocks) == 3 * candidate.count("blocks")
        for block, label, branch in zip(blocks, shortcuts, branches, strict=True):
            d_out = block.branch[0].out_channels
            assert label == ("" if block.shortcut is None else f"conv 1 x 1, {d_out}")
            assert branch.count(f"conv 3 x 3, {d_out}") == 2
            assert ("squeeze" in branch) is isinstance(block.branch[-1], Gate)
        assert drawing.nodes[1] == f"stem\nconv 3 x 3, {candidate.choices['stem_width']}"
        assert drawing.nodes[-2:] == ("batch norm, relu\nmean", "output")
        assert drawing.caption == f"{'coarse' if candidate.choices['coarse'] else 'fine'} stem"


def test_the_portfolio_of_images_fits_their_space() -> None:
    space = SearchSpace.of([family.name for family in PICTURES], 1_000, 27, "multiclass", "image")
    assert len({one.key for one in portfolio(space)}) == len(portfolio(space)) >= 3
    assert all(space.fit(one, DEFAULTS) == one for one in portfolio(space))
