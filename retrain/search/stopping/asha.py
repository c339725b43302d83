"""Asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial

from retrain.search.stopping.base import FACTOR, Course, Stopping


class Asha(Stopping):
    """A trial goes on past a rung (1, 3, 9, 27 epochs, times the first one) only while it is among the best third of
    all that reached it."""

    name: ClassVar[str] = "asha"
    paper: ClassVar[str] = "Li et al. 2020"

    def watches(self, epoch: int) -> bool:
        """The rungs."""
        return epoch in self.allowance.rungs

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """Whether it is in the lower two thirds of this rung."""
        known = [self.course(study, one).scores.get(epoch, math.nan) for one in trials if self.rivals(own, one)]
        return not promoted(own.scores[epoch], known)

    def rivals(self, own: Course, other: FrozenTrial) -> bool:
        """Whether a trial is compared with another: all are."""
        return True


def promoted(score: float, known: Sequence[float]) -> bool:
    """Whether a score is among the best third of those that are known at its rung, itself included; of one or two, it
    has to be the best. Those that are not numbers are left out.

    >>> promoted(0.7, [0.7]), promoted(0.7, [0.7, 0.8, 0.6]), promoted(0.7, [0.7, 0.8, 0.6, 0.5, 0.4, 0.3])
    (True, False, True)
    """
    ordered = sorted((one for one in known if not math.isnan(one)), reverse=True)
    return score >= ordered[max(1, len(ordered) // FACTOR) - 1]
