"""Parzen's estimate of a density over some dimensions of a space: a product of kernels on each of a few points, mixed
with a flat one, which keeps everything possible (Bergstra et al. 2011, section 4; Falkner et al. 2018).

Widths, weights and the flat kernel are those of Optuna, as Watanabe 2023 ("Tree-Structured Parzen Estimator:
Understanding Its Algorithm Components and Their Roles for Better Empirical Performance") describes them. A choice has a
coordinate: an option its place, a whole number itself, a real one itself or its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrain.families.parameters import Choice, Option, Parameter, Real, Whole
from retrain.search.geometry import Encoding

Places = npt.NDArray[np.int64]

RECENT = 25
"""So many of the newest points count whole, older ones the less the older they are."""
NARROWEST = 100
"""No kernel is narrower than this part of its dimension."""
TINY = 1e-300
"""The least mass of a step, whose logarithm is a number."""


@dataclass(frozen=True)
class Ticks:
    """Kernels on the options of some dimensions, places (n, d) of so many (d,): their own one most, all alike a little,
    and the flat one behind them, as everywhere here."""

    points: Places
    options: Places

    @property
    def _spread(self) -> Encoding:
        """How much all options of a dimension together have beside a point's own (d,)."""
        return self.options / (len(self.points) + 1)

    def draw(self, which: Places, rng: np.random.Generator) -> Encoding:
        """Places (m, d) from these kernels (m,): the points' own, or any."""
        shape = len(which), len(self.options)
        own = np.vstack([self.points, np.full(len(self.options), -1)])[which]
        anywhere = (own < 0) | (rng.random(shape) * (1 + self._spread) > 1)
        return np.where(anywhere, rng.integers(self.options, size=shape), own)

    def log(self, places: Encoding) -> Encoding:
        """Logarithms (m, kernels) of the shares of places (m, d): what is the same counts, by a product of zeros and
        ones."""
        little = self._spread / self.options / (1 + self._spread)
        gain = np.log(1 + 1 / (little * (1 + self._spread)))
        same = self._marks(places.astype(np.int64)) @ (self._marks(self.points) * np.repeat(gain, self.options)).T
        flat = np.full((len(places), 1), -np.log(self.options).sum())
        return np.hstack([same + np.log(little).sum(), flat])

    def _marks(self, places: Places) -> Encoding:
        """One-hot (m, options of all dimensions)."""
        out = np.zeros((len(places), int(self.options.sum())))
        out[np.arange(len(places))[:, None], np.cumsum(self.options) - self.options + places] = 1.0
        return out


@dataclass(frozen=True)
class Bells:
    """Truncated normal kernels (n,) between `low` and `high`; those of whole numbers have the mass of a step."""

    means: Encoding
    widths: Encoding
    low: float
    high: float
    step: float
    least: Encoding
    mass: Encoding
    """How much of each whole kernel lies below `low`, and between `low` and `high`."""

    @classmethod
    def on(cls, points: Encoding, low: float, high: float, step: float) -> Bells:
        """Each as wide as the greater of the distances to its neighbours, the outermost as that to their only one."""
        low, high = low - step / 2, high + step / 2
        order = np.argsort(points, kind="stable")
        gaps = np.diff(np.concatenate([[low], points[order], [high]]))
        if len(points) > 1:
            gaps[0] = gaps[-1] = 0.0
        widths = np.empty(len(points))
        widths[order] = np.maximum(gaps[:-1], gaps[1:])
        widths = np.clip(widths, (high - low) / min(NARROWEST, len(points) + 2), high - low)
        means, widths = np.append(points, (low + high) / 2), np.append(widths, high - low)
        least = _below(low, means, widths)
        return cls(means, widths, low, high, step, least, _below(high, means, widths) - least)

    def draw(self, which: Places, rng: np.random.Generator) -> Encoding:
        """Coordinates (m,) from these kernels (m,), by the inverse of their distribution."""
        from scipy.special import ndtri

        shares = self.least[which] + self.mass[which] * rng.random(len(which))
        drawn = self.means[which] + self.widths[which] * ndtri(shares)
        inner = self.step / 2
        if self.step:
            drawn = self.low + inner + self.step * np.round((drawn - self.low - inner) / self.step)
        return np.asarray(np.clip(drawn, self.low + inner, self.high - inner))

    def log(self, coordinates: Encoding) -> Encoding:
        """Logarithms (m, kernels) of the densities at coordinates (m,)."""
        if not self.step:
            far = (coordinates[:, None] - self.means) / self.widths
            return np.asarray(-0.5 * far**2 - np.log(math.sqrt(2 * math.pi) * self.widths * self.mass))
        known, back = np.unique(coordinates, return_inverse=True)
        ends = known[:, None] + self.step / 2, known[:, None] - self.step / 2
        above, below = (_below(end, self.means, self.widths) for end in ends)
        return np.asarray(np.log(np.maximum((above - below) / self.mass, TINY))[back])


class Parzen:
    """The density of points (n, d), the oldest first, over these dimensions."""

    def __init__(self, dimensions: Sequence[Parameter], points: Encoding) -> None:
        options = {place: len(one.values) for place, one in enumerate(dimensions) if isinstance(one, Option)}
        self._options = list(options)
        self._ticks = Ticks(points[:, self._options].astype(np.int64), np.array(list(options.values()), dtype=np.int64))
        self._bells = {
            place: Bells.on(
                points[:, place],
                coordinate(one, one.low),
                coordinate(one, one.high),
                one.step if isinstance(one, Whole) else 0.0,
            )
            for place, one in enumerate(dimensions)
            if not isinstance(one, Option)
        }
        weights = np.append(_by_age(len(points)), 1.0)
        self.weights = weights / weights.sum()

    def draw(self, count: int, rng: np.random.Generator) -> Encoding:
        """Coordinates (count, d)."""
        which = rng.choice(len(self.weights), size=count, p=self.weights)
        out = np.empty((count, len(self._options) + len(self._bells)))
        out[:, self._options] = self._ticks.draw(which, rng)
        for place, bells in self._bells.items():
            out[:, place] = bells.draw(which, rng)
        return out

    def log(self, coordinates: Encoding) -> Encoding:
        """Logarithms (m,) of the density at coordinates (m, d)."""
        each = self._ticks.log(coordinates[:, self._options]) + np.log(self.weights)
        for place, bells in self._bells.items():
            each += bells.log(coordinates[:, place])
        most = each.max(axis=1, keepdims=True)
        return np.asarray(most[:, 0] + np.log(np.exp(each - most).sum(axis=1)))


def coordinate(parameter: Parameter, value: Choice) -> float:
    """The coordinate of a choice."""
    if isinstance(parameter, Option):
        return parameter.values.index(value)
    return math.log(float(value)) if isinstance(parameter, Real) and parameter.log else float(value)


def choice(parameter: Parameter, where: float) -> Choice:
    """The choice at a coordinate."""
    if isinstance(parameter, Option):
        return parameter.values[int(where)]
    if isinstance(parameter, Whole):
        return round(where)
    return math.exp(where) if parameter.log else where


def _below(coordinates: float | Encoding, means: Encoding, widths: Encoding) -> Encoding:
    """The distribution function of normal kernels."""
    from scipy.special import ndtr

    return np.asarray(ndtr((coordinates - means) / widths))


def _by_age(count: int) -> Encoding:
    """Weights (count,), the oldest first."""
    if count < RECENT:
        return np.ones(count)
    return np.concatenate([np.linspace(1 / count, 1, count - RECENT), np.ones(RECENT)])
