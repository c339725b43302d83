"""The plain combination that `auto` is held to: the best of many untrained candidates by synflow, then local search."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTell, Proposal, Seen

SYNFLOW = 0
"""Its place among the training-free scores of `nas_tables.PROXIES`."""


class SynflowLocal(AskTell):
    """Trains all neighbours of where it is, moves to the best of them, and begins again at the next by synflow where
    none is better (White, Nolen & Savani 2021; Abdelfattah et al. 2021)."""

    name: ClassVar[str] = "synflow-local"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        drawn = [space.sample(rng) for _ in range(space.screened)]
        self._starts = sorted(drawn, key=lambda one: -np.nan_to_num(space.proxies(one)[SYNFLOW], nan=-np.inf))
        self._around: list[Candidate] = []
        self._here: Seen | None = None
        self._best: Seen | None = None

    def tell(self, seen: Seen) -> None:
        """The best of this climb."""
        if self._best is None or seen.value > self._best.value:
            self._best = seen

    def ask(self) -> Proposal:
        """A neighbour of where it is; behind the last one, of where it goes."""
        if not self._around and self._best is not self._here and self._best is not None:
            self._here, self._around = self._best, list(self.space.neighbours(self._best.candidate, self.rng))
        if self._around:
            return Proposal(self._around.pop())
        self._here = self._best = None
        return Proposal(self._starts.pop(0) if self._starts else self.space.sample(self.rng))
