"""What a user knows of a search beforehand: one `Preference` for a dimension of the space, free of any space.

Whether a dimension and its values exist is not known here: `retrain/search/narrowing.py` holds preferences against the
space when a search begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from registry.schema import Frozen


def _checked(value: object) -> object:
    """One finding for what is no value, in place of one for each type that it is not."""
    if not isinstance(value, (str, bool, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("expected a word, a number or true or false")
    return value


Value: TypeAlias = Annotated[str | bool | int | float, BeforeValidator(_checked)]
Weight: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Preference(Frozen):
    """What one dimension of the space may be: `fixed`, one of `only`, none of `never`, a number from `low` to `high`.

    `weights` say how often each option is drawn beside the others where draws are random; one that is not named has 1.
    Raises `ValueError` for what contradicts itself.
    """

    fixed: Value | None = None
    only: tuple[Value, ...] = ()
    never: tuple[Value, ...] = ()
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    weights: dict[Value, Weight] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Preference:
        if self == Preference.model_construct():
            raise ValueError("says nothing: give one of fixed, only, never, low, high, weights")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.fixed is not None and self.weights:
            raise ValueError(f"fixed to {_shown(self.fixed)}, so that weights mean nothing")
        if self.fixed is not None and (reason := self.excludes(self.fixed)):
            raise ValueError(f"fixed to {_shown(self.fixed)}, which {reason}")
        if self.only and all(self.excludes(one) for one in self.only):
            raise ValueError("everything is ruled out: each value of only is in never, below low or above high")
        for one in self.weights:
            if reason := self.excludes(one):
                raise ValueError(f"weighted is {_shown(one)}, which {reason}")
        return self

    def excludes(self, value: Value) -> str:
        """Why a value is ruled out, as the end of a sentence; empty where it is not."""
        if self.only and not among(value, self.only):
            return f"is not among only ({', '.join(map(_shown, self.only))})"
        if among(value, self.never):
            return "is in never"
        number = number_of(value)
        if number is not None and self.low is not None and number < self.low:
            return f"is below low ({self.low:g})"
        if number is not None and self.high is not None and number > self.high:
            return f"is above high ({self.high:g})"
        return ""

    def briefly(self) -> dict[str, Any]:
        """What was said, JSON-able; weights in the order of their values."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return {**said, **({"weights": dict(sorted(said["weights"].items()))} if "weights" in said else {})}

    def weight(self, value: Value) -> float:
        """How often a value is drawn beside the others."""
        return next((weight for one, weight in self.weights.items() if alike(one, value)), 1.0)


def alike(one: Value, other: Value) -> bool:
    """Whether two values mean the same: a file may hold `1e-3` or a weight's key as text.

    >>> alike("64", 64), alike("true", True), alike(0, False), alike("1e-3", 0.001)
    (True, True, False, True)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return str(one).lower() == str(other).lower()
    left, right = number_of(one), number_of(other)
    return left == right if left is not None and right is not None else one == other


def among(value: Value, values: Iterable[Value]) -> bool:
    """Whether a value means the same as one of these."""
    return any(alike(value, one) for one in values)


def number_of(value: Value) -> float | None:
    """A value as a number, also where it is the text of one; None for what is none.

    >>> number_of("1e-3"), number_of("relu"), number_of(True)
    (0.001, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: Value) -> str:
    return repr(value) if isinstance(value, str) else f"{value}"
