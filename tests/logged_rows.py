"""Predictions one by one, for tests that say what each of them holds; the log takes them by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from registry.database import to_micros
from registry.inference_log import InferenceLog
from registry.log_batch import Batch, Role


@dataclass(frozen=True)
class Prediction:
    """One served row; see `Batch`."""

    id: str
    time: datetime
    received: datetime
    version: str
    role: Role
    features: Mapping[str, Any]
    prediction: str | float
    scores: Sequence[float]
    conformal: Sequence[int] | None
    uncertainty: float
    disagreement: float


def batch_of(rows: Sequence[Prediction]) -> Batch:
    """Predictions of one version in one role as a batch."""
    return Batch(
        rows[0].version,
        rows[0].role,
        [one.id for one in rows],
        [to_micros(one.time) for one in rows],
        [to_micros(one.received) for one in rows],
        [one.features for one in rows],
        [one.prediction for one in rows],  # type: ignore[arg-type]  # of one kind
        [one.scores for one in rows],
        None if rows[0].conformal is None else [one.conformal for one in rows],  # type: ignore[misc]
        [one.uncertainty for one in rows],
        [one.disagreement for one in rows],
    )


def append(log: InferenceLog, predictions: Sequence[Prediction]) -> int:
    """Log predictions in one call, each as a request of its own; how many were new."""
    return log.append_batches([batch_of([one]) for one in predictions])


def append_joined(log: InferenceLog, predictions: Sequence[Prediction], *, most: int = 144) -> int:
    """The same in batches of so many, as the log itself joins them: less work for writers and for readers. Of
    `make_frame` that is a day."""
    parts = [predictions[first : first + most] for first in range(0, len(predictions), most)]
    alike = [list(rows) for part in parts for _, rows in groupby(part, lambda one: (one.version, one.role))]
    return log.append_batches(map(batch_of, alike))
