"""A short screen of many candidates, then the best are trained to the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.search.asking import FINISHES
from retrain.search.stopping.base import Course, Stopping
from retrain.search.tally import is_spent

SHARE = 0.5
"""The share of the budget that the screen may use."""
FINISHED, MOST = 10, 4
"""Of a budget of trials, ten are finished (more where that is no half of the epochs), but at most every fourth."""


class Screen(Stopping):
    """Every candidate is trained for the first rung only until half of the budget is spent; then the best are trained
    to the end, best first.

    A candidate is finished anew, from the same seed and the same first weights: its first epochs are those of the
    screen again. Going on from the screened weights would need its optimizer's state and its raw weights (only their
    running average is kept), and a training that starts over from averaged weights is another one than was screened.
    It costs the first rung once more: a ninth of a long training, up to a third of a short one.
    """

    name: ClassVar[str] = "screen"
    paper: ClassVar[str] = "after Jamieson & Talwalkar 2016"
    head_start: ClassVar[bool] = False

    def watches(self, epoch: int) -> bool:
        """The first rung."""
        return epoch == self.allowance.first

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """All are stopped."""
        return True

    def due(self, study: optuna.Study) -> int | None:
        """The best that was screened and not yet finished, once the screen's share is spent; nobody of the worse
        half."""
        trials = study.get_trials(deepcopy=False)
        begun = {int(one.user_attrs[FINISHES]) for one in trials if FINISHES in one.user_attrs}
        waiting = any(FINISHES in one.user_attrs and one.state == TrialState.WAITING for one in trials)
        if waiting or not self._screened_enough([one for one in trials if FINISHES not in one.user_attrs]):
            return None
        stopped = [self.course(study, one) for one in trials if one.state == TrialState.PRUNED]
        known = {one.number: score for one in stopped if not math.isnan(score := one.at(self.allowance.first))}
        best = max((one for one in known if one not in begun), key=lambda number: known[number], default=None)
        return best if best is not None and known[best] >= statistics.median(known.values()) else None

    def _screened_enough(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether these screened trials have used their share of whatever budget there is."""
        begun = [one for one in trials if is_spent(one)]
        epochs = len(begun) * self.allowance.first
        seconds = sum(_seconds(one) for one in begun)
        return (
            epochs >= SHARE * self.allowance.epochs
            or seconds >= SHARE * self.allowance.seconds
            or len(begun) >= self.allowance.trials - self._to_finish()
        )

    def _to_finish(self) -> int:
        """How many of a budget of trials are finished."""
        trials, first = self.allowance.trials, self.allowance.first
        if math.isinf(trials):
            return 0
        half = trials * first * (1 - SHARE) / (first * (1 - SHARE) + self.allowance.longest * SHARE)
        return max(round(half), min(FINISHED, int(trials) // MOST), int(trials > 1))


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration is not None else 0.0
