"""A Gaussian process on encodings of candidates: what is expected of one, and how sure that is.

Matern's covariance with nu 5/2 (Rasmussen & Williams 2006, eq. 4.17 and algorithm 2.1) on distances in which every
dimension of a space counts alike. Length and noise are those of a small grid with the greatest marginal likelihood:
with a hundred points a finer choice is noise, and a suggestion must cost milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

LENGTHS = (0.5, 1.0, 2.0, 4.0)
NOISES = (0.01, 0.1, 0.4)
"""Standard deviations of the noise, in spreads of the scores."""


@dataclass(frozen=True)
class Gaussian:
    """A fitted process; scores are standardised inside."""

    places: Matrix
    factor: Matrix
    weights: Matrix
    length: float
    noise: float
    centre: float
    spread: float

    @classmethod
    def fit(cls, places: Matrix, scores: Matrix, kept: tuple[float, float] | None = None) -> Gaussian:
        """The process for places (n, d) and scores (n,). `kept` is (length, noise) of a former fit, taken over."""
        centre, spread = float(scores.mean()), float(scores.std()) or 1.0
        wanted = (scores - centre) / spread
        far = distances(places, places)
        usual = float(np.sqrt(np.median(far[far > 0]))) if (far > 0).any() else 1.0
        grid = [(length * usual, noise) for length, noise in product(LENGTHS, NOISES)] if kept is None else [kept]
        fits = [(likelihood(matern(far, length), wanted, noise), (length, noise)) for length, noise in grid]
        (_, factor, weights), (length, noise) = max(fits, key=lambda one: one[0][0])
        return cls(places, factor, weights, length, noise, centre, spread)

    def mean(self, places: Matrix) -> Matrix:
        """Means (m,) of the scores at places (m, d)."""
        cross = matern(distances(places, self.places), self.length)
        return np.asarray(self.centre + self.spread * (cross @ self.weights))

    def predict(self, places: Matrix) -> tuple[Matrix, Matrix]:
        """Means and standard deviations (m,) of the scores, noise left out, at places (m, d)."""
        from scipy.linalg import solve_triangular

        cross = matern(distances(places, self.places), self.length)
        inside = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = np.clip(1.0 - (inside**2).sum(axis=0), 1e-12, None)
        return self.centre + self.spread * (cross @ self.weights), self.spread * np.sqrt(variance)


def distances(one: Matrix, other: Matrix) -> Matrix:
    """Squared Euclidean distances (n, m)."""
    square = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(np.clip(square, 0.0, None))


def improvement(mean: Matrix, deviation: Matrix, best: float) -> Matrix:
    """The expected improvement over the best (Jones, Schonlau & Welch 1998, eq. 15)."""
    from scipy.special import ndtr

    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(deviation * (z * ndtr(z) + density))


def matern(square: Matrix, length: float) -> Matrix:
    """Covariances for squared distances."""
    scaled = np.sqrt(5.0 * square) / length
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def likelihood(covariance: Matrix, wanted: Matrix, noise: float) -> tuple[float, Matrix, Matrix]:
    """(logarithm of the marginal likelihood, Cholesky factor, weights) of values (n,) that have a covariance (n, n),
    noise left out."""
    from scipy.linalg import cho_solve, cholesky

    noisy = covariance.copy()
    noisy[np.diag_indices_from(noisy)] += noise**2 + 1e-8
    factor = cholesky(noisy, lower=True, check_finite=False)
    weights = cho_solve((factor, True), wanted, check_finite=False)
    value = -0.5 * float(wanted @ weights) - float(np.log(np.diag(factor)).sum())
    return value, factor, weights
