"""A model's scores as the inference log keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
    return Batch(
        version,
        role,
        ids,
        times,
        received,
        features,
        predictions=scores.prediction.tolist(),
        scores=[()] * len(ids) if numbers is None else numbers.tolist(),
        conformal=None if scores.sets is None else members(scores.sets),
        uncertainty=scores.uncertainty.tolist(),
        disagreement=scores.disagreement.tolist(),
    )


_BITS = 62


def members(sets: npt.NDArray[np.bool_]) -> list[list[int]]:
    """The places of each row's true values; `sets` is (n, k). Rows of few classes are of few kinds.

    >>> members(np.array([[True, False], [True, True], [False, False]]))
    [[0], [0, 1], []]
    """
    if sets.shape[1] > _BITS:
        return [[place for place, inside in enumerate(row) if inside] for row in sets.tolist()]
    kinds, which = np.unique(sets @ (1 << np.arange(sets.shape[1])), return_inverse=True)
    found = [[place for place in range(sets.shape[1]) if kind >> place & 1] for kind in kinds.tolist()]
    return [found[one] for one in which.tolist()]
