"""A model's scores as the inference log keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.log_batch import Batch, Role
from registry.scoring import Scores


def batch_of(
    scores: Scores,
    *,
    ids: Sequence[str],
    times: Sequence[int],
    received: Sequence[int],
    version: str,
    features: Sequence[Mapping[str, Any]],
    role: Role = "champion",
) -> Batch:
    """The predictions of n rows; times are microseconds since 1970 UTC."""
    numbers = scores.interval if scores.probabilities is None else scores.probabilities
    members = None if scores.sets is None else scores.sets.tolist()
    return Batch(
        version,
        role,
        ids,
        times,
        received,
        features,
        predictions=scores.prediction.tolist(),
        scores=[()] * len(ids) if numbers is None else numbers.tolist(),
        conformal=members and [[place for place, inside in enumerate(row) if inside] for row in members],
        uncertainty=scores.uncertainty.tolist(),
        disagreement=scores.disagreement.tolist(),
    )
