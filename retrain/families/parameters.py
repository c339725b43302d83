"""The dimensions of a search space, free of any optimizer: options, whole numbers and real numbers.

`snap` brings a value from another space into this one: numbers are clipped and rounded to the nearest point, an option
that no longer exists has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

Choice: TypeAlias = str | bool | int | float
LEVELS = 8
"""Points of a real dimension for strategies that decide among a few values."""


@dataclass(frozen=True)
class When:
    """A condition: the dimension exists only where another one, which comes before it, has one of these values."""

    name: str
    values: tuple[Choice, ...]

    def holds(self, choices: Mapping[str, Choice]) -> bool:
        """Whether it is so among these choices."""
        return choices.get(self.name) in self.values


@dataclass(frozen=True)
class Option:
    """One of a few values; `weights` say how often each is drawn beside the others, all alike where there are none."""

    name: str
    values: tuple[Choice, ...]
    when: When | None = None
    weights: tuple[float, ...] = ()

    def sample(self, rng: np.random.Generator) -> Choice:
        """A value at random."""
        return self.draw(self.values, rng)

    def draw(self, among: Sequence[Choice], rng: np.random.Generator) -> Choice:
        """One of these values at random, by their weights."""
        if not self.weights:
            return among[int(rng.integers(len(among)))]
        shares = np.array([self.weights[self.values.index(one)] for one in among])
        return among[int(rng.choice(len(among), p=shares / shares.sum()))]

    @property
    def likeliest(self) -> Choice:
        """The value of the greatest weight, the first one among equals."""
        return self.values[self.weights.index(max(self.weights))] if self.weights else self.values[0]

    def snap(self, value: Choice) -> Choice | None:
        """The nearest of numeric values; the same value or none among others."""
        if value in self.values:
            return self.values[self.values.index(value)]
        if isinstance(value, str) or not all(_is_number(one) for one in self.values):
            return None
        return min(self.values, key=lambda one: abs(float(one) - float(value)))


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high` in steps."""

    name: str
    low: int
    high: int
    step: int = 1
    when: When | None = None

    def sample(self, rng: np.random.Generator) -> int:
        """A value at random."""
        return self.low + self.step * int(rng.integers((self.high - self.low) // self.step + 1))

    def snap(self, value: Choice) -> int | None:
        """The nearest point; none for what is no number."""
        if not _is_number(value):
            return None
        steps = round((min(max(float(value), self.low), self.high) - self.low) / self.step)
        return min(self.low + self.step * steps, self.high)

    def grid(self) -> tuple[int, ...]:
        """All points."""
        return tuple(range(self.low, self.high + 1, self.step))

    def share(self, value: float) -> float:
        """The place of a value between `low` (0) and `high` (1)."""
        return (value - self.low) / max(self.high - self.low, 1)


@dataclass(frozen=True)
class Real:
    """A real number from `low` to `high`, known to two significant digits: two candidates that differ in the third
    are the same candidate."""

    name: str
    low: float
    high: float
    log: bool = False
    when: When | None = None

    def sample(self, rng: np.random.Generator) -> float:
        """A value at random, uniform or log-uniform."""
        if self.log:
            return self._round(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return self._round(float(rng.uniform(self.low, self.high)))

    def snap(self, value: Choice) -> float | None:
        """Clipped and rounded; none for what is no number."""
        return self._round(float(value)) if _is_number(value) else None

    @cached_property
    def _points(self) -> tuple[float, ...]:
        low, high = self._scaled(self.low), self._scaled(self.high)
        points = (low + (high - low) * place / (LEVELS - 1) for place in range(LEVELS))
        return tuple(dict.fromkeys(self._round(math.exp(one) if self.log else one) for one in points))

    def grid(self) -> tuple[float, ...]:
        """`LEVELS` points, equally far from one another."""
        return self._points

    def share(self, value: float) -> float:
        """The place of a value between `low` (0) and `high` (1), by its logarithm where draws are; `low` is below
        `high`."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _round(self, value: float) -> float:
        return min(max(float(f"{value:.2g}"), self.low), self.high)


Parameter: TypeAlias = Option | Whole | Real

KEPT = "kept_units"
KEPT_UNITS = Option(KEPT, (1.0, 0.75, 0.5, 0.25))
"""The pruned width: the share of hidden units that a network keeps once it has been trained with all of them."""
INT8 = "int8"
WEIGHT_TYPE = Option("weight_type", ("float32", INT8))
"""What the weights of a network are kept and served as (see `grid.py`)."""


def is_int8(choices: Mapping[str, Choice]) -> bool:
    """Whether the weights of a candidate with these choices are kept and served as int8."""
    return choices.get(WEIGHT_TYPE.name) == INT8


def _is_number(value: Choice) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
