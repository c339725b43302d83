"""The formulas of `Calibration.scores` as ONNX nodes: members' outputs in, calibrated answers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrain.calibration import Calibration, TargetScale
from retrain.levels import TINY
from retrain.losses import LOG_SCALE
from retrain.preparation_graph import GraphBuilder


def add_mixture(
    graph: GraphBuilder, members: Sequence[str], weights: Sequence[float], d_out: int, calibration: Calibration
) -> dict[str, str]:
    """The names of the answers, by output; `prediction` of classes is an index. `members` are the names of their
    outputs, (n, d_out) each."""
    shape = graph.constant(np.array([-1, len(members), d_out], dtype=np.int64))
    outputs = graph.add("Reshape", graph.join(members), shape)
    shares = np.asarray(weights, dtype=np.float32)
    if calibration.scale is not None:
        return _numbers(graph, outputs, shares, calibration.radius, calibration.scale)
    return _classes(graph, outputs, shares[:, None], calibration)


def _float(graph: GraphBuilder, value: float) -> str:
    return graph.constant(np.array(value, dtype=np.float32))


def _axes(graph: GraphBuilder, *axes: int) -> str:
    return graph.constant(np.array(axes, dtype=np.int64))


def _classes(
    graph: GraphBuilder, outputs: str, shares: npt.NDArray[np.float32], calibration: Calibration
) -> dict[str, str]:
    """(n, m, k) logits -> class index (n,), probabilities (n, k), set (n, k), uncertainty, disagreement (n,)."""
    weights = graph.constant(shares)
    logits = graph.add("Div", outputs, _float(graph, calibration.temperature))
    each = graph.add("Softmax", logits, axis=2)
    p = graph.add("ReduceSum", graph.add("Mul", each, weights), _axes(graph, 1), keepdims=0)
    total = graph.add("ReduceSum", _plogp(graph, p), _axes(graph, 1), keepdims=0)
    within = graph.add("ReduceSum", graph.add("Mul", _plogp(graph, each), weights), _axes(graph, 1, 2), keepdims=0)
    top = graph.add("ReduceMax", p, _axes(graph, 1), keepdims=1)
    cut = graph.add("Min", top, _float(graph, 1 - calibration.radius))
    return {
        "prediction": graph.add("ArgMax", p, axis=1, keepdims=0),
        "probabilities": p,
        "set": graph.add("GreaterOrEqual", p, cut),
        "uncertainty": graph.add("Neg", total),
        "disagreement": graph.add("Max", graph.add("Sub", within, total), _float(graph, 0)),
    }


def _plogp(graph: GraphBuilder, p: str) -> str:
    return graph.add("Mul", p, graph.add("Log", graph.add("Max", p, _float(graph, TINY))))


def _numbers(
    graph: GraphBuilder, outputs: str, shares: npt.NDArray[np.float32], radius: float, scale: TargetScale
) -> dict[str, str]:
    """(n, m, 2) means and log-scales -> prediction (n,), interval (n, 2), uncertainty, disagreement (n,)."""
    weights, spread = graph.constant(shares), _float(graph, scale.spread)

    def column(place: int) -> str:
        return graph.add("Gather", outputs, graph.constant(np.array(place, dtype=np.int64)), axis=2)

    def weighed(values: str, keepdims: int = 0) -> str:
        return graph.add("ReduceSum", graph.add("Mul", values, weights), _axes(graph, 1), keepdims=keepdims)

    means = column(0)
    logs = graph.add("Clip", column(1), _float(graph, LOG_SCALE[0]), _float(graph, LOG_SCALE[1]))
    mean = weighed(means, keepdims=1)
    apart = graph.add("Sub", means, mean)
    between = weighed(graph.add("Mul", apart, apart))
    within = weighed(graph.add("Exp", graph.add("Mul", logs, _float(graph, 2))))
    uncertainty = graph.add("Mul", graph.add("Sqrt", graph.add("Add", within, between)), spread)
    wide = graph.add("Add", graph.add("Mul", mean, spread), _float(graph, scale.centre))
    reach = graph.constant(np.array([[-radius, radius]], dtype=np.float32))
    around = graph.add("Mul", graph.add("Unsqueeze", uncertainty, _axes(graph, 1)), reach)
    return {
        "prediction": graph.add("Squeeze", wide, _axes(graph, 1)),
        "interval": graph.add("Add", wide, around),
        "uncertainty": uncertainty,
        "disagreement": graph.add("Mul", graph.add("Sqrt", between), spread),
    }
