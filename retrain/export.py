"""Trained members to what is served: one ONNX graph from raw columns to calibrated answers, proven equal to torch.

    columns -> preparation (written by hand) -> members and their mixture (exported from torch) -> answers

`write_model` is the door: it writes the four files of a bundle that come from the members.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
import pandas as pd
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import Tensor, nn

from registry.bundle import CANDIDATES, LABEL, MODEL, REFERENCE, WEIGHTS
from registry.errors import DataError
from registry.metrics import Array
from registry.schema import Schema, as_strings
from registry.scoring import OUTPUTS, Graph, Scores, differences, outputs_of, require_small
from registry.target import Target
from retrain.calibration import Calibration, TargetScale
from retrain.levels import TINY
from retrain.preparation import Preparation, Prepared
from retrain.preparation_graph import ML_DOMAIN, PREFIX, GraphBuilder, add_preparation
from retrain.training import LOG_SCALE

OPSET, ML_OPSET, IR_VERSION = 20, 3, 10
PARITY_ROWS = 1_000
REFERENCE_ROWS = 2_000
_BATCH = 4_096
SCALE = "scale"
"""Key of `candidates.json` with a regression target's scale."""
_BODY = f"{PREFIX}body:"


@dataclass(frozen=True)
class Member:
    """A trained network of the ensemble: `module(numeric, categories)` gives (n, d_out), see `calibration.py`.
    `candidate` is the JSON of what it was built from, kept for warm starts."""

    module: nn.Module
    preparation: Preparation
    weight: float
    candidate: Mapping[str, Any] = field(default_factory=dict)


def write_model(
    folder: Path,
    members: Sequence[Member],
    calibration: Calibration,
    schema: Schema,
    target: Target,
    *,
    test: pd.DataFrame,
    labels: pd.Series[Any],
    study: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> Scores:
    """Write graph, weights, candidates and reference into `folder`; give the graph's answers on all test rows.

    `test` are raw rows of the test part, `labels` their target; at most `REFERENCE_ROWS` of them, drawn at random,
    become the reference. `study` are the best candidates for warm starts. What is left to write are the card, the
    figures and the manifest. Raises `BundleError` when graph and torch differ on the test rows, `DataError` when
    a column bears a name that the graph needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export(members, calibration, schema, target, folder / MODEL)
    graph = Graph.open(folder / MODEL, schema, target.problem)
    rows = schema.conform(test)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    check_parity(graph, members, calibration, target, rows.iloc[drawn[:PARITY_ROWS]])
    state = {
        f"member{index}.{name}": value.detach().clone().contiguous()
        for index, member in enumerate(members)
        for name, value in member.module.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    (folder / CANDIDATES).write_text(json.dumps(_candidates(members, study, calibration), indent=1), encoding="utf-8")
    answers = graph.predict(rows)
    _reference(rows, labels, answers, target, drawn[:REFERENCE_ROWS]).to_parquet(folder / REFERENCE)
    return answers


def export(members: Sequence[Member], calibration: Calibration, schema: Schema, target: Target, path: Path) -> None:
    """Write the ONNX graph: inputs and outputs as `registry/bundle.py` describes them. Puts modules in eval mode."""
    refuse_names(schema)
    if not math.isclose(total := sum(member.weight for member in members), 1, abs_tol=1e-6):
        raise ValueError(f"expected weights that sum to 1, got {total:g} of {len(members)} members")
    builder = GraphBuilder()
    preparations = _distinct(members)
    arrays = [add_preparation(builder, preparation) for preparation in preparations]
    body = onnx.compose.add_prefix(_body(members, preparations, calibration, target), _BODY)
    for index, (numeric, categories) in enumerate(arrays):
        builder.name(numeric, f"{_BODY}numeric_{index}")
        builder.name(categories, f"{_BODY}categories_{index}")
    builder.nodes.extend(body.graph.node)
    builder.constants.extend(body.graph.initializer)
    _answer(builder, target)
    onnx.save(_model(builder, schema, target), path)


def member_outputs(members: Sequence[Member], conformed: pd.DataFrame) -> Array:
    """Each member's outputs by torch and numpy alone, (m, n, d_out): what calibration and parity start from."""
    prepared = {id(p): p.apply(conformed) for p in _distinct(members)}
    chosen = [prepared[id(next(p for p in _distinct(members) if p == member.preparation))] for member in members]
    return np.stack([_forward(member.module, rows) for member, rows in zip(members, chosen, strict=True)])


def check_parity(
    graph: Graph, members: Sequence[Member], calibration: Calibration, target: Target, conformed: pd.DataFrame
) -> None:
    """Raise `BundleError` when the graph's answers differ from torch, numpy preparation and numpy calibration."""
    weights = np.array([member.weight for member in members])
    expected = calibration.scores(member_outputs(members, conformed), weights, target)
    found = differences(graph.predict(conformed), expected, radius=calibration.radius)
    require_small(found, f"graph against torch on {len(conformed)} rows")


def refuse_names(schema: Schema) -> None:
    """Raise `DataError` for columns whose names the graph and the reference need themselves."""
    bad = [name for name in schema.names if name in (*OUTPUTS, LABEL, "") or name.startswith(PREFIX)]
    if bad:
        raise DataError(f"columns {bad} bear names that the model itself uses: rename or exclude them")


class ClassMixture(nn.Module):
    """Members and the formulas of `Calibration.scores` for classes, in torch."""

    weights: Tensor

    def __init__(self, members: Sequence[Member], slots: Sequence[int], calibration: Calibration) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.module for member in members)
        self.slots = tuple(slots)
        self.temperature, self.cut = calibration.temperature, 1 - calibration.radius
        self.register_buffer("weights", torch.tensor([[member.weight] for member in members], dtype=torch.float32))

    def forward(self, numeric: list[Tensor], categories: list[Tensor]) -> tuple[Tensor, ...]:
        """Arrays by preparation -> class index (n,), probabilities (n, k), set (n, k), uncertainty, disagreement."""
        logits = _side_by_side(self.members, self.slots, numeric, categories) / self.temperature
        each = torch.softmax(logits, dim=2)
        p = (each * self.weights).sum(1)
        total = -(p * p.clamp(min=TINY).log()).sum(1)
        within = -(each * each.clamp(min=TINY).log() * self.weights).sum((1, 2))
        sets = p >= p.amax(1, keepdim=True).clamp(max=self.cut)
        return p.argmax(1), p, sets, total, (total - within).clamp(min=0)


