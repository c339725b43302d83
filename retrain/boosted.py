"""The boosted reference on a search's own splits, so that the card says honestly what a plain method reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from registry.conforming import conform
from registry.metrics import Array, Labels, Problem, calibration_error, metrics_for
from registry.schema import Schema
from registry.target import Target
from registry.yardstick import Yardstick, lean
from retrain.splits import Parts


@dataclass(frozen=True)
class Boosted:
    """The reference on the test part: metrics by name, its scores (see `registry/metrics.py`), CPU-seconds."""

    metrics: dict[str, float]
    scores: Array
    rounds: int
    seconds: float


def fit_boosted(frame: pd.DataFrame, schema: Schema, target: Target, name: str, parts: Parts, *, seed: int) -> Boosted:
    """Fit the reference on a raw frame's training rows, stopped early on its validation rows, and measure it on its
    test rows; `name` is the target column.

    Trees split a calendar where the training rows end, and know nothing of what lies beyond: where there are moments, a
    second model goes without them, and the one that is better on the validation rows is the reference.
    """
    start = time.thread_time()
    rows, labels = conform(frame, schema), target.encode(frame[name])
    validation = rows.iloc[parts.validation], labels[parts.validation]
    schemas = [schema, lean(schema)] if schema.of("datetime") and lean(schema).columns else [schema]
    models = [
        Yardstick.fit(rows.iloc[parts.train], labels[parts.train], *validation, schema=one, target=target, seed=seed)
        for one in schemas
    ]
    loss = metrics_for(target.problem)["rmse" if target.problem == "regression" else "log_loss"]
    losses = [loss.value(validation[1], one.scores(validation[0])) for one in models]
    model = models[int(np.nanargmin(losses))] if np.isfinite(losses).any() else models[0]
    scores = model.scores(rows.iloc[parts.test])
    metrics = evaluate(labels[parts.test], scores, target.problem)
    return Boosted(metrics, scores, model.rounds, time.thread_time() - start)


def evaluate(labels: Labels, scores: Array, problem: Problem) -> dict[str, float]:
    """Every metric of the problem by name, for classification with the calibration error (ECE); undefined ones are
    left out."""
    values = {name: metric.value(labels, scores) for name, metric in metrics_for(problem).items()}
    if problem != "regression":
        values["ece"] = calibration_error(labels, scores)
    return {name: value for name, value in values.items() if np.isfinite(value)}
