"""Non-dominated sorting: NSGA-II (Deb, Pratap, Agarwal & Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
Algorithm") and NSGA-III (Deb & Jain 2014, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point
Based Nondominated Sorting"), as Optuna has them.

Optuna's samplers sort the generations, choose who survives, and keep both in the journal, so that any process goes on
from there. Their children would inherit only what all candidates have: here they are made of whole candidates, since
most dimensions of these spaces belong to one family alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import Strategy

POPULATION = 16
"""Trials of a generation: the papers' hundred would be all that a user can afford. Optuna counts those that were
trained to the end, so none is stopped."""


class Offspring:
    """A child of two winners of binary tournaments, with one choice changed at random."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self.space, self.rng = space, rng

    def __call__(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution], parent_population: list[FrozenTrial]
    ) -> dict[str, Any]:
        """The child's parameters, by label."""
        known = [(trial, one) for trial in parent_population if (one := self.space.read(trial.params)) is not None]
        mother, father = (self._winner(known, study.directions) for _ in range(2))
        child = self.space.mutate(self.space.cross(mother, father, self.rng), self.rng)
        return dict(self.space.params(child))

    def _winner(
        self, known: Sequence[tuple[FrozenTrial, Candidate]], directions: Sequence[StudyDirection]
    ) -> Candidate:
        first, second = (known[int(place)] for place in self.rng.integers(len(known), size=2))
        return second[1] if precedes(second[0], first[0], directions) else first[1]


class Genetic:
    """What both of Optuna's samplers are given beside their own: candidates are chosen whole."""

    space: Space
    rng: np.random.Generator

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All dimensions, also those that exist in one family alone."""
        return self.space.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child; in the first generation, a candidate at random."""
        child: dict[str, Any] = super().sample_relative(study, trial, search_space)  # type: ignore[misc]
        return child or dict(self.space.params(self.space.sample(self.rng)))


class Nsga2Sampler(Genetic, optuna.samplers.NSGAIISampler):
    """NSGA-II over whole candidates."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        super().__init__(population_size=POPULATION, seed=seed, child_generation_strategy=Offspring(space, self.rng))


class Nsga3Sampler(Genetic, optuna.samplers.NSGAIIISampler):
    """NSGA-III over whole candidates."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        super().__init__(population_size=POPULATION, seed=seed, child_generation_strategy=Offspring(space, self.rng))


class Nsga2(Strategy):
    """Crosses and mutates what nothing dominates, by crowding distance; for several objectives or one."""

    name: ClassVar[str] = "nsga2"
    paper: ClassVar[str] = "Deb et al. 2002"
    several: ClassVar[bool] = True
    stoppable: ClassVar[bool] = False

    @classmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the first generation, the portfolio in it, is random."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # own children, in Optuna since 3.3
            return Nsga2Sampler(space, seed)


class Nsga3(Strategy):
    """Crosses and mutates what nothing dominates, by reference points; for three objectives or more."""

    name: ClassVar[str] = "nsga3"
    paper: ClassVar[str] = "Deb & Jain 2014"
    several: ClassVar[bool] = True
    stoppable: ClassVar[bool] = False

    @classmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the first generation, the portfolio in it, is random."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return Nsga3Sampler(space, seed)


def precedes(one: FrozenTrial, other: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
    """Whether a trial dominates another one, by constraints first: a feasible one precedes one that is not, of two
    that are not the one that breaks them less (Deb et al. 2002, section VI)."""
    excess, others = (sum(max(0.0, value) for value in each.constraints.values()) for each in (one, other))
    if excess or others:
        return excess < others
    signs = np.array([-1.0 if each == StudyDirection.MAXIMIZE else 1.0 for each in directions])
    left, right = signs * np.array(one.values), signs * np.array(other.values)
    return bool((left <= right).all() and (left < right).any())
