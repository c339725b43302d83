"""A small sealed bundle whose graph is written by hand, and frames that fit it: for tests of serving, monitoring and
the registry, which must not need a search. The graph is a real one with every input kind and every output."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from registry.bundle import LABEL, Estimate, Lineage, Manifest, ModelBundle
from registry.conforming import conform
from registry.metrics import Problem, metrics_for
from registry.schema import BooleanColumn, CategoricalColumn, DatetimeColumn, NumericColumn, Schema
from registry.target import Target
from registry.task import TaskSpec

CARRIERS = ("AA", "BB", "CC")
_WEIGHTS = np.array([1.5, -1.0, 0.8, -0.6, 1.2], dtype=np.float32)  # amount, weight, member, carrier BB, carrier CC


def make_task(problem: Problem = "binary", **changes: object) -> TaskSpec:
    """A task over the columns of `make_frame`."""
    base: dict[str, object] = {
        "name": "handmade",
        "source": {"kind": "file", "path": "handmade.csv"},
        "target": "late",
        "time": "when",
        "problem": problem,
        "metric": "rmse" if problem == "regression" else "auc",
        "monitor": {"windows": {"kind": "time", "every": "7d"}, "report": "never"},
    }
    return TaskSpec.model_validate({**base, **changes})


def make_frame(
    rows: int,
    *,
    seed: int = 0,
    problem: Problem = "binary",
    start: str = "2024-01-01",
    every: str = "10min",
    flip: float = 0.0,
    shift: float = 0.0,
) -> pd.DataFrame:
    """Raw rows in time order with their target `late`. `flip` is the share of rows whose relation to the target is
    reversed (concept drift: performance falls), `shift` is added to `amount` (covariate shift)."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "when": pd.date_range(start, periods=rows, freq=every),
            "amount": rng.normal(shift, 1, rows),
            "weight": rng.gamma(2, 1, rows),
            "member": rng.random(rows) < 0.4,
            "carrier": rng.choice(CARRIERS, rows, p=[0.5, 0.3, 0.2]),
        }
    )
    score = _score(frame) * np.where(rng.random(rows) < flip, -1, 1)
    if problem == "regression":
        frame["late"] = score + rng.normal(0, 0.5, rows)
    elif problem == "binary":
        frame["late"] = np.where(rng.random(rows) < 1 / (1 + np.exp(-2 * score)), "yes", "no")
    else:
        frame["late"] = np.select([score + rng.gumbel(0, 0.3, rows) < -0.8, score < 0.8], ["low", "mid"], "top")
    return frame


def _score(frame: pd.DataFrame) -> np.ndarray:
    carrier = frame["carrier"]
    parts = [frame["amount"], frame["weight"] - 2, frame["member"], carrier == "BB", carrier == "CC"]
    return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts]) @ _WEIGHTS


def make_schema() -> Schema:
    """The schema of `make_frame`, without the target."""
    return Schema(
        columns=(
            DatetimeColumn(name="when", low=datetime(2024, 1, 1), high=datetime(2024, 3, 1)),
            NumericColumn(name="amount", low=-4.0, high=4.0),
            NumericColumn(name="weight", low=0.0, high=12.0, missing=0.01),
            BooleanColumn(name="member"),
            CategoricalColumn(name="carrier", categories=CARRIERS, distinct=3),
        )
    )


