"""Networks as ONNX nodes: exported from torch once for each architecture, and filled with new weights ever after.

Torch's exporter takes seconds for a network, as long as a short training. Where weights alone have changed it is not
asked again: a bundle keeps its graph as it was before constants were folded and without its weights, every one of which
bears its name there.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from retrain.families.picture import PictureNet
from retrain.image_source import ImageInput
from retrain.preparation_graph import OPSET, PREFIX, GraphBuilder

NUMERIC, CATEGORIES, IMAGES, OUTPUTS, FEATURES = "numeric", "categories", "images", "outputs", "features"
"""Inputs and outputs of a network's own graph; images and their features are those of networks that read them."""

_WRAPPED = "network."


class Telling(nn.Module):
    """A network that reads images, which gives their features (n, width) beside its outputs."""

    def __init__(self, network: PictureNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, numeric: Tensor, categories: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, d_out) and (n, width)."""
        features = self.network.features(images)
        return self.network.answer(features, numeric, categories), features


def exported(module: nn.Module, d_numeric: int, d_categories: int, image: ImageInput | None = None) -> onnx.GraphProto:
    """A network's graph by torch's exporter: (n, d_numeric) float, (n, d_categories) int64 and perhaps images to
    (n, d_out), with images to their features too; weights under their names. Puts the module in evaluation mode."""
    n = torch.export.Dim("n")
    inputs = [torch.zeros(3, d_numeric), torch.zeros(3, d_categories, dtype=torch.int64)]
    names, outputs = [NUMERIC, CATEGORIES], [OUTPUTS]
    if image is not None and isinstance(module, PictureNet):
        inputs.append(torch.zeros(3, image.channels, image.size, image.size, dtype=torch.uint8))
        names, outputs, module = [*names, IMAGES], [OUTPUTS, FEATURES], Telling(module)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: n} for _ in inputs),
            input_names=names,
            output_names=outputs,
            external_data=False,
            optimize=False,  # it would fold weights into constants without a name; ONNX Runtime does so when it loads
            verbose=False,
        )
    assert program is not None  # of an export by dynamo
    model = program.model_proto
    if model.functions:
        raise ValueError(f"expected a flat graph, got the functions {[one.name for one in model.functions]}")
    return _unwrapped(model.graph)


def _unwrapped(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph with weights under the names that they have in the network itself; what a node gives has another: the
    mean over places and that of the images are both called "mean"."""
    weights = {one.name: one.name.removeprefix(_WRAPPED) for one in graph.initializer}
    taken = {*weights.values()}

    def named(name: str) -> str:
        return weights.get(name, f"{name}_" if name in taken else name)

    for one in graph.initializer:
        one.name = weights[one.name]
    for node in graph.node:
        node.input[:], node.output[:] = map(named, node.input), map(named, node.output)
    return graph


def embed(
    builder: GraphBuilder, graph: onnx.GraphProto, inputs: Mapping[str, str], state: Mapping[str, npt.NDArray[Any]]
) -> dict[str, str] | None:
    """Add a network's nodes with these weights; the names of its outputs. `inputs` are the names, there, of what it
    reads. What members share is written once. None, with nothing added, where the graph is not one of these weights."""
    stored = {one.name: one for one in graph.initializer}
    floats = {name: value for name, value in state.items() if np.issubdtype(value.dtype, np.floating)}
    if any(tuple(stored[name].dims) != value.shape for name, value in floats.items() if name in stored):
        return None
    names = {"": "", **inputs}
    for node in graph.node:
        for name in node.input:
            if name not in names:
                value = floats[name] if name in floats else numpy_helper.to_array(stored[name])
                names[name] = builder.weight(name, value)
        made = builder.embed(node, [names[name] for name in node.input])
        names.update(zip(node.output, made, strict=True))
    return {name: names[name] for name in (OUTPUTS, FEATURES) if name in names}


def extract(model: onnx.ModelProto, place: int) -> onnx.GraphProto | None:
    """The graph of the member at this place of a whole one, as `embed` takes it; None where it cannot be found."""
    made = {output: node for node in model.graph.node for output in node.output}
    begin = {f"{PREFIX}{name}_": name for name in (NUMERIC, CATEGORIES, IMAGES)}
    end = {member_name(place): OUTPUTS, features_name(place): FEATURES}
    wanted, seen = [name for name in end if name in made], set[str]()
    while wanted:
        name = wanted.pop()
        if name in seen or name not in made or name.startswith(tuple(begin)):
            continue
        seen.add(name)
        wanted.extend(made[name].input)
    if member_name(place) not in made:
        return None

    def renamed(name: str) -> str:
        known = next((short for prefix, short in begin.items() if name.startswith(prefix)), None)
        return end.get(name) or known or GraphBuilder.weight_name(name) or name

    nodes = [node for node in model.graph.node if seen & set(node.output)]
    used = {name for node in nodes for name in node.input}
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:], copy.output[:] = map(renamed, node.input), map(renamed, node.output)
        copies.append(copy)
    weights = []
    for one in model.graph.initializer:
        if one.name in used:
            weights.append(weight := onnx.TensorProto())
            weight.CopyFrom(one)
            weight.name = renamed(one.name)
    inputs = [helper.make_empty_tensor_value_info(name) for name in begin.values()]
    outputs = [helper.make_empty_tensor_value_info(short) for name, short in end.items() if name in made]
    return helper.make_graph(copies, "network", inputs, outputs, weights)


def without_weights(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The model with nothing but names and shapes of its networks' weights, which bear these `names`."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for one in bare.graph.initializer:
        if GraphBuilder.weight_name(one.name) in names:
            one.ClearField("raw_data")
    return bare


def member_name(place: int) -> str:
    """The name of the outputs of the member at a place."""
    return f"{PREFIX}member{place}"


def features_name(place: int) -> str:
    """The name of the image features of the member at a place."""
    return f"{PREFIX}features{place}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself, whatever it exports: absent torchvision, its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r"# The axis name: n will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(before)
