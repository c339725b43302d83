"""A short screen of many candidates, then the best are trained to the end."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from retrain.search.stopping.halving import Halving


class Screen(Halving):
    """Every candidate is trained for the first rung only until half of the budget is spent; then the best go on to the
    end where they stopped, best first."""

    name: ClassVar[str] = "screen"
    paper: ClassVar[str] = "after Jamieson & Talwalkar 2016"
    head_start: ClassVar[bool] = False

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The first rung."""
        return self.below_the_end(self.allowance.first)
