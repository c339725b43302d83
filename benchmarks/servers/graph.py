"""A bundle's graph for servers that know nothing of Everfit: rows of JSON in, answers out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Row = dict[str, Any]


class OnnxModel:
    """The graph, opened for one thread, and what it reads."""

    def __init__(self, bundle: str | Path) -> None:
        folder = Path(bundle)
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.columns: list[dict[str, Any]] = manifest["data_schema"]["columns"]
        self.classes: list[str] = manifest["target"]["classes"]
        self.session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def feed(self, rows: Sequence[Row]) -> dict[str, np.ndarray[Any, Any]]:
        """The graph's inputs, (n, 1) each."""
        return {column["name"]: _values(rows, column)[:, None] for column in self.columns}

    def run(self, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The graph's outputs by name."""
        return dict(zip(self.names, self.session.run(self.names, feed), strict=True))

    def answers(self, rows: Sequence[Row]) -> list[Row]:
        """One answer a row, with what Everfit's answers hold but for the id and the conformal set."""
        found = {name: values.tolist() for name, values in self.run(self.feed(rows)).items()}
        shown = ("prediction", "interval", "uncertainty", "disagreement")
        out = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        if not self.classes:
            return [{name: one[name] for name in shown} for one in out]
        shares = (dict(zip(self.classes, one["probabilities"], strict=True)) for one in out)
        kept = [name for name in shown if name != "interval"]
        return [{**{name: one[name] for name in kept}, "probabilities": p} for one, p in zip(out, shares, strict=True)]


def _values(rows: Sequence[Row], column: dict[str, Any]) -> np.ndarray[Any, Any]:
    values = [row.get(column["name"]) for row in rows]
    if column["kind"] == "categorical":
        return np.array(["" if value is None else str(value) for value in values], dtype=object)
    if column["kind"] == "datetime":
        return np.array(values, dtype="datetime64[us]").view(np.int64)
    if column["kind"] in ("numeric", "boolean"):
        return np.array(values, dtype=np.float64)
    raise ValueError(f"column {column['name']!r}: expected numbers, truth values, moments or categories")
