"""What is taken off an estimate made from a model's outputs, as far as the labelled reference rows show it.

Row i of the reference tells by how much its outputs mislead about the metric: c_i, the realised less the expected
contribution. One constant, the mean of c, is right while a window's rows are of the reference's kind. Under covariate
shift it is averaged anew, doubly robustly (Robins, Rotnitzky & Zhao 1994):

    correction = mean over the window of g(x)  +  mean over the reference of w(x) (c - g(x))

g: boosted trees of c on inputs and outputs, out of fold on the reference. It is kept only where it foretells c of rows
that it has not seen better than the mean of c does, by one standard error (Breiman et al. 1984): else g is 0.

w: the ratio of the densities of window and reference (Shimodaira 2000), as the odds of a logistic regression that tells
them apart (Bickel, Brueckner & Scheffer 2009), cut at `MOST_WEIGHT`, and mixed with equal weights: its share is the
effective share of the rows, (sum w)^2 / (n sum w^2) (Kish 1965), so that weights that lean on a few rows count little.
What mixing withholds of the correction is part of its standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor import logistic
from monitor.encoding import encoded, lean_schema, sampled
from monitor.values import spaced
from monitor.views import Side, View
from registry.metrics import Array, error_of_mean
from registry.scoring import Scores

LEAST_ROWS = 800
"""Fewest labelled reference rows that can tell one kind of row from another."""

SAMPLE = 2_000
"""Rows of either side that are looked at, evenly spaced: the cost does not grow with the window."""

SURE = 1.0
"""Standard errors by which trees must foretell better than a constant."""

MOST_WEIGHT = 10.0
"""Most that a row may weigh, the mean being 1."""

FOLDS, ROUNDS, LEAVES, RATE = 5, 60, 15, 0.05
_PENALTY = 0.01
_FAR = 4.0
_CHUNK = 2_048  # rows at once: copies of all of them leave the processor's cache

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """Of the values that are there in each of d columns: how many, their mean, and the sum of squares about it."""

    count: Array
    mean: Array
    squares: Array

    @classmethod
    def of(cls, columns: Array) -> Moments:
        """Those of (d, n) features, a column after another."""
        missing = np.isnan(columns)
        count = np.asarray(columns.shape[1] - np.count_nonzero(missing, axis=1), dtype=np.float64)
        mean = np.where(missing, 0.0, columns).sum(axis=1) / np.maximum(1, count)
        apart = columns - mean[:, None]
        np.copyto(apart, 0.0, where=missing)
        return cls(count, mean, np.einsum("ij,ij->i", apart, apart))

    def beside(self, other: Moments) -> tuple[Array, Array]:
        """Mean and spread of both together, (d,); 0 where nothing is (Chan, Golub & LeVeque 1983)."""
        count = np.maximum(1, self.count + other.count)
        mean = (self.count * self.mean + other.count * other.mean) / count
        between = self.count * other.count / count * (self.mean - other.mean) ** 2
        return mean, np.sqrt((self.squares + other.squares + between) / count)


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
    def columns(self) -> Array:
        """The features (d, n), a column after another: so they are gone through in long steps."""
        return np.ascontiguousarray(self.features.T)

    @cached_property
    def moments(self) -> Moments:
        """Those of the features."""
        return Moments.of(self.columns)


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
    weights, effective = importance(learnt.columns, np.ascontiguousarray(features.T), learnt.moments)
    usual = float(learnt.left.mean())
    value = float((weights * learnt.left).mean())
    withheld = (value - usual) * (1 - effective) / effective
    error = math.hypot(error_of_mean(weights * (learnt.left - usual)), withheld)
    if learnt.model is None:
        return Correction(value, error, effective)
    foretold = np.asarray(learnt.model.predict(features), dtype=np.float64)
    unseen = max(0.0, 1 / len(foretold) - 1 / m)
    return Correction(value + float(foretold.mean()), math.hypot(error, foretold.std() * math.sqrt(unseen)), effective)


def importance(reference: Array, window: Array, known: Moments | None = None) -> tuple[Array, float]:
    """Weights (n,) with mean 1 that make reference features (d, n) resemble a window's (d, m), and the effective share
    of the rows under the raw ones. `known` are the reference's moments, where somebody has them already.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> before = rng.normal(size=(1, 1_000))
    >>> weights, share = importance(before, rng.normal(1.0, size=(1, 1_000)))
    >>> bool((weights * before).mean() > before.mean() + 0.2), 0.3 < share < 1.0
    (True, True)
    """
    known = known or Moments.of(reference)
    place, spread = known.beside(Moments.of(window))
    n, m = reference.shape[1], window.shape[1]
    sample = reference if n <= SAMPLE else reference.take(spaced(n, SAMPLE), axis=1)
    k = sample.shape[1]
    rows = np.ones((1 + len(window), k + m))  # the first row is the intercept's
    _standardise(sample, place, spread, rows[1:, :k])
    _standardise(window, place, spread, rows[1:, k:])
    of_window = np.arange(k + m) >= k
    found = logistic.fit(rows, of_window, np.where(of_window, 1.0, m / k), _PENALTY)
    unit, lacking = np.where(spread > 0, spread, 1.0), bool((known.count < n).any())
    low, high, slope = (place - _FAR * unit)[:, None], (place + _FAR * unit)[:, None], found[1:] / unit
    odds, part = np.full(n, found[0] - slope @ place), np.empty((len(window), _CHUNK))
    for start in range(0, n, _CHUNK):  # as `_standardise` has it, which goes through the rows three times as often
        some = reference[:, start : start + _CHUNK]
        held = np.clip(some, low, high, out=part[:, : some.shape[1]])
        if lacking:
            np.copyto(held, place[:, None], where=np.isnan(held))
        odds[start : start + _CHUNK] += slope @ held
    raw = np.exp(odds - odds.max())
    raw = np.minimum(raw / raw.mean(), MOST_WEIGHT)
    raw /= raw.mean()
    effective = float(1 / (raw**2).mean())
    return effective * raw + (1 - effective), effective


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


def _standardise(columns: Array, place: Array, spread: Array, out: Array) -> Array:
    """Missing values stand in the middle, and none stands far out."""
    np.subtract(columns, place[:, None], out=out)
    out /= np.where(spread > 0, spread, 1.0)[:, None]
    np.copyto(out, 0.0, where=np.isnan(out))
    np.maximum(out, -_FAR, out=out)
    return np.minimum(out, _FAR, out=out)


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
        return kind.fit(features, corrections)


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
