"""Everfit's own: screen without training, then predict, and walk around the best."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import Proposal
from retrain.search.strategies.guided import STARTUP, GaussianGuided
from retrain.search.strategies.screening import Screen

WALK = 2
"""Every second suggestion is a neighbour of the best."""


class Auto(GaussianGuided):
    """Screens many candidates without training, then a Gaussian process on encodings and training-free scores leads,
    turn by turn with a walk among the neighbours of the best."""

    name: ClassVar[str] = "auto"
    paper: ClassVar[str] = "Everfit's own, of Abdelfattah et al. 2021; Snoek et al. 2012; White et al. 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._turn = 0

    @cached_property
    def screen(self) -> Screen:
        """Made when it is first needed: networks are built for it."""
        return Screen.of(self.space, self.rng)

    def ask(self) -> Proposal:
        """Screened candidates first, then what the model finds most promising, in the whole pool or near the best."""
        if len(self.seen) < STARTUP:
            ranked = self.screen.ranked
            return Proposal(ranked.pop(0) if ranked else self.space.sample(self.rng))
        self._turn += 1
        pool = self._near() if self._turn % WALK else self.pool()
        worth = self.worth(np.stack([self.place(one.candidate) for one in pool]))
        return pool[int(np.argmax(worth))]

    def place(self, candidate: Candidate) -> Encoding:
        """Encoding and training-free scores."""
        return np.concatenate([super().place(candidate), self.screen.scores(candidate)])

    def _near(self) -> list[Proposal]:
        """The neighbours of the best that were not tried yet; the whole pool where all were."""
        (best,) = self.best(1)
        found = [Proposal(one, best.number) for one in self.space.neighbours(best.candidate, self.rng)]
        return [one for one in found if self.space.canonical(one.candidate) not in self._known] or self.pool()
