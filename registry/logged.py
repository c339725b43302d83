"""A row's scores as the inference log keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from registry.inference_log import Prediction, Role
from registry.scoring import Scores


def prediction_of(
    scores: Scores,
    row: int,
    *,
    name: str,
    time: datetime,
    received: datetime,
    version: str,
    features: Mapping[str, Any],
    role: Role = "champion",
) -> Prediction:
    """The prediction of one of the rows under the id `name`."""
    numbers = scores.interval if scores.probabilities is None else scores.probabilities
    prediction = scores.prediction[row]
    return Prediction(
        id=name,
        time=time,
        received=received,
        version=version,
        role=role,
        features=features,
        prediction=float(prediction) if scores.probabilities is None else str(prediction),
        scores=[] if numbers is None else numbers[row].tolist(),
        conformal=None if scores.sets is None else np.flatnonzero(scores.sets[row]).tolist(),
        uncertainty=float(scores.uncertainty[row]),
        disagreement=float(scores.disagreement[row]),
    )
