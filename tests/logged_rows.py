"""Predictions one by one, for tests that say what each of them holds; the log takes them by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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

    @property
    def batch(self) -> Batch:
        """The same as a batch of one."""
        return Batch(
            self.version,
            self.role,
            [self.id],
            [to_micros(self.time)],
            [to_micros(self.received)],
            [self.features],
            [self.prediction],  # type: ignore[arg-type]  # of one kind
            [self.scores],
            None if self.conformal is None else [self.conformal],
            [self.uncertainty],
            [self.disagreement],
        )


def append(log: InferenceLog, predictions: Sequence[Prediction]) -> int:
    """Log predictions in one call; how many were new."""
    return log.append_batches([one.batch for one in predictions])
