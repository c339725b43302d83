"""What the served graph costs without a server: 4 members (MLP 3x256) on 15 columns, one thread.

    .venv/bin/python benchmarks/graph_latency.py

The networks are untrained: their speed does not depend on what they know.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import torch
from torch import Tensor, nn

from registry.bundle import MODEL
from registry.conforming import conform
from registry.schema import CategoricalColumn, NumericColumn, Schema
from registry.scoring import Feed, Graph, differences, feed
from registry.target import Target
from retrain.calibration import Calibration
from retrain.export import Member, export, member_outputs
from retrain.families.embeddings import InputEncoder
from retrain.preparation import Preparation, ScalingName

MEMBERS, WIDTH, ROWS = 4, 256, 2_000
CATEGORIES = tuple(f"value {index}" for index in range(40))
SCHEMA = Schema(
    columns=(
        *(NumericColumn(name=f"number {index}") for index in range(10)),
        *(CategoricalColumn(name=f"word {index}", categories=CATEGORIES) for index in range(5)),
    )
)


class Net(nn.Module):
    """Embeddings, then three hidden layers with batch norm."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.inputs = InputEncoder(preparation.d_numeric, preparation.cardinalities, cap=8)
        widths = [self.inputs.d_out, WIDTH, WIDTH, WIDTH]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)]
        self.body = nn.Sequential(*hidden, nn.Linear(WIDTH, 2))

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric), (n, c) -> (n, 2)."""
        out: Tensor = self.body(self.inputs(numeric, categories))
        return out


def rows() -> pd.DataFrame:
    """Conformed rows, a few numbers missing."""
    rng = np.random.default_rng(0)
    columns = {
        column.name: rng.normal(size=ROWS) if column.kind == "numeric" else rng.choice(CATEGORIES, ROWS)
        for column in SCHEMA.columns
    }
    frame = pd.DataFrame(columns)
    frame.loc[::17, "number 2"] = np.nan
    return conform(frame, SCHEMA)


def microseconds(graph: Graph, inputs: Feed, calls: int) -> tuple[float, float]:
    """Median and 99th percentile of one call."""
    for _ in range(calls // 10):
        graph.run(inputs)
    times = np.empty(calls)
    for call in range(calls):
        start = time.perf_counter()
        graph.run(inputs)
        times[call] = time.perf_counter() - start
    median, tail = np.quantile(times, [0.5, 0.99]) * 1e6
    return float(median), float(tail)


def measure(scalings: tuple[ScalingName, ...], conformed: pd.DataFrame, path: Path) -> str:
    """Export members with these scalings and time them."""
    preparations = [Preparation.fit(conformed, SCHEMA, scaling) for scaling in scalings]
    members = [Member(Net(preparation), preparation, 1 / len(scalings)) for preparation in preparations]
    target, calibration = Target(problem="binary", classes=("no", "yes")), Calibration(radius=0.6)
    export(members, calibration, SCHEMA, target, path)
    graph = Graph.open(path, SCHEMA, target.problem)
    expected = calibration.scores(member_outputs(members, conformed), np.full(len(members), 1 / len(members)), target)
    worst = max(differences(graph.predict(conformed), expected, radius=calibration.radius).values())
    one, many = feed(conformed.head(1), SCHEMA), feed(conformed.head(256), SCHEMA)
    (median, tail), (batch, _) = microseconds(graph, one, 4_000), microseconds(graph, many, 100)
    name, nodes = "+".join(sorted(set(scalings))), len(onnx.load(path).graph.node)
    return f"{name:17} {nodes:5} {median:8.0f} {tail:8.0f} {batch:11.0f} {worst:10.1e}"


def main() -> None:
    """Print one line for each way members are prepared."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    conformed = rows()
    print(f"{'scaling':17} nodes 1 row us   p99 us 256 rows us from torch")
    with tempfile.TemporaryDirectory() as folder:
        plans: tuple[tuple[ScalingName, ...], ...] = (("robust",), ("quantile",), ("robust", "quantile"))
        for plan in plans:
            scalings = (plan * MEMBERS)[:MEMBERS]
            print(measure(scalings, conformed, Path(folder) / MODEL))


if __name__ == "__main__":
    main()
