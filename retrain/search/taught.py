"""What former studies teach a search of a space, and a Gaussian process that begins with it.

Of each former study a process tells how good it would have been for its task to try a candidate. Their weighted mean is
what is expected of a new task, and how they differ from one another is how it may differ, beside what is new in it: the
mean and the covariance of the new task's process (after Wang et al. 2024, "Pre-trained Gaussian processes for Bayesian
optimization"; scores are normal quantiles of ranks, after Salinas, Shen & Perrone 2020, "A quantile-based approach for
hyperparameter transfer learning"). As the level of its ranks is not theirs, a constant is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from retrain.families.base import Candidate
from retrain.search.strategies.gaussian import Gaussian, Matrix, distances, likelihood, matern

STRANGE = 0.05
"""What a study counts of data that have nothing in common, beside 1 + this of one of the same; also what expecting
nothing counts beside all studies."""
LENGTHS = (1.0, 2.0)
"""Of what is new in a task, in usual distances of candidates."""
NEWS, NOISES = (0.3, 1.0), (0.1, 0.3)
"""Standard deviations of what is new and of the noise, in those of a study's scores."""
LEVEL = 25.0
"""The variance of the level."""


@dataclass(frozen=True)
class Study:
    """A former study as a space has it: its candidates (n of them), their encodings (n, d), the normal quantiles of
    their ranks (n,), greater being better, how much it counts, and of which task it is."""

    candidates: tuple[Candidate, ...]
    places: Matrix
    scores: Matrix
    weight: float
    task: str = ""


@dataclass(frozen=True)
class Taught:
    """Former studies (s of them, at least one) of one space."""

    studies: tuple[Study, ...]

    @property
    def teachers(self) -> tuple[str, ...]:
        """Of which tasks they are."""
        return tuple(one.task for one in self.studies)

    @cached_property
    def functions(self) -> tuple[Gaussian, ...]:
        """What each study found."""
        return tuple(Gaussian.fit(one.places, one.scores) for one in self.studies)

    @cached_property
    def shares(self) -> Matrix:
        """What each study counts (s,), a little less than one in all."""
        weights = np.array([one.weight for one in self.studies])
        return np.asarray(weights / (weights.sum() + STRANGE))

    @cached_property
    def usual(self) -> float:
        """The usual distance of two candidates."""
        places = np.concatenate([one.places for one in self.studies])
        far = distances(places, places)
        return float(np.sqrt(np.median(far[far > 0]))) if (far > 0).any() else 1.0

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates of the studies, the most promising first."""
        known = {
            one.key: (one, place)
            for each in self.studies
            for one, place in zip(each.candidates, each.places, strict=True)
        }
        expected = self.expect(np.stack([place for _, place in known.values()]))
        found = [one for one, _ in known.values()]
        return tuple(found[place] for place in np.argsort(-expected, kind="stable"))

    def expect(self, places: Matrix) -> Matrix:
        """How good candidates at these places (n, d) are expected to be (n,), in spreads of a study's scores."""
        return np.asarray(self._each(places) @ self.shares)

    def prior(self, places: Matrix) -> tuple[Matrix, Matrix]:
        """What is expected at these places (n,), and how the studies differ there (n, s): products of two rows of that
        are covariances."""
        each = self._each(places)
        expected = np.asarray(each @ self.shares)
        return expected, np.asarray((each - expected[:, None]) * np.sqrt(self.shares))

    def _each(self, places: Matrix) -> Matrix:
        return np.stack([one.mean(places) for one in self.functions], axis=1)


@dataclass(frozen=True)
class Informed:
    """A process fitted to a task's own scores at places (n, d), with what former studies teach for its prior; `spread`
    (n, s) is how they differ at these places."""

    taught: Taught
    places: Matrix
    spread: Matrix
    factor: Matrix
    weights: Matrix
    length: float
    news: float

    @classmethod
    def fit(cls, taught: Taught, places: Matrix, scores: Matrix) -> Informed:
        """The process for places (n, d) and scores (n,), normal quantiles of ranks; of a small grid of lengths, news
        and noises the likeliest."""
        (expected, spread), far = taught.prior(places), distances(places, places)
        known, wanted = spread @ spread.T + LEVEL, scores - expected
        fits = []
        for length, news, noise in product(LENGTHS, NEWS, NOISES):
            covariance = known + news**2 * matern(far, length * taught.usual)
            fits.append((likelihood(covariance, wanted, noise), length, news))
        (_, factor, weights), length, news = max(fits, key=lambda one: one[0][0])
        return cls(taught, places, spread, factor, weights, length, news)

    def predict(self, places: Matrix) -> tuple[Matrix, Matrix]:
        """Means and standard deviations (m,) of the scores, noise left out, at places (m, d)."""
        from scipy.linalg import solve_triangular

        expected, spread = self.taught.prior(places)
        new = self.news**2 * matern(distances(places, self.places), self.length * self.taught.usual)
        cross = spread @ self.spread.T + new + LEVEL
        inside = solve_triangular(self.factor, cross.T, lower=True, check_finite=False)
        variance = (spread**2).sum(axis=1) + self.news**2 + LEVEL - (inside**2).sum(axis=0)
        return expected + cross @ self.weights, np.sqrt(np.clip(variance, 1e-12, None))


def first(taught: Taught, count: int) -> list[Candidate]:
    """The candidates to try first: each the one that would raise the mean, over the studies, of the best found so far
    by most (after Wistuba, Schilling & Schmidt-Thieme 2015, "Sequential model-free hyperparameter tuning")."""
    known = {one.key: place for each in taught.studies for one, place in zip(each.candidates, each.places, strict=True)}
    each = taught._each(np.stack([known[one.key] for one in taught.candidates]))
    best, chosen = np.full(len(taught.studies), -np.inf), list[int]()
    while len(chosen) < min(count, len(each)):
        reached = np.maximum(each, best)
        worth = reached @ taught.shares
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
        best = reached[chosen[-1]]
    return [taught.candidates[place] for place in chosen]
