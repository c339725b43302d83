"""A gradient-boosted yardstick: what anybody would try first, quickly fitted on the rows at hand.

scikit-learn's HistGradientBoosting (after LightGBM, Ke et al. 2017) with native categories, on one thread. Retraining
writes it into the model card beside the champion; monitoring asks it what the newest labelled rows would teach. It is
never served.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.metrics import Array, Labels
from registry.schema import Column, Schema
from registry.target import Target
from registry.texts import TextNumbers

ROUNDS = 200
PATIENCE = 15
MAX_CODES = 254
"""Codes a categorical column may have: scikit-learn's 255 bins less one for missing values."""

Features = npt.NDArray[np.float64]


class Yardstick:
    """A fitted boosted model of a schema and a target."""

    def __init__(self, model: Any, schema: Schema, target: Target) -> None:
        self._model, self._schema, self._target = model, schema, target

    @classmethod
    def fit(
        cls,
        training: pd.DataFrame,
        labels: Labels,
        validation: pd.DataFrame,
        validation_labels: Labels,
        *,
        schema: Schema,
        target: Target,
        seed: int = 0,
    ) -> Yardstick:
        """Fit on conformed training rows (n,), stopped early on conformed validation rows (m,).

        Validation rows of a class that training lacks are passed over. Raises `ValueError` on fewer than two classes.
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        known = np.ones(len(validation), dtype=bool)
        if target.problem != "regression" and (seen := np.isin(validation_labels, np.unique(labels))).any():
            known = seen
        model = _model(target, schema, seed)
        with threadpool_limits(1):
            model.fit(
                filled(encode(training, schema)),
                labels,
                X_val=encode(validation[known], schema),
                y_val=validation_labels[known],
            )
        return cls(model, schema, target)

    @property
    def rounds(self) -> int:
        """Boosting rounds that early stopping left."""
        return int(self._model.n_iter_)

    def scores(self, conformed: pd.DataFrame) -> Array:
        """(n, k) probabilities in the target's order of classes, 0 for one that training lacks; or (n,) numbers."""
        features = encode(conformed, self._schema)
        if self._target.problem == "regression":
            return np.asarray(self._model.predict(features), dtype=np.float64)
        scores = np.zeros((len(features), len(self._target.classes)))
        scores[:, self._model.classes_.astype(np.int64)] = self._model.predict_proba(features)
        return scores


def encode(conformed: pd.DataFrame, schema: Schema) -> Features:
    """Conformed rows as (n, d): numbers, truths, calendar parts and category codes, NaN where missing. Images have
    numbers in their place already (`watched.py`)."""
    return np.column_stack([_encode(conformed[column.name], column) for column in schema.columns])


def filled(features: Features) -> Features:
    """Features (n, d) to fit trees to: those without a single value become 0, of which trees make nothing either. As
    they are, scikit-learn cannot cut them into bins.

    >>> filled(np.array([[1.0, np.nan], [np.nan, np.nan]])).tolist()
    [[1.0, 0.0], [nan, 0.0]]
    """
    return np.where(np.isnan(features).all(axis=0), 0.0, features)


def lean(schema: Schema) -> Schema:
    """The columns without moments, and without the words of texts, of which lengths are left."""
    kept = schema.of("numeric", "boolean", "categorical", "text")
    bare = (one.model_copy(update={"words": ()}) if one.kind == "text" else one for one in kept)
    return Schema(columns=tuple(bare))


def width(column: Column) -> int:
    """How many features a column becomes: three calendar parts for a datetime, a text's numbers, one otherwise."""
    if column.kind == "text":
        return column.width
    return 3 if column.kind == "datetime" else 1


def _encode(values: pd.Series[Any], column: Column) -> Features:
    if column.kind == "datetime":
        moments = values.dt
        parts = [moments.hour + moments.minute / 60, moments.dayofweek, moments.dayofyear]
        return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])
    if column.kind == "text":
        return TextNumbers(column.words).table(values.to_list())
    if column.kind != "categorical":
        return values.to_numpy(dtype=np.float64)
    learnt = column.categories[: MAX_CODES - 1]
    places, names = pd.factorize(values)
    table = {category: code for code, category in enumerate(learnt)}
    codes = [*(table.get(name, len(learnt)) for name in names), np.nan]  # rare and unknown ones share the last code
    return np.array(codes, dtype=np.float64)[places]


def _model(target: Target, schema: Schema, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if target.problem == "regression" else HistGradientBoostingClassifier
    return kind(
        max_iter=ROUNDS,
        early_stopping=True,
        n_iter_no_change=PATIENCE,
        categorical_features=[column.kind == "categorical" for column in schema.columns for _ in range(width(column))],
        random_state=seed,
    )
