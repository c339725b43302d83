"""Answers: the graph's outputs in the words of the task's own labels, as rows or as columns, in JSON, Arrow or Parquet.

    rows      {"model": {...}, "predictions": [{"id": ..., "prediction": ..., ...}, ...], "warnings": [...]}
    columns   {"model": {...}, "columns": {"id": [...], "prediction": [...], ...}, "warnings": [...]}

Of a classification `probabilities` and `set` are there, of a regression `interval`. In a row a set is a list of labels,
in columns a list of truth values for each class. A client may ask for some of the `FIELDS` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from registry.errors import did_you_mean
from registry.scoring import Scores
from registry.target import Target
from serving.quoting import shown
from serving.rows import MisfitError

STRANGE = "out_of_distribution"
CLASS_FIELDS = ("id", "prediction", "probabilities", "set", "uncertainty", "disagreement", STRANGE)
NUMBER_FIELDS = ("id", "prediction", "interval", "uncertainty", "disagreement", STRANGE)

Columns: TypeAlias = dict[str, Any]
"""By field: a list, an array (n,), or of several numbers a row a dictionary of arrays (n,)."""


def fields_of(target: Target) -> tuple[str, ...]:
    """The fields of the answers to a task."""
    return CLASS_FIELDS if target.classes else NUMBER_FIELDS


class Answers:
    """Writes the answers of one served version."""

    def __init__(self, task: str, version: str, target: Target) -> None:
        self.model = {"task": task, "version": version}
        self._head = b'{"model":' + orjson.dumps(self.model)
        self._classes = target.classes
        self._labels = [target.decode(name) for name in target.classes]
        self._label_of = dict(zip(target.classes, self._labels, strict=True))
        self.fields = fields_of(target)
        """All that can be asked for."""

    def write(self, ids: Sequence[str], scores: Scores, warnings: Sequence[str] = ()) -> bytes:
        """The body of the answer for n rows: `ids` and `scores` in their order."""
        rows = self._numbers(ids, scores) if scores.probabilities is None else self._class_rows(ids, scores)
        return self._whole("predictions", orjson.dumps(rows), warnings)

    def write_one(self, one: str, answer: Sequence[float], radius: float, warnings: Sequence[str] = ()) -> bytes:
        """The same for one row of `registry.serving_graph`'s answers."""
        *first, uncertainty, disagreement = answer
        row: dict[str, Any] = {"id": one}
        if self._classes:
            top = max(first)
            cut = min(top, _single(1 - radius))
            row["prediction"] = self._labels[first.index(top)]
            row["probabilities"] = dict(zip(self._classes, first, strict=True))
            row["set"] = [label for label, share in zip(self._labels, first, strict=True) if share >= cut]
        else:
            reach = _single(uncertainty * _single(radius))
            row["prediction"] = first[0]
            row["interval"] = [_single(first[0] - reach), _single(first[0] + reach)]
        row["uncertainty"], row["disagreement"] = uncertainty, disagreement
        return self._whole("predictions", orjson.dumps([row]), warnings)

    def columns(self, ids: Sequence[str], scores: Scores) -> Columns:
        """The answers by columns: all fields but `out_of_distribution`."""
        found: Columns = {"id": list(ids)}
        if scores.probabilities is None or scores.sets is None:
            low, high = np.ascontiguousarray(_given(scores.interval).T)
            found |= {"prediction": scores.prediction, "interval": {"low": low, "high": high}}
        else:
            label_of = self._label_of
            found["prediction"] = [label_of[name] for name in scores.prediction.tolist()]
            found["probabilities"] = self._by_class(scores.probabilities)
            found["set"] = self._by_class(scores.sets)
        return found | {"uncertainty": scores.uncertainty, "disagreement": scores.disagreement}

    def write_columns(self, columns: Columns, warnings: Sequence[str] = ()) -> bytes:
        """The body of an answer by columns."""
        return self._whole("columns", orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY), warnings)

    def write_rows(self, columns: Columns, warnings: Sequence[str] = ()) -> bytes:
        """The body of an answer by rows, of columns that may be some of all."""
        lists = [self._row_values(name, values) for name, values in columns.items()]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]
        return self._whole("predictions", orjson.dumps(rows), warnings)

    def asked(self, fields: str) -> tuple[str, ...]:
        """The fields of `?fields=a,b`, in that order. Raises `MisfitError` for one that does not exist."""
        names = tuple(dict.fromkeys(name.strip() for name in fields.split(",") if name.strip()))
        if wrong := next((name for name in names if name not in self.fields), None):
            near = did_you_mean(wrong, self.fields)
            message = f"fields: expected some of {', '.join(self.fields)}, got {shown(wrong)}{near}"
            raise MisfitError(message, column="fields", value=wrong)
        if not names:
            raise MisfitError(f"fields: expected some of {', '.join(self.fields)}, got none", column="fields")
        return names

    def _whole(self, name: str, content: bytes, warnings: Sequence[str]) -> bytes:
        tail = b',"warnings":' + orjson.dumps(warnings) + b"}" if warnings else b"}"
        return b'%b,"%b":%b%b' % (self._head, name.encode(), content, tail)

    def _by_class(self, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(self._classes, np.ascontiguousarray(values.T), strict=True))

    def _row_values(self, name: str, values: Any) -> list[Any]:
        if not isinstance(values, dict):
            return values if isinstance(values, list) else values.tolist()
        parts = [part.tolist() for part in values.values()]
        if name == "set":
            members = zip(*parts, strict=True)
            return [[one for one, inside in zip(self._labels, row, strict=True) if inside] for row in members]
        if name == "interval":
            return [list(row) for row in zip(*parts, strict=True)]
        return [dict(zip(values, row, strict=True)) for row in zip(*parts, strict=True)]

    def _class_rows(self, ids: Sequence[str], scores: Scores) -> list[dict[str, Any]]:
        classes, labels, label_of = self._classes, self._labels, self._label_of
        return [
            {
                "id": one,
                "prediction": label_of[name],
                "probabilities": dict(zip(classes, shares, strict=True)),
                "set": [label for label, inside in zip(labels, members, strict=True) if inside],
                "uncertainty": total,
                "disagreement": apart,
            }
            for one, name, shares, members, total, apart in zip(ids, *_lists(scores, scores.sets), strict=True)
        ]

    def _numbers(self, ids: Sequence[str], scores: Scores) -> list[dict[str, Any]]:
        return [
            {"id": one, "prediction": value, "interval": interval, "uncertainty": total, "disagreement": apart}
            for one, value, interval, total, apart in zip(ids, *_number_lists(scores), strict=True)
        ]


def _single(value: float) -> float:
    """A number as single precision has it, as the graph does."""
    return float(np.float32(value))


def _given(values: Any) -> npt.NDArray[Any]:
    return np.asarray(values)


def _lists(scores: Scores, sets: Any) -> tuple[list[Any], ...]:
    shares: Any = scores.probabilities
    return (
        scores.prediction.tolist(),
        shares.tolist(),
        sets.tolist(),
        scores.uncertainty.tolist(),
        scores.disagreement.tolist(),
    )


def _number_lists(scores: Scores) -> tuple[list[Any], ...]:
    interval: Any = scores.interval
    parts = (scores.prediction, interval, scores.uncertainty, scores.disagreement)
    return tuple(part.tolist() for part in parts)
