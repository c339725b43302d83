"""The median rule of Vizier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.search.stopping.base import Course, Stopping

STARTUP = 5


class Median(Stopping):
    """A trial that is worse than the median of those trained to the end were after as many epochs is stopped."""

    name: ClassVar[str] = "median"
    paper: ClassVar[str] = "Golovin et al. 2017"

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """Whether it is worse, once five are trained to the end."""
        complete = [self.course(study, one) for one in trials if one.state == TrialState.COMPLETE]
        known = np.array([one.at(epoch) for one in complete])
        known = known[np.isfinite(known)]
        return epoch >= self.allowance.first and len(known) >= STARTUP and own.at(epoch) < float(np.median(known))
