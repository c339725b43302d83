"""The gradient-boosted reference: what anybody would try first, on the same splits, so that a search stays honest.

scikit-learn's HistGradientBoosting (after LightGBM, Ke et al. 2017) with native categories, stopped early on the same
validation part, on one thread. It is measured and written into the model card; it is never served.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.metrics import Array, Labels, calibration_error, metrics_for
from registry.schema import Column, Schema
from registry.target import Target
from registry.task import Problem
from retrain.splits import Parts

ROUNDS = 200
PATIENCE = 15
MAX_CODES = 254
"""Codes a categorical column may have: scikit-learn's 255 bins less one for missing values."""


@dataclass(frozen=True)
class Boosted:
    """The reference on the test part: metrics by name, its scores (see `registry/metrics.py`), what it took."""

    metrics: dict[str, float]
    scores: Array
    rounds: int
    seconds: float


def fit_boosted(frame: pd.DataFrame, schema: Schema, target: Target, name: str, parts: Parts, *, seed: int) -> Boosted:
    """Fit the reference on a raw frame's training rows and measure it on its test rows; `name` is the target column."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    start = time.perf_counter()
    features, labels = encode(schema.conform(frame), schema), target.encode(frame[name])
    categorical = [column.kind == "categorical" for column in schema.columns for _ in range(width(column))]
    with threadpool_limits(1):
        model = _model(target.problem, categorical, seed)
        known = parts.validation[np.isin(labels[parts.validation], np.unique(labels[parts.train]))]
        if target.problem == "regression" or len(known) == 0:
            known = parts.validation
        model.fit(features[parts.train], labels[parts.train], X_val=features[known], y_val=labels[known])
        scores = _scores(model, features[parts.test], target)
    metrics = evaluate(labels[parts.test], scores, target.problem)
    return Boosted(metrics, scores, int(model.n_iter_), time.perf_counter() - start)


def evaluate(labels: Labels, scores: Array, problem: Problem) -> dict[str, float]:
    """Every metric of the problem by name, for classification with the calibration error (ECE); undefined ones are
    left out."""
    values = {name: metric.value(labels, scores) for name, metric in metrics_for(problem).items()}
    if problem != "regression":
        values["ece"] = calibration_error(labels, scores)
    return {name: value for name, value in values.items() if np.isfinite(value)}


def width(column: Column) -> int:
    """How many features a column becomes: three calendar parts for a datetime, one otherwise."""
    return 3 if column.kind == "datetime" else 1


def encode(conformed: pd.DataFrame, schema: Schema) -> npt.NDArray[np.float64]:
    """Conformed rows as (n, d): numbers, truths, calendar parts and category codes, NaN where missing."""
    return np.column_stack([_encode(conformed[column.name], column) for column in schema.columns])


def _encode(values: pd.Series[Any], column: Column) -> npt.NDArray[np.float64]:
    if column.kind == "datetime":
        moments = values.dt
        parts = [moments.hour + moments.minute / 60, moments.dayofweek, moments.dayofyear]
        return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])
    if column.kind != "categorical":
        return values.to_numpy(dtype=np.float64)
    learnt = column.categories[: MAX_CODES - 1]
    table = {category: code for code, category in enumerate(learnt)}
    codes = np.array(values.map(table), dtype=np.float64)
    codes[np.isnan(codes) & values.notna().to_numpy()] = len(learnt)  # rare and unknown ones share the last code
    return codes


def _model(problem: Problem, categorical: list[bool], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if problem == "regression" else HistGradientBoostingClassifier
    return kind(
        max_iter=ROUNDS,
        early_stopping=True,
        n_iter_no_change=PATIENCE,
        categorical_features=categorical,
        random_state=seed,
    )


def _scores(model: Any, features: npt.NDArray[np.float64], target: Target) -> Array:
    """(n, k) probabilities in the target's order of classes, 0 for one that training lacks; or (n,) numbers."""
    if target.problem == "regression":
        return np.asarray(model.predict(features), dtype=np.float64)
    scores = np.zeros((len(features), len(target.classes)))
    scores[:, model.classes_.astype(np.int64)] = model.predict_proba(features)
    return scores
