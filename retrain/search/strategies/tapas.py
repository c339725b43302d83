"""First candidates by what studies of other tasks teach, then a Gaussian process."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import Proposal
from retrain.search.strategies.guided import GaussianGuided

DRAWN, FIRST = 200, 8
"""Of so many candidates at random, so many are tried."""


class Tapas(GaussianGuided):
    """Ranks candidates by what the registry's studies of other tasks teach, trains the first of them, then chooses as
    `gp` does; without such studies it is `gp`."""

    name: ClassVar[str] = "tapas"
    paper: ClassVar[str] = "after Istrate et al. 2019"
    learns_from_others: ClassVar[bool] = True

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        drawn = [space.sample(rng) for _ in range(DRAWN)]
        expected = space.expected(drawn)
        order = [] if expected is None else np.argsort(-expected, kind="stable")[:FIRST].tolist()
        self._ranked: list[Candidate] = [drawn[place] for place in order]

    def ask(self) -> Proposal:
        """The next of the ranking, and after it the most promising of a pool."""
        while self._ranked:
            first = self._ranked.pop(0)
            if self.space.canonical(first) not in self._known:
                return Proposal(first)
        return super().ask()
