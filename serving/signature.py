"""What a served version says of itself in the Open Inference Protocol: its inputs and outputs, and Triton's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from registry.bundle import Manifest
from serving.answers import STRANGE
from serving.champion import Served
from serving.tensors import BOOL, BYTES, FP64

PLATFORM = "onnxruntime_onnx"

_DATATYPES = {
    "numeric": FP64,
    "boolean": BOOL,
    "datetime": BYTES,
    "categorical": BYTES,
    "text": BYTES,
    "image": BYTES,
}
"""How each kind of column is best sent; `serving/tensor_rows.py` says what else is read."""


def metadata(task: str, versions: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    """The model's metadata: one input a column, and the outputs, with shapes [-1, k]."""
    return {
        "name": task,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_tensor(column.name, _DATATYPES[column.kind], 1) for column in manifest.data_schema.columns],
        "outputs": [_tensor(*one) for one in _outputs(manifest)],
    }


def config(task: str, served: Served, max_rows: int) -> dict[str, Any]:
    """The same as Triton's model configuration; `parameters` list the classes, in the order of `probabilities`."""
    manifest = served.manifest
    columns = [(column.name, _DATATYPES[column.kind], 1) for column in manifest.data_schema.columns]
    facts = {
        "classes": orjson.dumps(manifest.target.classes).decode() if manifest.target.classes else "",
        "problem": manifest.task.problem,
        "target": manifest.task.target,
        "coverage": f"{manifest.task.coverage:g}",
    }
    return {
        "name": task,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": max_rows,
        "input": [_slot(*one) for one in columns],
        "output": [_slot(*one) for one in _outputs(manifest)],
        "version_policy": {"specific": {"versions": [served.version]}},
        "parameters": {name: {"string_value": value} for name, value in facts.items() if value},
    }


def output_names(manifest: Manifest) -> list[str]:
    """The names of its outputs."""
    return [name for name, _, _ in _outputs(manifest)]


def _outputs(manifest: Manifest) -> list[tuple[str, str, int]]:
    classes = len(manifest.target.classes)
    own = (
        [("prediction", BYTES, 1), ("probabilities", FP64, classes), ("set", BOOL, classes)]
        if classes
        else [("prediction", FP64, 1), ("interval", FP64, 2)]
    )
    return [("id", BYTES, 1), *own, ("uncertainty", FP64, 1), ("disagreement", FP64, 1), (STRANGE, BOOL, 1)]


def _tensor(name: str, datatype: str, width: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, width]}


def _slot(name: str, datatype: str, width: int) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}", "dims": [width]}
