"""How much more often a window has rows of a kind than the reference has: the ratio of their densities (Shimodaira
2000), as the odds of a logistic regression that tells them apart (Bickel, Brueckner & Scheffer 2009), cut at
`MOST_WEIGHT`, and mixed with equal weights: its share is the effective share of the rows, (sum w)^2 / (n sum w^2) (Kish
1965), so that weights that lean on a few rows count little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor import logistic
from monitor.values import spaced
from registry.metrics import Array

SAMPLE = 2_000
"""Rows of either side that are looked at, evenly spaced: the cost does not grow with the window."""

MOST_WEIGHT = 10.0
"""Most that a row may weigh, the mean being 1."""

_PENALTY = 0.01
_FAR = 4.0
_WIDE = 3.0  # standard deviations beyond which a reference value may be far out beside a window


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


class _Scale(NamedTuple):
    """What makes standard scores of a reference (d, n) those beside a window: `slope * score + shift`, each (d,)."""

    slope: Array
    shift: Array


class _At(NamedTuple):
    """Values of a matrix (d, n) by their rows and columns."""

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]


class Known:
    """Features of n reference rows (d, n): whatever is the same for every window is made once."""

    def __init__(self, columns: Array) -> None:
        self.moments = Moments.of(columns)
        self._unit = _unit(np.sqrt(self.moments.squares / np.maximum(1, self.moments.count)))
        scores = (columns - self.moments.mean[:, None]) / self._unit[:, None]
        self._missing = _At(*np.nonzero(np.isnan(columns)))
        scores[self._missing] = 0.0
        self._scores, self._wide = scores, _At(*np.nonzero(np.abs(scores) > _WIDE))

    def __len__(self) -> int:
        return int(self._scores.shape[1])

    def scale(self, place: Array, spread: Array) -> _Scale:
        """Beside a window, with which the features have this mean and spread (d,)."""
        unit = _unit(spread)
        return _Scale(self._unit / unit, (self.moments.mean - place) / unit)

    @property
    def sampled(self) -> int:
        """How many rows `sample` gives."""
        return min(len(self), SAMPLE)

    def sample(self, scale: _Scale, out: Array) -> None:
        """At most `SAMPLE` rows, evenly spaced, as standard scores beside a window: `out` (d, k). Missing values stand
        in the middle, and none stands far out."""
        scores, missing = self._sample
        np.multiply(scores, scale.slope[:, None], out=out)
        out += scale.shift[:, None]
        out[missing] = 0.0
        np.clip(out, -_FAR, _FAR, out=out)

    def weighed(self, scale: _Scale, weights: Array) -> Array:
        """Of each row the sum (n,) of its standard scores beside a window times weights (d,). Scores that stand far out
        are few: they are added up as if none did, and what is too much is taken off."""
        total = (weights * scale.slope) @ self._scores
        total += float(weights @ scale.shift)
        shifts = weights * scale.shift
        total -= self._by_column(self._missing, shifts[self._missing.row])
        reach = scale.slope * _WIDE + np.abs(scale.shift)
        wide = self._wide
        free = scale.slope[wide.row] * self._scores[wide] + scale.shift[wide.row]
        over = free - np.clip(free, -_FAR, _FAR)
        over[reach[wide.row] > _FAR] = 0.0  # of a column that others may be far out in, all are looked at
        total -= self._by_column(wide, weights[wide.row] * over)
        for row in np.flatnonzero(reach > _FAR):
            free = scale.slope[row] * self._scores[row] + scale.shift[row]
            over = free - np.clip(free, -_FAR, _FAR)
            over[self._missing.column[self._missing.row == row]] = 0.0
            total -= weights[row] * over
        return np.asarray(total, dtype=np.float64)

    @cached_property
    def _sample(self) -> tuple[Array, _At]:
        places = spaced(len(self), self.sampled)
        gone = np.zeros(self._scores.shape, dtype=np.bool_)
        gone[self._missing] = True
        return self._scores.take(places, axis=1), _At(*np.nonzero(gone.take(places, axis=1)))

    def _by_column(self, at: _At, values: Array) -> Array:
        return np.asarray(np.bincount(at.column, values, len(self)), dtype=np.float64)


def importance(reference: Known, window: Array) -> tuple[Array, float]:
    """Weights (n,) with mean 1 that make a reference resemble a window's features (d, m), and the effective share of
    the rows under the raw ones.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> before = rng.normal(size=(1, 1_000))
    >>> weights, share = importance(Known(before), rng.normal(1.0, size=(1, 1_000)))
    >>> bool((weights * before).mean() > before.mean() + 0.2), 0.3 < share < 1.0
    (True, True)
    """
    place, spread = reference.moments.beside(Moments.of(window))
    scale, k, m = reference.scale(place, spread), reference.sampled, window.shape[1]
    rows = np.empty((1 + len(window), k + m))
    rows[0] = 1.0  # the intercept's
    reference.sample(scale, rows[1:, :k])
    _standardise(window, place, spread, rows[1:, k:])
    found = logistic.fit(rows, np.repeat([0.0, 1.0], [k, m]), np.repeat([m / k, 1.0], [k, m]), _PENALTY)
    odds = reference.weighed(scale, found[1:])
    raw = np.exp(odds - odds.max())  # the intercept weighs all alike
    raw = np.minimum(raw / raw.mean(), MOST_WEIGHT)
    raw /= raw.mean()
    effective = float(1 / (raw**2).mean())
    return effective * raw + (1 - effective), effective


def _standardise(columns: Array, place: Array, spread: Array, out: Array) -> None:
    """As `Known.sample` has it."""
    np.subtract(columns, place[:, None], out=out)
    out /= _unit(spread)[:, None]
    np.copyto(out, 0.0, where=np.isnan(out))
    np.clip(out, -_FAR, _FAR, out=out)


def _unit(spread: Array) -> Array:
    return np.where(spread > 0, spread, 1.0)
