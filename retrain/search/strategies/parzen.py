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
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retrain.families.parameters import Choice, Option, Parameter, Real, Whole
from retrain.search.geometry import Encoding

Places = npt.NDArray[np.int64]

RECENT = 25
"""So many of the newest points count whole, older ones the less the older they are."""
NARROWEST = 100
"""No kernel is narrower than this part of its dimension."""


class Kernels(Protocol):
    """The kernels of one dimension, one on each point and the flat one behind them."""

    def draw(self, which: Places, rng: np.random.Generator) -> Encoding:
        """A coordinate (m,) from each of these kernels (m,)."""

    def log(self, coordinates: Encoding) -> Encoding:
        """Logarithms (m, kernels) of the densities at coordinates (m,)."""


@dataclass(frozen=True)
class Ticks:
    """Kernels on options: their own one most, all alike a little."""

    points: Encoding
    options: int

    @property
    def _spread(self) -> float:
        """How much all options together have beside a point's own."""
        return self.options / (len(self.points) + 1)

    def draw(self, which: Places, rng: np.random.Generator) -> Encoding:
        """The points' own options, or any."""
        own = np.append(self.points, -1.0)[which]
        anywhere = (own < 0) | (rng.random(len(which)) * (1 + self._spread) > 1)
        return np.where(anywhere, rng.integers(self.options, size=len(which)), own)

    def log(self, coordinates: Encoding) -> Encoding:
        """Of few options: shares."""
        little = self._spread / self.options / (1 + self._spread)
        same = coordinates[:, None] == self.points
        own = np.where(same, math.log(little + 1 / (1 + self._spread)), math.log(little))
        return np.column_stack([own, np.full(len(coordinates), -math.log(self.options))])


@dataclass(frozen=True)
class Bells:
    """Truncated normal kernels (n,) between `low` and `high`; those of whole numbers have the mass of a step."""

    means: Encoding
    widths: Encoding
    low: float
    high: float
    step: float

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
        return cls(np.append(points, (low + high) / 2), np.append(widths, high - low), low, high, step)

    def _below(self, coordinates: float | Encoding, means: Encoding, widths: Encoding) -> Encoding:
        from scipy.special import ndtr

        return np.asarray(ndtr((coordinates - means) / widths))

    def draw(self, which: Places, rng: np.random.Generator) -> Encoding:
        """By the inverse of the distribution."""
        from scipy.special import ndtri

        means, widths = self.means[which], self.widths[which]
        least, most = (self._below(end, means, widths) for end in (self.low, self.high))
        drawn = means + widths * ndtri(least + (most - least) * rng.random(len(which)))
        inner = self.step / 2
        if self.step:
            drawn = self.low + inner + self.step * np.round((drawn - self.low - inner) / self.step)
        return np.asarray(np.clip(drawn, self.low + inner, self.high - inner))

    def log(self, coordinates: Encoding) -> Encoding:
        """Of the same whole numbers once."""
        whole = self._below(self.high, self.means, self.widths) - self._below(self.low, self.means, self.widths)
        if not self.step:
            far = (coordinates[:, None] - self.means) / self.widths
            return np.asarray(-0.5 * far**2 - np.log(math.sqrt(2 * math.pi) * self.widths * whole))
        known, back = np.unique(coordinates, return_inverse=True)
        ends = (self._below(known[:, None] + side, self.means, self.widths) for side in (self.step / 2, -self.step / 2))
        above, below = ends
        return np.asarray(np.log(np.maximum((above - below) / whole, 1e-300))[back])


class Parzen:
    """The density of points (n, d), the oldest first, over these dimensions."""

    def __init__(self, dimensions: Sequence[Parameter], points: Encoding) -> None:
        self.kernels = [_kernels(one, points[:, place]) for place, one in enumerate(dimensions)]
        weights = np.append(_by_age(len(points)), 1.0)
        self.weights = weights / weights.sum()

    def draw(self, count: int, rng: np.random.Generator) -> Encoding:
        """Coordinates (count, d)."""
        which = rng.choice(len(self.weights), size=count, p=self.weights)
        return np.column_stack([one.draw(which, rng) for one in self.kernels])

    def log(self, coordinates: Encoding) -> Encoding:
        """Logarithms (m,) of the density at coordinates (m, d)."""
        each = sum(one.log(coordinates[:, place]) for place, one in enumerate(self.kernels)) + np.log(self.weights)
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


def _kernels(parameter: Parameter, points: Encoding) -> Kernels:
    if isinstance(parameter, Option):
        return Ticks(points, len(parameter.values))
    low, high = coordinate(parameter, parameter.low), coordinate(parameter, parameter.high)
    return Bells.on(points, low, high, parameter.step if isinstance(parameter, Whole) else 0.0)


def _by_age(count: int) -> Encoding:
    """Weights (count,), the oldest first."""
    if count < RECENT:
        return np.ones(count)
    return np.concatenate([np.linspace(1 / count, 1, count - RECENT), np.ones(RECENT)])