class NumberMixture(nn.Module):
    """Members and the formulas of `Calibration.scores` for numbers, in torch."""

    weights: Tensor
    reach: Tensor

    def __init__(self, members: Sequence[Member], slots: Sequence[int], radius: float, scale: TargetScale) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.module for member in members)
        self.slots = tuple(slots)
        self.centre, self.spread = scale.centre, scale.spread
        self.register_buffer("weights", torch.tensor([member.weight for member in members], dtype=torch.float32))
        self.register_buffer("reach", torch.tensor([[-radius, radius]], dtype=torch.float32))

    def forward(self, numeric: list[Tensor], categories: list[Tensor]) -> tuple[Tensor, ...]:
        """Arrays by preparation -> prediction (n,), interval (n, 2), uncertainty (n,), disagreement (n,)."""
        means, logs = _side_by_side(self.members, self.slots, numeric, categories).unbind(2)
        mean = (means * self.weights).sum(1)
        between = ((means - mean[:, None]).square() * self.weights).sum(1)
        within = ((2 * logs.clamp(*LOG_SCALE)).exp() * self.weights).sum(1)
        uncertainty = (within + between).sqrt() * self.spread
        prediction = mean * self.spread + self.centre
        interval = prediction[:, None] + uncertainty[:, None] * self.reach
        return prediction, interval, uncertainty, between.sqrt() * self.spread


def _side_by_side(
    members: nn.ModuleList, slots: Sequence[int], numeric: list[Tensor], categories: list[Tensor]
) -> Tensor:
    """(n, m, d_out) outputs of all members."""
    outputs = [member(numeric[slot], categories[slot]) for member, slot in zip(members, slots, strict=True)]
    return torch.cat(outputs, dim=1).reshape(-1, len(outputs), outputs[0].shape[1])


