"""What early stopping is: a policy that looks at the scores that trials have reported, and ends the weak ones.

Policies are Everfit's own, not Optuna's pruners: those refuse studies of several objectives. All that a policy knows is
in the journal: workers beside one another, and a study that is taken up again, judge by the same scores.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from retrain.search.asking import FINISHES, ORIGIN

FACTOR = 3
FEWEST_STEPS = 10
SCORE = "score after epoch "
"""Under this name and the epoch, a study of several objectives keeps what Optuna does not let be reported."""


@dataclass(frozen=True)
class Allowance:
    """What a study may spend: `first` is the epoch from which on a trial may be stopped, `longest` the most epochs of
    one; `trials`, `epochs` and `seconds` are those of all its trials together, whichever is reached first."""

    first: int
    longest: int
    trials: float = math.inf
    epochs: float = math.inf
    seconds: float = math.inf

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which halving compares trials."""
        return rungs(self.first, self.longest)


@dataclass(frozen=True)
class Course:
    """How a trial went: the score after each reported epoch, greater being better, and how many epochs it takes if it
    is not stopped."""

    number: int
    scores: Mapping[int, float]
    origin: str
    planned: int

    def at(self, epoch: int) -> float:
        """The score after an epoch: the last one reported by then, not a number where there is none."""
        known = [one for one in self.scores if one <= epoch]
        return self.scores[max(known)] if known else math.nan


class Stopping(ABC):
    """A way to stop trials. A subclass's docstring begins with the sentence that lists of policies show."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    pauses: ClassVar[bool] = False
    """Whether a stopped trial only pauses: it may go on later, and keeps what it needs for that."""
    head_start: ClassVar[bool] = True
    """Whether fresh candidates of a warm-started study pass the first look: a prior's networks begin ahead of them."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance

    def watches(self, epoch: int) -> bool:
        """Whether the score after this epoch is of any use: others need not be reported."""
        return True

    def should_stop(self, study: optuna.Study, trial: optuna.Trial, epoch: int) -> bool:
        """Whether a running trial, which has reported the score after this epoch, is not worth another one. A score
        that is not a number is worth none; a trial that ends here anyway is never stopped, nor one that goes on with a
        paused one and was let past this epoch already."""
        if not self.watches(epoch):
            return False
        known = study.get_trials(deepcopy=False)
        own = self.course(study, known[trial.number])
        if epoch >= own.planned or epoch <= passed(known, known[trial.number]):
            return False
        if own.origin == "fresh" and self.head_start and epoch <= self.allowance.first:
            return False
        return math.isnan(own.at(epoch)) or self.judge(study, known, own, epoch)

    @abstractmethod
    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """Whether the trial is to be stopped, given all trials of its study by number."""

    def due(self, study: optuna.Study) -> int | None:
        """The number of the first trial of a paused candidate that is to go on now; None: the sampler is asked."""
        return None

    def kept(self, study: optuna.Study) -> list[int]:
        """The numbers of the first trials of paused candidates that may yet go on, the most likely ones first."""
        return []

    def course(self, study: optuna.Study, trial: FrozenTrial) -> Course:
        """How a trial of the study went so far."""
        sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
        scores = {epoch: sign * score for epoch, score in reported(trial).items()}
        planned = min(int(trial.params.get("epochs", self.allowance.longest)), self.allowance.longest)
        return Course(trial.number, scores, str(trial.user_attrs.get(ORIGIN, "sampled")), planned)


def report(study: optuna.Study, trial: optuna.Trial, epoch: int, score: float) -> None:
    """Keep the score of a running trial after an epoch, counted from 1; of several objectives, the first one's."""
    if len(study.directions) > 1:
        trial.set_user_attr(f"{SCORE}{epoch}", score)
    else:
        trial.report(score, epoch)


def reported(trial: FrozenTrial) -> dict[int, float]:
    """The scores of a trial by epoch, as they were reported."""
    if trial.intermediate_values:
        return trial.intermediate_values
    kept = {name: score for name, score in trial.user_attrs.items() if name.startswith(SCORE)}
    return {int(name.removeprefix(SCORE)): float(score) for name, score in kept.items()}


def passed(trials: Sequence[FrozenTrial], own: FrozenTrial) -> int:
    """The epoch up to which a trial only repeats, if anything, what earlier ones of its candidate did. `trials` are all
    of the study's, by number."""
    first = own.user_attrs.get(FINISHES)
    if first is None:
        return 0
    earlier = [one for one in trials[: own.number] if first in (one.number, one.user_attrs.get(FINISHES))]
    return max((max(reported(one), default=0) for one in earlier if one.state == TrialState.PRUNED), default=0)


def first_rung(steps_per_epoch: int, max_epochs: int) -> int:
    """The first epoch after which a trial may be stopped: on small tables one epoch has taught too little.

    >>> first_rung(60, 27), first_rung(4, 27), first_rung(1, 2)
    (1, 3, 2)
    """
    return min(1 if steps_per_epoch >= FEWEST_STEPS else FACTOR, max_epochs)


def rungs(first: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared.

    >>> rungs(1, 27), rungs(3, 10)
    ((1, 3, 9, 27), (3, 9))
    """
    found = []
    epoch = first
    while epoch <= max_epochs:
        found.append(epoch)
        epoch *= FACTOR
    return tuple(found)
