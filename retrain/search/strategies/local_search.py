"""Local search (White, Nolen & Savani 2021, "Exploring the Loss Landscape in Neural Architecture Search")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTell, Proposal, Seen

STARTUP = 5


class LocalSearch(AskTell):
    """Tries the neighbours of the best candidate, moves to the first better one, begins again where none is."""

    name: ClassVar[str] = "local"
    paper: ClassVar[str] = "White, Nolen & Savani 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.here: Seen | None = None
        self._fresh = STARTUP
        self._around: Iterator[Candidate] = iter(())

    def tell(self, seen: Seen) -> None:
        """Move to a better place."""
        self._fresh = max(0, self._fresh - 1)
        if self.here is None or seen.value > self.here.value:
            self.here = seen
            self._around = self.space.neighbours(seen.candidate, self.rng)

    def ask(self) -> Proposal:
        """A neighbour; at first, and once all neighbours have failed, a few candidates at random to go on from."""
        nearby = None if self._fresh else next(self._around, None)
        if nearby is not None and self.here is not None:
            return Proposal(nearby, self.here.number)
        if not self._fresh:
            self._fresh, self.here = STARTUP, None
        return Proposal(self.space.sample(self.rng))
