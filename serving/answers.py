"""Answers to `POST /predict`: the graph's outputs as JSON, in the words of the task's own labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from registry.scoring import Scores
from registry.target import Target


class Answers:
    """Writes the answers of one served version."""

    def __init__(self, task: str, version: str, target: Target) -> None:
        self._head = b'{"model":' + orjson.dumps({"task": task, "version": version}) + b',"predictions":'
        self._classes = target.classes
        self._labels = [target.decode(name) for name in target.classes]
        self._label_of = dict(zip(target.classes, self._labels, strict=True))

    def write(self, ids: Sequence[str], scores: Scores, warnings: Sequence[str] = ()) -> bytes:
        """The body of the answer for n rows: `ids` and `scores` in their order."""
        rows = self._numbers(ids, scores) if scores.probabilities is None else self._class_rows(ids, scores)
        tail = b',"warnings":' + orjson.dumps(warnings) + b"}" if warnings else b"}"
        return self._head + orjson.dumps(rows) + tail

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
