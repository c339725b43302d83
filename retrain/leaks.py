"""Columns that give the target away: each is asked alone, by a shallow tree, on rows the tree has not seen.

Rows that the tree has not seen, so that an identifier, which knows every row by heart, does not count as a leak.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.conforming import as_strings
from registry.inference import conform_as
from registry.metrics import Problem
from registry.schema import ColumnKind

SAMPLE = 5_000
PERFECT = 0.995
ALMOST = 0.97
DEPTH = {"binary": 4, "multiclass": 6, "regression": 8}
MIN_HELD_OUT = 5
"""Fewest held-out rows of a class for its recall to count."""
LARGEST = float(np.finfo(np.float32).max)
"""What trees read at most: they refuse larger numbers, such as the largest double where a value is missing."""


@dataclass(frozen=True)
class Leak:
    """A column that predicts the target alone: `score` is balanced accuracy, or R2 for regression, on `rows` rows."""

    column: str
    measure: str
    score: float
    rows: int

    @property
    def perfect(self) -> bool:
        """Whether nothing is left to learn."""
        return self.score >= PERFECT


def leaks(
    frame: pd.DataFrame, kinds: dict[str, ColumnKind], target: str, problem: Problem, *, seed: int = 0
) -> Iterator[Leak]:
    """The columns whose score alone is at least `ALMOST`, measured on a sample of at most `SAMPLE` rows."""
    rows = np.random.default_rng(seed).permutation(len(frame))[:SAMPLE]
    sample = frame.iloc[rows]
    fit = np.arange(len(sample)) < len(sample) // 2
    labels = _labels(sample[target], problem)
    if len(np.unique(labels[fit])) < 2 or len(np.unique(labels[~fit])) < 2:
        return
    measure = "R2" if problem == "regression" else "balanced accuracy"
    for name, kind in kinds.items():
        values = _numbers(sample[name], name, kind, labels, fit, problem)
        score = _score(values, labels, fit, problem)
        if score >= ALMOST:
            yield Leak(name, measure, score, int((~fit).sum()))


def _labels(target: pd.Series[Any], problem: Problem) -> npt.NDArray[np.float64]:
    if problem == "regression":
        return pd.to_numeric(target).to_numpy(dtype=np.float64)
    return np.asarray(pd.factorize(as_strings(target))[0], dtype=np.float64)


def _numbers(
    values: pd.Series[Any],
    name: str,
    kind: ColumnKind,
    labels: npt.NDArray[np.float64],
    fit: npt.NDArray[np.bool_],
    problem: Problem,
) -> npt.NDArray[np.float64]:
    """The column as (n,) numbers, NaN where missing; a category becomes what it means in the fitting half."""
    conformed = conform_as(values, name, kind)
    if kind == "datetime":
        return conformed.map(lambda moment: moment.timestamp(), na_action="ignore").to_numpy(dtype=np.float64)
    if kind == "text":
        return np.asarray(conformed.str.len(), dtype=np.float64)
    if kind != "categorical":
        return conformed.to_numpy(dtype=np.float64)
    groups = pd.Series(labels[fit]).groupby(conformed[fit].to_numpy())
    meaning = groups.mean() if problem == "regression" else groups.agg(lambda known: known.mode().iloc[0])
    return conformed.map(meaning.to_dict(), na_action="ignore").to_numpy(dtype=np.float64)


def _score(
    values: npt.NDArray[np.float64], labels: npt.NDArray[np.float64], fit: npt.NDArray[np.bool_], problem: Problem
) -> float:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    model = DecisionTreeRegressor if problem == "regression" else DecisionTreeClassifier
    read = np.clip(values, -LARGEST, LARGEST)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that many classes may be numbers is told by the checks
        tree = model(max_depth=DEPTH[problem], random_state=0).fit(read[fit], labels[fit])
    found, truth = tree.predict(read[~fit]), labels[~fit]
    if problem == "regression":
        return 1 - float(((truth - found) ** 2).mean() / truth.var())
    classes, counts = np.unique(truth, return_counts=True)
    counted = classes[counts >= MIN_HELD_OUT]
    if len(counted) < 2:
        return 0.0
    return float(np.mean([(found[truth == label] == label).mean() for label in counted]))
