"""Rows with images that share a call of the graph: in bounded parts, and large ones beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from registry.bundle import ModelBundle
from registry.schema import ImageColumn, Schema
from registry.scoring import REPRESENTATION, Graph
from serving.batching import Batcher
from serving.champion import Served
from serving.rows import RowReader

OUTPUTS = {"prediction": 1, "interval": 2, "uncertainty": 1, "disagreement": 1, REPRESENTATION: 8}


def write_mean(path: Path, size: int) -> None:
    """A graph whose every output is the mean of an image."""
    shape = [None, 3, size, size]
    nodes = [
        helper.make_node("Cast", ["photo"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Constant", [], ["minus"], value_ints=[-1]),
    ]
    for name, width in OUTPUTS.items():
        if width == 1:
            nodes.append(helper.make_node("Reshape", ["mean", "minus"], [name]))
        else:
            nodes.append(helper.make_node("Concat", ["mean"] * width, [name], axis=1))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] if width == 1 else [None, width])
        for name, width in OUTPUTS.items()
    ]
    inputs = [helper.make_tensor_value_info("photo", TensorProto.UINT8, shape)]
    graph = helper.make_graph(nodes, "mean", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


class Watched(Graph):
    """Remembers how many rows each call had, and whether it was made on the main thread, the event loop's."""

    calls: list[tuple[int, bool]]

    def run(self, inputs: Any) -> Any:
        self.calls.append((len(inputs["photo"]), threading.current_thread() is threading.main_thread()))
        return super().run(inputs)


def served(bundle: ModelBundle, folder: Path, size: int) -> tuple[Served, Watched]:
    schema = Schema(columns=(ImageColumn(name="photo", size=size, channels=3),))
    write_mean(folder / "mean.onnx", size)
    graph = Watched.open(folder / "mean.onnx", schema, "regression")
    assert isinstance(graph, Watched)
    graph.calls = []
    told = ModelBundle(bundle.folder, bundle.manifest.model_copy(update={"data_schema": schema}))
    one = replace(Served.load(bundle, "1", "handmade"), bundle=told, reader=RowReader(schema))
    return replace(one, scorer=graph), graph  # type: ignore[arg-type]


async def means(model: Served, images: list[Any]) -> list[float]:
    batcher = Batcher(largest=64)
    found = await asyncio.gather(*(batcher.score(model, [one]) for one in images))
    return [float(one.prediction[0]) for one in found]


@pytest.mark.parametrize(
    ("size", "calls"), [(8, [(40, True)]), (224, [(16, False), (16, False), (8, False)])], ids=["small", "large"]
)
def test_a_batch_of_images_is_scored_in_parts(
    bundles: dict[str, ModelBundle], tmp_path: Path, size: int, calls: list[tuple[int, bool]]
) -> None:
    model, graph = served(bundles["regression"], tmp_path, size)
    images = [np.full((3, size, size), row, np.uint8) for row in range(40)]
    assert asyncio.run(means(model, images)) == list(range(40))
    assert graph.calls == calls
