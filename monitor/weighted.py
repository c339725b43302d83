"""What is taken off an estimate made from a model's outputs, as far as the labelled reference rows show it.

Row i of the reference tells by how much its outputs mislead about the metric: c_i, the realised less the expected
contribution. One constant, the mean of c, is right while a window's rows are of the reference's kind. Under covariate
shift it is averaged anew, doubly robustly (Robins, Rotnitzky & Zhao 1994):

    correction = mean over the window of g(x)  +  mean over the reference of w(x) (c - g(x))

g: boosted trees of c on inputs and outputs, out of fold on the reference. It is kept only where it foretells c of rows
that it has not seen better than the mean of c does, by one standard error (Breiman et al. 1984): else g is 0.

w: the ratio of the densities of window and reference (`ratio.py`), mixed with equal weights by the effective share of
the rows. What mixing withholds of the correction is part of its standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.encoding import encoded, lean_schema, sampled
from monitor.ratio import SAMPLE, Known, importance
from monitor.values import spaced
from monitor.views import Side, View
from registry.metrics import Array, error_of_mean
from registry.scoring import Scores
from registry.yardstick import filled

LEAST_ROWS = 800
"""Fewest labelled reference rows that can tell one kind of row from another."""

SURE = 1.0
"""Standard errors by which trees must foretell better than a constant."""

FOLDS, ROUNDS, LEAVES, RATE = 5, 60, 15, 0.05

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Learnt:
    """Of n labelled reference rows: `rows`, their corrections c (n,), their features (n, d), what g leaves of c (n,),
    and g, None where it is 0. `features` is empty where rows are too few."""

    rows: Rows
    corrections: Array
    features: Array
    left: Array
    model: Any = None

    @cached_property
    def known(self) -> Known:
        """The features as weights are found from: a column after another, so that they are gone through in long
        steps."""
        return Known(np.ascontiguousarray(self.features.T))


@dataclass(frozen=True)
class Correction:
    """What is to be added to an estimate, its standard error, and the effective share of the reference rows."""

    value: float
    error: float
    effective: float = 1.0


def learn(view: View, rows: Rows, corrections: Array) -> Learnt:
    """g of the reference rows of these positions, in time order, if it foretells their corrections."""
    if len(rows) < LEAST_ROWS:
        return Learnt(rows, corrections, np.empty((0, 0)), corrections)
    features = features_of(view, view.reference, rows)
    foretold = _out_of_fold(features, corrections)
    gain = (corrections - corrections.mean()) ** 2 - (corrections - foretold) ** 2
    if not gain.mean() > SURE * error_of_mean(gain):
        return Learnt(rows, corrections, features, corrections)
    return Learnt(rows, corrections, features, corrections - foretold, _boosted(features, corrections))


def correct(view: View, learnt: Learnt) -> Correction:
    """The correction for the window's rows."""
    if not len(learnt.features):
        return Correction(float(learnt.left.mean()), error_of_mean(learnt.left))
    m = len(view.window.scores)
    features = features_of(view, view.window, spaced(m, SAMPLE))
    weights, effective = importance(learnt.known, np.ascontiguousarray(features.T))
    usual = float(learnt.left.mean())
    value = float((weights * learnt.left).mean())
    withheld = (value - usual) * (1 - effective) / effective
    error = math.hypot(error_of_mean(weights * (learnt.left - usual)), withheld)
    if learnt.model is None:
        return Correction(value, error, effective)
    foretold = np.asarray(learnt.model.predict(features), dtype=np.float64)
    unseen = max(0.0, 1 / len(foretold) - 1 / m)
    return Correction(value + float(foretold.mean()), math.hypot(error, foretold.std() * math.sqrt(unseen)), effective)


def features_of(view: View, side: Side, rows: Rows) -> Array:
    """Inputs and outputs (n, d) of these of a side's own rows; moments are left out: time always moves on."""
    present = [
        column
        for column in lean_schema(view).columns
        if column.name in view.window.columns and column.name in view.reference.columns
    ]
    outputs, places = _outputs(side.scores, rows), side.positions[rows]
    if not present:
        return outputs
    made = sampled(view, present, places) if side is view.window else encoded(side, present, places)
    return np.hstack([made, outputs])


def _outputs(scores: Scores, rows: Rows) -> Array:
    if scores.probabilities is not None:
        return np.log(np.clip(scores.scores[rows], 1e-6, 1.0))
    spread = np.asarray(scores.uncertainty, dtype=np.float64)[rows]
    return np.column_stack([scores.scores[rows], np.log(np.maximum(spread, 1e-12))])


def _boosted(features: Array, corrections: Array) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    least = max(20, len(features) // 100)
    kind = HistGradientBoostingRegressor(
        max_iter=ROUNDS,
        max_leaf_nodes=LEAVES,
        learning_rate=RATE,
        min_samples_leaf=least,
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(1):
        return kind.fit(filled(features), corrections)


def _out_of_fold(features: Array, corrections: Array) -> Array:
    """What g says of rows that it was not fitted to: folds are stretches of time, since neighbours are alike."""
    out, everything = np.empty(len(corrections)), np.arange(len(corrections))
    for part in np.array_split(everything, FOLDS):
        others = np.setdiff1d(everything, part)
        out[part] = _boosted(features[others], corrections[others]).predict(features[part])
    return out


def threads() -> Any:
    """Who holds the threads of the libraries that measures compute with: to look for them takes milliseconds."""
    import sklearn.linear_model  # noqa: F401  (loads them all)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
