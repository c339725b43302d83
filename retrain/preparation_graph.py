"""`Preparation` as ONNX nodes: raw columns in, the two arrays a network reads out.

A single row pays for nodes, not for arithmetic: columns are joined before they are computed with, and a node that two
members' preparations share is written once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from registry.bundle import LABEL, TIME
from registry.errors import DataError
from registry.images import seen_names
from registry.inference import INTERNAL
from registry.schema import Schema
from registry.scoring import MISSING_TIME, REPRESENTATION
from registry.scoring import OUTPUTS as ANSWERS
from registry.texts import LENGTHS
from retrain.preparation import BOUND, CYCLES, DAY, CategoryColumn, Preparation, Robust, Scaling

PREFIX = INTERNAL
"""Begins every name inside the graph: no column may begin with it."""

WEIGHT = f"{PREFIX}weight"

ML_DOMAIN = "ai.onnx.ml"
OPSET, ML_OPSET, IR_VERSION = 20, 3, 10


class GraphBuilder:
    """Collects nodes and constants, each distinct one once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[object, str] = {}

    def constant(self, value: npt.NDArray[Any]) -> str:
        """The name of a constant."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = f"{PREFIX}constant_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """The name of the one output of a node."""
        key = (op, inputs, domain, repr(sorted(attributes.items())))
        if key not in self._known:
            self._known[key] = f"{PREFIX}{op}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(op, inputs, [self._known[key]], domain=domain, **attributes))
        return self._known[key]

    def weight(self, name: str, value: npt.NDArray[Any]) -> str:
        """The name of a network's constant, in which its own name there can be read."""
        key = ("weight", name, value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = f"{WEIGHT}{len(self.constants)}:{name}"
            self.constants.append(numpy_helper.from_array(value, self._known[key]))
        return self._known[key]

    @staticmethod
    def weight_name(name: str) -> str | None:
        """The name that a network's constant has in the network; None for other names."""
        return name.removeprefix(WEIGHT).partition(":")[2] if name.startswith(WEIGHT) else None

    def embed(self, node: onnx.NodeProto, inputs: Sequence[str]) -> list[str]:
        """Add another graph's node on other inputs; the names of its outputs."""
        attributes = tuple(one.SerializeToString(deterministic=True) for one in node.attribute)
        key = (node.op_type, node.domain, tuple(inputs), attributes, len(node.output))
        if key not in self._known:
            self._known[key] = first = f"{PREFIX}{node.op_type}_{len(self.nodes)}"
            copy = helper.make_node(node.op_type, inputs, self._outputs(node, first), domain=node.domain)
            copy.attribute.extend(node.attribute)
            self.nodes.append(copy)
        return self._outputs(node, self._known[key])

    @staticmethod
    def _outputs(node: onnx.NodeProto, first: str) -> list[str]:
        return [name and (first if place == 0 else f"{first}_{place}") for place, name in enumerate(node.output)]

    def name(self, source: str, name: str) -> None:
        """Give a value another name, such as that of an output."""
        self.nodes.append(helper.make_node("Identity", [source], [name]))

    def join(self, names: Sequence[str]) -> str:
        """Columns side by side."""
        return names[0] if len(names) == 1 else self.add("Concat", *names, axis=1)

    def pick(self, source: str, indices: Sequence[int], width: int) -> str:
        """These columns of `width`, in this order."""
        if list(indices) == list(range(width)):
            return source
        return self.add("Gather", source, self.constant(np.array(indices, dtype=np.int64)), axis=1)

    def numbers(self, names: Sequence[str], places: Sequence[int], width: int) -> str:
        """Of these columns of numbers side by side, which are as wide as that together, those at `places`."""
        return self.pick(self.join(names), places, width)

    def moments(self, names: Sequence[str]) -> str:
        """Columns of moments side by side."""
        return self.join(names)

    def codes(self, columns: Sequence[CategoryColumn]) -> str:
        """The codes of columns of categories side by side: 1 where missing, 0 where a category is none of them."""
        return self.join([self._coded(column) for column in columns])

    def _coded(self, column: CategoryColumn) -> str:
        return self.add(
            "LabelEncoder",
            column.name,
            domain=ML_DOMAIN,
            keys_strings=["", *column.categories],
            values_int64s=range(1, len(column.categories) + 2),
            default_int64=0,
        )

    def cast(self, source: str, to: int) -> str:
        """Values in another type."""
        return self.add("Cast", source, to=to)


def model_of(
    builder: GraphBuilder, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """What was built as a model."""
    graph = helper.make_graph(builder.nodes, "everfit", inputs, outputs, builder.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
    return helper.make_model(graph, producer_name="everfit", opset_imports=opsets, ir_version=IR_VERSION)


def add_preparation(graph: GraphBuilder, preparation: Preparation) -> tuple[str, str] | None:
    """The names of `numeric` (n, d) float and `categories` (n, c) int64; None where there is neither. Images are
    columns of the graph that networks read themselves."""
    blocks = [*_numbers(graph, preparation), *_moments(graph, preparation)]
    width = len(preparation.categories)
    if not blocks and not width:
        return None
    if not blocks:
        codes = graph.codes(preparation.categories)
        return graph.cast(graph.pick(codes, (), width), TensorProto.FLOAT), codes
    numeric = graph.join(blocks)
    if not width:
        return numeric, graph.cast(graph.pick(numeric, (), preparation.d_numeric), TensorProto.INT64)
    return numeric, graph.codes(preparation.categories)


def _numbers(graph: GraphBuilder, preparation: Preparation) -> list[str]:
    columns = preparation.numbers
    if not columns:
        return []
    raw = _raw(graph, preparation)
    missing = graph.add("IsNaN", raw)
    filled = graph.add("Where", missing, graph.constant(np.array([[column.fill for column in columns]])), raw)
    scaled = _scaled(graph, filled, preparation.scaling)
    gaps = [index for index, column in enumerate(columns) if column.gap]
    return [scaled, graph.cast(graph.pick(missing, gaps, len(columns)), TensorProto.FLOAT)] if gaps else [scaled]


def _raw(graph: GraphBuilder, preparation: Preparation) -> str:
    """The numbers (n, d): whole columns side by side, and of texts those numbers that are used."""
    widths = {text.name: LENGTHS + len(text.words) for text in preparation.texts}
    names = list(dict.fromkeys(column.name for column in preparation.numbers))
    starts = np.cumsum([0, *(widths.get(name, 1) for name in names)])
    first = dict(zip(names, starts.tolist(), strict=False))
    places = [first[column.name] + (column.place or 0) for column in preparation.numbers]
    return graph.numbers(names, places, int(starts[-1]))


def _scaled(graph: GraphBuilder, filled: str, scaling: Scaling) -> str:
    def double(value: object) -> str:
        return graph.constant(np.asarray(value, dtype=np.float64))

    def single(value: object) -> str:
        return graph.constant(np.asarray(value, dtype=np.float32))

    if isinstance(scaling, Robust):
        moved = graph.add("Mul", graph.add("Sub", filled, double([scaling.centre])), double([scaling.factor]))
        z = graph.cast(graph.add("Clip", moved, double(-BOUND), double(BOUND)), TensorProto.FLOAT)
        ninth = graph.add("Mul", graph.add("Mul", z, z), single(1 / 9))
        return graph.add("Div", z, graph.add("Sqrt", graph.add("Add", ninth, single(1))))
    deep = graph.add("Unsqueeze", filled, graph.constant(np.array([2])))
    moved = graph.add("Mul", graph.add("Sub", deep, double([scaling.start])), double([scaling.slope]))
    ramps = graph.cast(graph.add("Clip", moved, double(0), double(1)), TensorProto.FLOAT)
    risen = graph.add("Mul", ramps, single([scaling.rise]))
    total = graph.add("ReduceSum", risen, graph.constant(np.array([2])), keepdims=0)
    return graph.add("Add", total, single([scaling.base]))


def _moments(graph: GraphBuilder, preparation: Preparation) -> list[str]:
    columns = preparation.moments
    if not columns:
        return []
    raw = graph.moments([column.name for column in columns])
    missing = graph.add("Equal", raw, graph.constant(np.array(MISSING_TIME, dtype=np.int64)))
    waves = [
        (index, CYCLES[cycle], shift)
        for shift in (0.0, math.pi / 2)
        for index, column in enumerate(columns)
        for cycle in column.cycles
    ]
    gaps = [index for index, column in enumerate(columns) if column.gap]
    blocks = [_waves(graph, raw, missing, waves, len(columns))] if waves else []
    return [*blocks, graph.cast(graph.pick(missing, gaps, len(columns)), TensorProto.FLOAT)] if gaps else blocks


def _waves(graph: GraphBuilder, raw: str, missing: str, waves: Sequence[tuple[int, int, float]], width: int) -> str:
    """Sines (n, waves) of the phases in each (column, period, shift); one column alone is broadcast, not gathered."""
    indices, periods, shifts = zip(*waves, strict=True)
    if width > 1:
        raw, missing = graph.pick(raw, indices, width), graph.pick(missing, indices, width)
    hours = graph.add("Mod", raw, graph.constant(np.array(DAY, dtype=np.int64)))
    whole = graph.constant(np.array([[int(period != DAY) for period in periods]], dtype=np.int64))
    start = graph.add("Sub", raw, graph.add("Mul", hours, whole))
    inside = graph.add("Mod", start, graph.constant(np.array([periods], dtype=np.int64)))
    turns = graph.constant(np.array([[2 * math.pi / period for period in periods]], dtype=np.float32))
    phase = graph.add("Mul", graph.cast(inside, TensorProto.FLOAT), turns)
    shifted = graph.add("Add", phase, graph.constant(np.array([shifts], dtype=np.float32)))
    return graph.add("Where", missing, graph.constant(np.zeros((), dtype=np.float32)), graph.add("Sin", shifted))


def refuse_names(schema: Schema) -> None:
    """Raise `DataError` for columns whose names the graph and the reference need themselves."""
    bad = [
        name for name in schema.names if name in (*ANSWERS, REPRESENTATION, LABEL, TIME, "") or name.startswith(PREFIX)
    ]
    if schema.image is not None:
        bad += sorted({*schema.names} & {*seen_names(schema.image.name)})
    if bad:
        raise DataError(f"columns {bad} bear names that the model itself uses: rename or exclude them")
