"""Rows of `make_frame` as they come to stand in the inference log, answered by a bundle's own graph."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from registry.bundle import ModelBundle
from registry.inference_log import Feedback, InferenceLog
from registry.scoring import Scorer
from tests.logged_rows import Prediction, append_joined


def write_rows(
    log: InferenceLog,
    bundle: ModelBundle,
    frame: pd.DataFrame,
    *,
    version: str = "1",
    tag: str = "",
    delay: int | None = 1,
) -> None:
    """Log every row of a raw frame under the ids `tag0, tag1, ...`, and its label `delay` days later (None: never)."""
    scores = Scorer.load(bundle).predict(frame)
    spread = scores.interval if scores.probabilities is None else scores.probabilities
    records = _records(frame.drop(columns="late"))
    times = [moment.to_pydatetime() for moment in frame["when"]]
    append_joined(
        log,
        [
            Prediction(
                id=f"{tag}{row}",
                time=times[row],
                received=times[row],
                version=version,
                role="champion",
                features=records[row],
                prediction=answer if isinstance(answer, str) else float(answer),
                scores=[float(one) for one in spread[row]],
                conformal=None if scores.sets is None else np.flatnonzero(scores.sets[row]).tolist(),
                uncertainty=float(scores.uncertainty[row]),
                disagreement=float(scores.disagreement[row]),
            )
            for row, answer in enumerate(scores.prediction)
        ],
    )
    if delay is not None:
        write_labels(log, frame, tag=tag, delay=delay)


def write_labels(log: InferenceLog, frame: pd.DataFrame, *, tag: str = "", delay: int = 1) -> None:
    """The labels alone."""
    pairs = zip(frame["late"], frame["when"], strict=True)
    moments = [(label, when.to_pydatetime() + timedelta(days=delay)) for label, when in pairs]
    known = [
        Feedback(f"{tag}{row}", label if isinstance(label, str) else float(label), moment, moment)
        for row, (label, moment) in enumerate(moments)
    ]
    log.add_feedback(known)


def _records(features: pd.DataFrame) -> list[dict]:
    """JSON rows: moments as ISO strings, missing as None."""
    plain = features.assign(when=features["when"].map(lambda moment: moment.isoformat()))
    return plain.astype(object).where(plain.notna(), None).to_dict("records")
