"""Extrapolation of learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.search.stopping.base import Course, Stopping

Matrix = npt.NDArray[np.float64]

STARTUP = 3
"""So many trials are trained to the end before any is stopped."""
LEAST = 0.05
"""The probability of becoming the best below which a trial is stopped."""
POWERS = (0.5, 1.5)
"""What a score still lacks falls as these powers of the epochs: slowly, and fast."""
WORTH = 2.0
"""So many curves the prior's prior is worth."""
BOUND = 2.0
"""Scores this many spreads below the best are all alike: a network that fails says nothing of the others."""


class Extrapolation(Stopping):
    """A trial is stopped once its learning curve, extrapolated, has less than a 5 % chance of ending above the best.

    A curve is a final score less falling powers of the epochs, a Bayesian linear model; its prior is what the curves of
    the trials that were trained to their end have in common. Unlike Domhan et al., who fit eleven families to each
    curve by MCMC without any memory of other curves, it costs a millisecond or two.
    """

    name: ClassVar[str] = "curve"
    paper: ClassVar[str] = "Domhan, Springenberg & Hutter 2015; after Klein et al. 2017"

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """Whether the chance is below 5 %; never before three trials are trained to their end."""
        complete = [self.course(study, one) for one in trials if one.state == TrialState.COMPLETE]
        known = [one for one in complete if one.scores and math.isfinite(one.at(one.planned))]
        if epoch < self.allowance.first or len(known) < STARTUP:
            return False
        scale = Scale.of(known)
        prior = Prior.of([line(one, scale) for one in known])
        mean, deviation = prior.end(*line(own, scale))
        return chance(mean, deviation, 1.0) < LEAST


@dataclass(frozen=True)
class Scale:
    """Scores as multiples: 1 is the best final score so far, 0 the median of the first ones."""

    low: float
    high: float

    @classmethod
    def of(cls, known: Sequence[Course]) -> Scale:
        """The scale of trials that were trained to their end."""
        low = float(np.median([one.scores[min(one.scores)] for one in known]))
        high = max(one.at(one.planned) for one in known)
        return cls(low, high if high > low else low + 1.0)

    def __call__(self, scores: Matrix) -> Matrix:
        """Scores (n,) on the scale, bounded below."""
        return np.asarray(np.clip((scores - self.low) / (self.high - self.low), -BOUND, None))


def line(course: Course, scale: Scale) -> tuple[Matrix, Matrix]:
    """A curve as regressors (n, 3) and scores (n,): the first weight is the score at its end."""
    epochs = sorted(one for one in course.scores if math.isfinite(course.scores[one]))
    return basis(np.array(epochs) / course.planned), scale(np.array([course.scores[one] for one in epochs]))


def basis(progress: Matrix) -> Matrix:
    """Regressors (n, 3) at shares of a training: 1, and what is lacking, which is nothing at the end.

    >>> basis(np.array([0.25, 1.0])).round(2).tolist()
    [[1.0, -1.0, -7.0], [1.0, 0.0, 0.0]]
    """
    lacking = [1.0 - progress**-power for power in POWERS]
    return np.stack([np.ones_like(progress), *lacking], axis=1)


@dataclass(frozen=True)
class Prior:
    """Means (3,) and covariance (3, 3) of a curve's weights, and the variance of scores about it."""

    mean: Matrix
    covariance: Matrix
    noise: float

    @classmethod
    def of(cls, known: Sequence[tuple[Matrix, Matrix]]) -> Prior:
        """The prior of curves that are known to their end. Each is fitted with a little shrinkage; the covariance is
        drawn towards a wide one, the more so the fewer they are."""
        fits = [_fit(regressors, scores) for regressors, scores in known]
        weights = np.stack(fits)
        wide = np.diag([1.0, *(_steepness(power) for power in POWERS)])
        apart = weights - weights.mean(axis=0)
        covariance = (WORTH * wide + apart.T @ apart) / (WORTH + len(fits))
        off = [
            float(((scores - regressors @ fit) ** 2).mean())
            for (regressors, scores), fit in zip(known, fits, strict=True)
        ]
        return cls(weights.mean(axis=0), covariance, max(float(np.mean(off)), 1e-4))

    def end(self, regressors: Matrix, scores: Matrix) -> tuple[float, float]:
        """Mean and standard deviation of the score at the end of a curve of which these are the scores so far."""
        cross = self.covariance @ regressors.T
        inside = regressors @ cross + self.noise * np.eye(len(scores))
        gain = np.linalg.solve(inside, cross.T).T
        mean = self.mean + gain @ (scores - regressors @ self.mean)
        left = self.covariance - gain @ cross.T
        return float(mean[0]), math.sqrt(max(float(left[0, 0]), 0.0) + self.noise)


def chance(mean: float, deviation: float, best: float) -> float:
    """The probability that a normal variable exceeds the best.

    >>> chance(1.0, 0.5, 1.0)
    0.5
    """
    return 0.5 * math.erfc((best - mean) / (deviation * math.sqrt(2.0)))


def _fit(regressors: Matrix, scores: Matrix) -> Matrix:
    """Weights (3,) of a curve, by ridge regression."""
    penalty = np.diag([1e-6, *(1e-4 / _steepness(power) for power in POWERS)])
    return np.asarray(np.linalg.solve(regressors.T @ regressors + penalty, regressors.T @ scores))


def _steepness(power: float) -> float:
    """The variance of a weight under which the first tenth of a training may be lacking as much as there is."""
    return float(1.0 / (0.1**-power - 1.0) ** 2)