def _distinct(members: Sequence[Member]) -> list[Preparation]:
    found: list[Preparation] = []
    for member in members:
        if member.preparation not in found:
            found.append(member.preparation)
    return found


def _body(
    members: Sequence[Member], preparations: Sequence[Preparation], calibration: Calibration, target: Target
) -> onnx.ModelProto:
    slots = [preparations.index(member.preparation) for member in members]
    mixture: nn.Module = (
        NumberMixture(members, slots, calibration.radius, calibration.scale)
        if calibration.scale is not None
        else ClassMixture(members, slots, calibration)
    )
    numeric = [torch.zeros(3, p.d_numeric) for p in preparations]
    categories = [torch.zeros(3, len(p.cardinalities), dtype=torch.int64) for p in preparations]
    n = torch.export.Dim("n")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            mixture.eval(),
            (numeric, categories),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=([{0: n}] * len(numeric), [{0: n}] * len(categories)),
            input_names=[f"{kind}_{i}" for kind in ("numeric", "categories") for i in range(len(preparations))],
            output_names=list(outputs_of(target.problem)),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # of an export by dynamo
    model = program.model_proto
    if model.functions:
        raise ValueError(f"expected a flat graph, got the functions {[one.name for one in model.functions]}")
    return model


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


def _answer(builder: GraphBuilder, target: Target) -> None:
    """Give the body's outputs their names; class indices become class names."""
    for name in outputs_of(target.problem):
        if name == "prediction" and target.classes:
            named = builder.add(
                "LabelEncoder",
                f"{_BODY}{name}",
                domain=ML_DOMAIN,
                keys_int64s=range(len(target.classes)),
                values_strings=target.classes,
            )
            builder.name(named, name)
        else:
            builder.name(f"{_BODY}{name}", name)


def _model(builder: GraphBuilder, schema: Schema, target: Target) -> onnx.ModelProto:
    info, k = helper.make_tensor_value_info, len(target.classes)
    kinds = {"datetime": TensorProto.INT64, "categorical": TensorProto.STRING}
    inputs = [info(column.name, kinds.get(column.kind, TensorProto.DOUBLE), ["n", 1]) for column in schema.columns]
    word = TensorProto.STRING if target.classes else TensorProto.FLOAT
    types = {"prediction": (word, []), "set": (TensorProto.BOOL, [k])}
    widths = {"probabilities": [k], "interval": [2]}
    shapes = {name: types.get(name, (TensorProto.FLOAT, widths.get(name, []))) for name in outputs_of(target.problem)}
    outputs = [info(name, kind, ["n", *rest]) for name, (kind, rest) in shapes.items()]
    graph = helper.make_graph(builder.nodes, "everfit", inputs, outputs, builder.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
    model = helper.make_model(graph, producer_name="everfit", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


@torch.inference_mode()
def _forward(module: nn.Module, rows: Prepared) -> Array:
    module.eval()
    numeric, categories = torch.from_numpy(rows.numeric), torch.from_numpy(rows.categories)
    starts = range(0, max(len(rows), 1), _BATCH)
    parts = [module(numeric[at : at + _BATCH], categories[at : at + _BATCH]) for at in starts]
    return torch.cat(parts).numpy().astype(np.float64)


def _candidates(
    members: Sequence[Member], study: Sequence[Mapping[str, Any]], calibration: Calibration
) -> dict[str, Any]:
    made = [
        {
            "candidate": dict(member.candidate),
            "weight": member.weight,
            "preparation": member.preparation.model_dump(mode="json"),
        }
        for member in members
    ]
    scale = None if calibration.scale is None else calibration.scale.model_dump()
    return {"members": made, "study": [dict(one) for one in study], SCALE: scale}


def _reference(
    rows: pd.DataFrame, labels: pd.Series[Any], answers: Scores, target: Target, drawn: npt.NDArray[np.int64]
) -> pd.DataFrame:
    """The drawn rows in the drawn order, so that the golden rows, which come first, are a random sample too."""
    truth = as_strings(labels) if target.classes else pd.to_numeric(labels)
    out = rows.iloc[drawn].reset_index(drop=True)
    out[LABEL] = truth.to_numpy()[drawn]
    for name, values in answers.take(drawn).columns().items():
        out[name] = values
    return out
