"""Successive halving: trials pause at a rung, and the best of them go on where they stopped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.search.asking import FINISHES
from retrain.search.stopping.base import FACTOR, Course, Stopping
from retrain.search.tally import DIVERGED, RETRIED, is_spent

FINISHED, MOST = 10, 4
"""Of a budget of trials, at least ten are finished, or every fourth where those are fewer."""
EARLIER = 2 / 3
"""The first of two looks, as a share of where policies with one look first."""
STRIKES = 2
"""A candidate whose workers died so often while it went on is left alone: it may be the cause."""


@dataclass(frozen=True)
class Life:
    """A candidate so far: the number of its first trial, its scores by epoch (greater being better), how many epochs
    and seconds it took, whether it pauses, and whether one of its later trials runs."""

    number: int
    scores: Mapping[int, float]
    epochs: int
    seconds: float
    paused: bool
    going_on: bool

    def at(self, rung: int) -> float:
        """Its score after a rung; minus infinity where it has none."""
        score = self.scores.get(rung, math.nan)
        return -math.inf if math.isnan(score) else score

    def waits_at(self, rung: int) -> bool:
        """Whether it pauses after a rung, and is worth going on with."""
        return self.paused and max(self.scores, default=0) == rung and self.at(rung) > -math.inf


class Halving(Stopping):
    """Every candidate is trained briefly, the best of them go on for a while where they stopped, and the best of those
    to their end: a third of the budget each.

    Trials pause, with the state of their optimizer, after two thirds of the usual first rung, as a second look follows,
    and after three times as many epochs. Each rung has its turn as soon as its share of the budget is spent, best
    first; nobody of the worse half goes on. Of a budget of trials: as soon as all candidates were begun; then so many
    go on as take no more epochs than the look before did.
    """

    name: ClassVar[str] = "halving"
    paper: ClassVar[str] = "Jamieson & Talwalkar 2016; pausing as in Li et al. 2020"
    pauses: ClassVar[bool] = True

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials pause."""
        first = max(1, round(EARLIER * self.allowance.first))
        return self.below_the_end(first, FACTOR * first)

    def below_the_end(self, *epochs: int) -> tuple[int, ...]:
        """Those of the epochs at which there is something left to train."""
        return tuple(one for one in epochs if one < self.allowance.longest)

    def watches(self, epoch: int) -> bool:
        """The rungs."""
        return epoch in self.rungs

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """All pause."""
        return True

    def due(self, study: optuna.Study) -> int | None:
        """The best that pauses at the highest rung whose turn it is. Of a budget of trials that are all begun, each
        rung is filled before the next."""
        lives = self.lives(study)
        levels, full = len(self.rungs), len(lives) >= self.allowance.trials
        turn = min(levels, int(self._spent(lives) * (levels + 1)))
        for level in [*reversed(range(turn)), *(range(turn, levels) if full else ())]:
            best = self._best(lives, level, full)
            if best is not None:
                return best.number
        return None

    def kept(self, study: optuna.Study) -> list[int]:
        """Candidates that may yet go on, and those that do, the most likely ones first."""
        lives = self.lives(study)
        found = [one for one in lives if one.going_on]
        for rung in reversed(self.rungs):
            waiting = [one for one in lives if one.waits_at(rung)]
            found += sorted(waiting, key=lambda one: one.at(rung), reverse=True)
        return [one.number for one in found]

    def lives(self, study: optuna.Study) -> list[Life]:
        """All candidates that were begun."""
        by_first: dict[int, list[FrozenTrial]] = {}
        for one in study.get_trials(deepcopy=False):
            if FINISHES in one.user_attrs or is_spent(one):
                by_first.setdefault(one.user_attrs.get(FINISHES, one.number), []).append(one)
        return [self._life(study, trials) for trials in by_first.values()]

    def _life(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Life:
        counted = [one for one in trials if one.state != TrialState.FAIL or DIVERGED in one.user_attrs]
        courses = [self.course(study, one) for one in counted]
        scores = {epoch: score for course in courses for epoch, score in course.scores.items()}
        last, strikes = counted[-1].state, sum(RETRIED in one.user_attrs for one in trials if one not in counted)
        return Life(
            number=trials[0].number,
            scores=scores if strikes < STRIKES else {},  # as if it had never come to a rung
            epochs=courses[-1].planned if last == TrialState.COMPLETE else max(scores, default=0),
            seconds=sum(one.duration.total_seconds() for one in counted if one.duration is not None),
            paused=last == TrialState.PRUNED,
            going_on=last == TrialState.RUNNING and len(counted) > 1,
        )

    def _spent(self, lives: Iterable[Life]) -> float:
        """The share of the epochs or of the seconds that is spent."""
        epochs, seconds = sum(one.epochs for one in lives), sum(one.seconds for one in lives)
        return max(epochs / self.allowance.epochs, seconds / self.allowance.seconds)

    def _best(self, lives: Sequence[Life], level: int, full: bool) -> Life | None:
        """The best that waits at a rung, if it may go on."""
        rung = self.rungs[level]
        waiting = [one for one in lives if one.waits_at(rung)]
        best = max(waiting, key=lambda one: one.at(rung), default=None)
        if best is None:
            return None
        if full:
            gone = sum(one.at(rung) > -math.inf for one in lives) - len(waiting)
            return best if gone < self._places(level) else None
        return best if best.at(rung) >= _median(lives, rung) else None

    def _places(self, level: int) -> int:
        """How many of a budget of trials go on from a rung."""
        trials, (first, *_), ends = int(self.allowance.trials), self.rungs, (*self.rungs[1:], self.allowance.longest)
        alike = round(trials * first / (ends[level] - self.rungs[level]))
        return max(alike, min(FINISHED, trials // MOST), 1)


def _median(lives: Iterable[Life], rung: int) -> float:
    """The median score of those that reached a rung."""
    return statistics.median([score for one in lives if (score := one.at(rung)) > -math.inf] or [-math.inf])
