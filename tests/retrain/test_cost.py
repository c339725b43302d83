"""Parameters and operations of a network are those of the graph that torch's exporter makes of it, in every space."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper

from retrain.families.base import Candidate, Reads
from retrain.families.catalogue import FAMILIES, build, family_named
from retrain.families.cost import flops, parameters
from retrain.image_source import ImageInput
from retrain.network_graph import CATEGORIES, IMAGES, NUMERIC, exported
from retrain.preparation_graph import IR_VERSION, OPSET
from retrain.search.space import SearchSpace

COLUMNS, CARDINALITIES, CLASSES = 3, (4, 7), 5
IMAGE = ImageInput(size=12, channels=3, mean=(100.0, 120.0, 90.0), std=(60.0, 50.0, 40.0))
SPACES = [(family.name, reads) for family in FAMILIES for reads in sorted(family.reads)]


def operations(graph: onnx.GraphProto, row: list[torch.Tensor]) -> int:
    """Two for each product of the graph's matrix products and convolutions; by the tensors that a run of it gives."""
    nodes = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    given = {name: each.numpy() for name, each in zip((NUMERIC, CATEGORIES, IMAGES), row, strict=False)}
    told = {name for node in nodes for name in (*node.input[:2], *node.output)} - shapes.keys() - given.keys()
    del graph.output[:]
    graph.output.extend(map(helper.make_empty_tensor_value_info, sorted(told)))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {one.name: given[one.name] for one in session.get_inputs()}
    shapes |= {
        name: each.shape
        for name, each in {**given, **dict(zip(sorted(told), session.run(None, known), strict=True))}.items()
    }
    inner = {"Conv": lambda node: shapes[node.input[1]][1:], "MatMul": lambda node: shapes[node.input[0]][-1:]}
    inner["Gemm"] = inner["MatMul"]
    return sum(2 * math.prod((*shapes[node.output[0]], *inner[node.op_type](node))) for node in nodes)


def manifold(name: str, reads: Reads) -> Candidate:
    """Of 30 candidates the one of most different operations, one cell a stage."""
    space, family, rng = (
        SearchSpace.of((name,), 1_000, 9, "multiclass", reads),
        family_named(name),
        np.random.default_rng(0),
    )
    drawn = [space.sample(rng) for _ in range(30)]
    richest = max(drawn, key=lambda one: len({told.split()[0] for told in family.parts(one.choices).values()}))
    changes = {"cells": 1, "squeeze": True}
    known = {key: value for key, value in changes.items() if key in richest.choices}
    return richest.model_copy(update={"choices": {**richest.choices, **known}})


@pytest.mark.parametrize(("name", "reads"), SPACES)
def test_costs_are_those_of_the_exported_graph(name: str, reads: Reads) -> None:
    candidate = manifold(name, reads)
    image = IMAGE if reads == "image" else None
    network = build(candidate, COLUMNS, CARDINALITIES, CLASSES, image)
    row = [torch.randn(1, COLUMNS), torch.ones(1, len(CARDINALITIES), dtype=torch.int64)]
    row += [] if image is None else [torch.zeros(1, image.channels, image.size, image.size, dtype=torch.uint8)]
    counted = flops(network, *row)
    graph = exported(network, COLUMNS, len(CARDINALITIES), image)
    trained = {key for key, _ in network.named_parameters()}
    assert parameters(network) == sum(math.prod(one.dims) for one in graph.initializer if one.name in trained)
    assert counted == operations(graph, row) > 0
