"""Training-free screening: synflow (Tanaka et al. 2020; Abdelfattah et al. 2021), NASWOT (Mellor et al. 2021), and
the number of parameters and of operations, which are the honest baseline of all of these (Ning et al. 2021)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import AskTell, Proposal, Seen

FEWEST = 8
"""So many candidates are looked at however little time there is."""


class Screening(AskTell):
    """Ranks many candidates by scores that need no training and trains them from the top."""

    name: ClassVar[str] = "screening"
    paper: ClassVar[str] = "Mellor et al. 2021; Abdelfattah et al. 2021"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._ranked: list[Candidate] = []
        self._worse = 0

    def tell(self, seen: Seen) -> None:
        """Nothing is learnt from trainings."""

    def ask(self) -> Proposal:
        """The next of the better half of the ranking; after that, of another one."""
        if len(self._ranked) <= self._worse:
            self._ranked = Screen.of(self.space, self.rng).ranked
            self._worse = len(self._ranked) // 2
        return Proposal(self._ranked.pop(0))


class Screen:
    """Candidates at random with their training-free scores, brought to between 0 and 1."""

    def __init__(self, space: Space, drawn: Sequence[Candidate], proxies: Sequence[Encoding]) -> None:
        self.space = space
        told = np.stack(proxies)
        self.tells = bool(told.size)
        finite = np.where(np.isfinite(told), told, np.nan)
        self._low, self._high = np.nanmin(finite, axis=0), np.nanmax(finite, axis=0)
        shares = np.stack([self._share(one) for one in told])
        ranks = np.argsort(np.argsort(shares, axis=0, kind="stable"), axis=0).sum(axis=1)
        self.ranked = [drawn[int(place)] for place in np.argsort(-ranks, kind="stable")]

    @classmethod
    def of(cls, space: Space, rng: np.random.Generator) -> Screen:
        """As many candidates as are worth it, or as there is time for; they are ranked by the mean of their ranks, and
        stay in the order they were drawn where nothing is known without training."""
        end, drawn, proxies = time.monotonic() + space.seconds_to_screen, list[Candidate](), list[Encoding]()
        while len(drawn) < space.screened and (len(drawn) < FEWEST or time.monotonic() < end):
            drawn.append(space.affordable(space.sample(rng)))
            proxies.append(space.proxies(drawn[-1]))
        return cls(space, drawn, proxies)

    def _share(self, told: Encoding) -> Encoding:
        shares = (told - self._low) / (self._high - self._low + 1e-12)
        return np.asarray(np.clip(np.nan_to_num(shares, nan=0.0, neginf=0.0, posinf=1.0), 0.0, 1.0))
