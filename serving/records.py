"""The journal's records of requests, read: the rows that were sent, and the predictions as the inference log has them.

A request was logged in one of two forms, whatever it came in: rows and their answers, as `POST /predict` takes and
gives them, or columns of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from registry.database import from_micros
from registry.inference_log import Prediction
from registry.watched import logged_features
from serving.rows import Row, micros

Model: TypeAlias = dict[str, Any]
"""A served version as the journal describes it."""


def predictions_of(content: dict[str, Any], model: Model) -> Iterator[Prediction]:
    """A record of one request, made by `model`, as rows of the inference log."""
    received = from_micros(content["received"])
    answers = _answers(content["answer"], model)
    index = {label: number for number, label in enumerate(model["labels"])}
    seen = content.get("seen") or [(None, ())] * len(answers)
    for row, answer, (digest, numbers) in zip(rows_of(content["sent"]), answers, seen, strict=True):
        when = row.get(model["time"]) if model["time"] else None
        classes = "probabilities" in answer
        yield Prediction(
            id=answer["id"],
            time=from_micros(micros(when)) if isinstance(when, str) else received,
            received=received,
            version=model["version"],
            role="champion",
            features=logged_features(row, model["columns"], model.get("image", {}).get("name"), digest, numbers),
            prediction=model["classes"][index[answer["prediction"]]] if classes else answer["prediction"],
            scores=list(answer["probabilities"].values()) if classes else answer["interval"],
            conformal=[index[label] for label in answer["set"]] if classes else None,
            uncertainty=answer["uncertainty"],
            disagreement=answer["disagreement"],
        )


def rows_of(sent: Any) -> list[Row]:
    """The rows of a request as it was logged."""
    if isinstance(sent, list):
        return sent
    if isinstance(columns := sent.get("columns"), dict):
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = sent.get("rows")
    return rows if isinstance(rows, list) else [sent]


def _answers(answer: dict[str, Any], model: Model) -> list[dict[str, Any]]:
    """The answers as rows."""
    columns = answer.get("columns")
    if columns is None:
        found: list[dict[str, Any]] = answer["predictions"]
        return found
    plain = {name: values for name, values in columns.items() if not isinstance(values, dict)}
    rows = [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]
    if "interval" in columns:
        ends = zip(columns["interval"]["low"], columns["interval"]["high"], strict=True)
        return [row | {"interval": [low, high]} for row, (low, high) in zip(rows, ends, strict=True)]
    shares, inside = columns["probabilities"], columns["set"]
    for number, row in enumerate(rows):
        row["probabilities"] = {name: values[number] for name, values in shares.items()}
        members = (values[number] for values in inside.values())
        row["set"] = [label for label, member in zip(model["labels"], members, strict=True) if member]
    return rows
