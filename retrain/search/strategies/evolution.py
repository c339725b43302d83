"""Regularized evolution (Real, Aggarwal, Huang & Le 2018, "Regularized Evolution for Image Classifier Architecture
Search"): the oldest dies, not the worst, so that what is kept must prove itself again in its children."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np

from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTell, Proposal, Seen

POPULATION, TOURNAMENT = 20, 5


class RegularizedEvolution(AskTell):
    """Mutates the best of a few drawn from a population whose oldest member dies."""

    name: ClassVar[str] = "evolution"
    paper: ClassVar[str] = "Real et al. 2018"

    def __init__(
        self, space: Space, rng: np.random.Generator, *, population: int = POPULATION, tournament: int = TOURNAMENT
    ) -> None:
        super().__init__(space, rng)
        self.population: deque[Seen] = deque(maxlen=population)
        self.tournament = tournament

    def tell(self, seen: Seen) -> None:
        """The newest enters, the oldest dies."""
        self.population.append(seen)

    def ask(self) -> Proposal:
        """A candidate at random until the population is full, then a child of a tournament's winner."""
        size = len(self.population)
        if size < (self.population.maxlen or 0):
            return Proposal(self.space.sample(self.rng))
        drawn = self.rng.choice(size, size=min(self.tournament, size), replace=False)
        parent = max((self.population[int(one)] for one in drawn), key=lambda seen: seen.value)
        return Proposal(self.space.mutate(parent.candidate, self.rng), parent.number)
