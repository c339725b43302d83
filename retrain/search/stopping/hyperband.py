"""Hyperband: successive halving that hedges over how early it begins."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial

from retrain.search.stopping.asha import Asha
from retrain.search.stopping.base import FACTOR, Course


class Hyperband(Asha):
    """Successive halving in brackets that begin at different rungs: where early scores mislead, some trials are not
    judged by them."""

    name: ClassVar[str] = "hyperband"
    paper: ClassVar[str] = "Li et al. 2018"

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """How many trials a bracket has beside the others (algorithm 1 of the paper); the first begins earliest."""
        count = len(self.allowance.rungs)
        return tuple(math.ceil(count * FACTOR**left / (left + 1)) for left in reversed(range(count)))

    def bracket(self, number: int) -> int:
        """The bracket of a trial: by its number alone, so that all processes agree, and in no pattern."""
        place = zlib.crc32(str(number).encode()) % sum(self.shares)
        for bracket, share in enumerate(self.shares):
            if place < share:
                return bracket
            place -= share
        raise AssertionError("the shares add up")

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """As in halving, from the bracket's first rung on."""
        begins = epoch >= self.allowance.rungs[self.bracket(own.number)]
        return begins and super().judge(study, trials, own, epoch)

    def rivals(self, own: Course, other: FrozenTrial) -> bool:
        """Those of one bracket are compared."""
        return self.bracket(own.number) == self.bracket(other.number)