def make_bundle(
    folder: Path, *, problem: Problem = "binary", quality: float = 1.0, rows: int = 600, **task_changes: object
) -> ModelBundle:
    """Seal a bundle. `quality` scales the graph's weights: 1 is the true relation, -1 its reverse, 0 knows nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    task, schema = make_task(problem, **task_changes), make_schema()
    frame = make_frame(rows, seed=99, problem=problem, start="2024-02-25")
    target = Target.learn(frame["late"], problem)
    onnx.save(_graph(target, quality), folder / "model.onnx")
    reference = _reference(folder / "model.onnx", schema, frame, target)
    reference.to_parquet(folder / "reference.parquet")
    safetensors.numpy.save_file({"member0.weights": _WEIGHTS}, folder / "weights.safetensors")
    (folder / "candidates.json").write_text(json.dumps({"members": [], "study": []}))
    (folder / "card.md").write_text("# handmade\n")
    labels = target.encode(frame["late"])
    scores = np.stack(reference["probabilities" if problem != "regression" else "prediction"].to_list()).astype(float)
    metric = metrics_for(problem)[task.metric]
    value = metric.value(labels, scores)
    return ModelBundle.seal(
        folder,
        Manifest(
            task=task,
            data_schema=schema,
            target=target,
            reference=Estimate(value=value, error=metric.standard_error(labels, scores), rows=rows),
            headroom=Estimate(value=0.0, error=0.002, rows=rows),
            metrics={"champion": {metric.name: value}, "boosted": {metric.name: value}},
            conformal_radius=0.8,
            lineage=Lineage(
                data_hash="0" * 64,
                rows={"train": 1000, "validation": 100, "calibration": 100, "test": rows},
                known_until=datetime(2024, 3, 1),
                code_version="test",
                seed=0,
                seconds=1.0,
                trials=1,
            ),
        ),
    )


def _reference(model: Path, schema: Schema, frame: pd.DataFrame, target: Target) -> pd.DataFrame:
    conformed = conform(frame, schema)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed = {
        "when": conformed["when"].to_numpy().astype("datetime64[us]").astype(np.int64)[:, None],
        **{name: conformed[name].to_numpy(np.float64)[:, None] for name in ("amount", "weight", "member")},
        "carrier": conformed["carrier"].to_numpy(object)[:, None],
    }
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, feed), strict=True))
    label = frame["late"].reset_index(drop=True)
    return conformed.assign(**{LABEL: label, **{name: list(value) for name, value in outputs.items()}})


def _graph(target: Target, quality: float) -> onnx.ModelProto:
    """score = quality * weights . features; classes by thresholds on it, or the score itself."""
    nodes = [
        helper.make_node("Concat", ["amount", "weight", "member"], ["raw"], axis=1),
        helper.make_node("IsNaN", ["raw"], ["gaps"]),
        helper.make_node("Where", ["gaps", "typical", "raw"], ["filled"]),
        helper.make_node("Cast", ["filled"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node(
            "LabelEncoder",
            ["carrier"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=list(CARRIERS),
            values_int64s=[0, 1, 2],
            default_int64=0,
        ),
        helper.make_node("Gather", ["effects", "code"], ["effect"], axis=0),
        helper.make_node("MatMul", ["numbers", "weights"], ["linear"]),
        helper.make_node("Add", ["linear", "effect"], ["biased"]),
        helper.make_node("Sub", ["biased", "offset"], ["score2d"]),
        helper.make_node("Mul", ["when", "zero_time"], ["no_time"]),
        helper.make_node("Cast", ["no_time"], ["no_time_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["score2d", "no_time_float"], ["score"]),
    ]
    constants = {
        "typical": np.array([[0.0, 2.0, 0.0]]),
        "weights": quality * _WEIGHTS[:3, None],
        "effects": quality * np.array([0.0, *_WEIGHTS[3:]], dtype=np.float32),
        "offset": np.array(quality * 2 * _WEIGHTS[1], dtype=np.float32),
        "zero_time": np.array(0, dtype=np.int64),
    }
    outputs = _heads(target, nodes, constants)
    inputs = [helper.make_tensor_value_info("when", TensorProto.INT64, ["n", 1])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 1]) for name in ("amount", "weight")]
    inputs += [helper.make_tensor_value_info("member", TensorProto.DOUBLE, ["n", 1])]
    inputs += [helper.make_tensor_value_info("carrier", TensorProto.STRING, ["n", 1])]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "handmade", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model


def _heads(target: Target, nodes: list, constants: dict[str, np.ndarray]) -> list[onnx.ValueInfoProto]:
    node, info, FLOAT = helper.make_node, helper.make_tensor_value_info, TensorProto.FLOAT
    constants |= {"one": np.array([1], dtype=np.int64), "none": np.array(0, dtype=np.float32)}
    if target.problem == "regression":
        constants |= {"radius": np.array([[-1.0, 1.0]], dtype=np.float32), "spread": np.array(0.5, dtype=np.float32)}
        nodes += [
            node("Squeeze", ["score", "one"], ["prediction"]),
            node("Add", ["score", "radius"], ["interval"]),
            node("Mul", ["prediction", "none"], ["disagreement"]),
            node("Add", ["disagreement", "spread"], ["uncertainty"]),
        ]
        return [
            info("prediction", FLOAT, ["n"]),
            info("interval", FLOAT, ["n", 2]),
            info("uncertainty", FLOAT, ["n"]),
            info("disagreement", FLOAT, ["n"]),
        ]
    k = len(target.classes)
    slopes = np.linspace(-1, 1, k, dtype=np.float32)[None, :]
    constants |= {
        "slopes": slopes,
        "centre": (0.8 * (1 - slopes**2)).astype(np.float32) * (k > 2),
        "cut": np.array(0.2, dtype=np.float32),
        "tiny": np.array(1e-7, dtype=np.float32),
    }
    nodes += [
        node("Mul", ["score", "slopes"], ["sloped"]),
        node("Add", ["sloped", "centre"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
        node("GreaterOrEqual", ["probabilities", "cut"], ["set"]),
        node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        node(
            "LabelEncoder",
            ["index"],
            ["prediction"],
            domain="ai.onnx.ml",
            keys_int64s=list(range(k)),
            values_strings=list(target.classes),
        ),
        node("Max", ["probabilities", "tiny"], ["safe"]),
        node("Log", ["safe"], ["logs"]),
        node("Mul", ["safe", "logs"], ["terms"]),
        node("ReduceSum", ["terms", "one"], ["negative_entropy"], keepdims=0),
        node("Neg", ["negative_entropy"], ["uncertainty"]),
        node("Mul", ["uncertainty", "none"], ["disagreement"]),
    ]
    return [
        info("prediction", TensorProto.STRING, ["n"]),
        info("probabilities", FLOAT, ["n", k]),
        info("set", TensorProto.BOOL, ["n", k]),
        info("uncertainty", FLOAT, ["n"]),
        info("disagreement", FLOAT, ["n"]),
    ]
