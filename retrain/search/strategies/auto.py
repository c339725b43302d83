"""Everfit's own: screen without training, then predict, and walk around the best."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import Proposal, Seen
from retrain.search.strategies.gaussian import improvement
from retrain.search.strategies.guided import STARTUP, GaussianGuided

SCREENED = 200
"""Candidates at random among which training-free scores choose the first ones."""
WALK = 2
"""Every second suggestion is a neighbour of the best."""


class Auto(GaussianGuided):
    """Screens many candidates without training, then a Gaussian process on encodings and training-free scores leads,
    turn by turn with a walk among the neighbours of the best."""

    name: ClassVar[str] = "auto"
    paper: ClassVar[str] = "Everfit's own, of Abdelfattah et al. 2021; Snoek et al. 2012; White et al. 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._first: list[Candidate] | None = None
        self._turn = 0

    def ask(self) -> Proposal:
        """Screened candidates first, then what the model finds most promising, in the whole pool or near the best."""
        if len(self.seen) < STARTUP:
            return Proposal(self._start())
        self._turn += 1
        pool = self._near() if self._turn % WALK else self.pool()
        worth = self.worth(np.stack([self.place(one.candidate) for one in pool]))
        return pool[int(np.argmax(worth))]

    def place(self, candidate: Candidate) -> Encoding:
        """Encoding and training-free scores."""
        return np.concatenate([super().place(candidate), self._screened(candidate)])

    def _near(self) -> list[Proposal]:
        """The neighbours of the best that were not tried yet; the whole pool where all were."""
        (best,) = self.best(1)
        found = [Proposal(one, best.number) for one in self.space.neighbours(best.candidate, self.rng)]
        return [one for one in found if self.space.canonical(one.candidate) not in self._known] or self.pool()

    def _start(self) -> Candidate:
        """The next of the screened candidates, the one of the best training-free scores first; in the order they were
        drawn where nothing is known without training."""
        if self._first is None:
            drawn = [self.space.sample(self.rng) for _ in range(SCREENED)]
            told = np.stack([self.space.proxies(one) for one in drawn])
            self._low, self._high = np.nanmin(told, axis=0), np.nanmax(told, axis=0)
            shares = np.stack([self._screened(one) for one in drawn])
            ranks = np.argsort(np.argsort(shares, axis=0), axis=0).sum(axis=1)
            self._first = [drawn[place] for place in np.argsort(-ranks, kind="stable")]
        return self._first.pop(0) if self._first else self.space.sample(self.rng)

    def _screened(self, candidate: Candidate) -> Encoding:
        """Training-free scores between 0 and 1; a network of which one cannot be computed has the lowest."""
        shares = (self.space.proxies(candidate) - self._low) / (self._high - self._low + 1e-12)
        return np.clip(np.nan_to_num(shares, nan=0.0), 0.0, 1.0)
