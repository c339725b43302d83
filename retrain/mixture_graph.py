"""The formulas of `Calibration.scores` as ONNX nodes: members' outputs in, calibrated answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrain.calibration import Calibration, TargetScale
from retrain.levels import TINY
from retrain.losses import LOG_SCALE
from retrain.preparation_graph import GraphBuilder


@dataclass(frozen=True)
class Mixture:
    """Names of what the ensemble says: `first` are probabilities (n, k), or predicted numbers (n, 1); `doubt` is (n, 2)
    of uncertainty and disagreement."""

    first: str
    doubt: str


def add_mixture(
    graph: GraphBuilder, members: Sequence[str], weights: Sequence[float], d_out: int, calibration: Calibration
) -> Mixture:
    """Mix the members' outputs, whose names these are, (n, d_out) each. A node costs a single row as much as a hundred
    numbers do: members and their mixture go through the same nodes side by side."""
    shape = graph.constant(np.array([-1, len(members), d_out], dtype=np.int64))
    outputs = graph.add("Reshape", graph.join(members), shape)
    shares = np.asarray(weights, dtype=np.float32)[None]
    if calibration.scale is not None:
        return _numbers(graph, outputs, shares, calibration.scale)
    return _classes(graph, outputs, shares, calibration.temperature)


def add_answers(graph: GraphBuilder, mixture: Mixture, calibration: Calibration) -> dict[str, str]:
    """The names of the answers, by output; `prediction` of classes is an index."""
    answers = {name: _column(graph, mixture.doubt, place) for place, name in enumerate(("uncertainty", "disagreement"))}
    if calibration.scale is not None:
        reach = graph.constant(np.array([[-calibration.radius, calibration.radius]], dtype=np.float32))
        around = graph.add("Mul", graph.add("Unsqueeze", answers["uncertainty"], _axes(graph, 1)), reach)
        prediction = graph.add("Squeeze", mixture.first, _axes(graph, 1))
        return answers | {"prediction": prediction, "interval": graph.add("Add", mixture.first, around)}
    p = mixture.first
    top = graph.add("ReduceMax", p, _axes(graph, 1), keepdims=1)
    cut = graph.add("Min", top, _float(graph, 1 - calibration.radius))
    prediction = graph.add("ArgMax", p, axis=1, keepdims=0)
    return answers | {"prediction": prediction, "probabilities": p, "set": graph.add("GreaterOrEqual", p, cut)}


def _float(graph: GraphBuilder, value: float) -> str:
    return graph.constant(np.array(value, dtype=np.float32))


def _axes(graph: GraphBuilder, *axes: int) -> str:
    return graph.constant(np.array(axes, dtype=np.int64))


def _column(graph: GraphBuilder, matrix: str, place: int) -> str:
    return graph.add("Gather", matrix, graph.constant(np.array(place, dtype=np.int64)), axis=1)


def _classes(graph: GraphBuilder, outputs: str, shares: npt.NDArray[np.float32], temperature: float) -> Mixture:
    """(n, m, k) logits. With H the entropy: uncertainty is that of the mixture, and disagreement what it has above the
    members' own, on average: the members' entropies and that of the mixture are reckoned as m + 1 rows, and weighed."""
    logits = graph.add("Div", outputs, _float(graph, temperature))
    each = graph.add("Softmax", logits, axis=2)
    p = graph.add("MatMul", graph.constant(shares), each)
    every = graph.add("Concat", each, p, axis=1)
    surprise = graph.add("Mul", every, graph.add("Log", graph.add("Max", every, _float(graph, TINY))))
    total = graph.add("ReduceSum", surprise, _axes(graph, 2), keepdims=0)
    mixed = np.zeros((shares.size + 1, 2), dtype=np.float32)
    mixed[:-1, 1], mixed[-1] = shares[0], -1
    doubt = graph.add("Max", graph.add("MatMul", total, graph.constant(mixed)), _float(graph, 0))
    return Mixture(graph.add("Squeeze", p, _axes(graph, 1)), doubt)


def _numbers(graph: GraphBuilder, outputs: str, shares: npt.NDArray[np.float32], scale: TargetScale) -> Mixture:
    """(n, m, 2) means and log-scales."""
    weights, spread = graph.constant(shares), _float(graph, scale.spread)

    def column(place: int) -> str:
        return graph.add("Gather", outputs, graph.constant(np.array(place, dtype=np.int64)), axis=2)

    def weighed(values: str) -> str:
        return graph.add("ReduceSum", graph.add("Mul", values, weights), _axes(graph, 1), keepdims=1)

    means = column(0)
    logs = graph.add("Clip", column(1), _float(graph, LOG_SCALE[0]), _float(graph, LOG_SCALE[1]))
    mean = weighed(means)
    apart = graph.add("Sub", means, mean)
    between = weighed(graph.add("Mul", apart, apart))
    within = weighed(graph.add("Exp", graph.add("Mul", logs, _float(graph, 2))))
    variances = graph.join([graph.add("Add", within, between), between])
    doubt = graph.add("Mul", graph.add("Sqrt", variances), spread)
    return Mixture(graph.add("Add", graph.add("Mul", mean, spread), _float(graph, scale.centre)), doubt)
