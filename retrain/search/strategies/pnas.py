"""Progressive search (Liu et al. 2017, "Progressive Neural Architecture Search"): from few open decisions to all of
them, a learnt surrogate choosing which candidates are worth widening."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.geometry import Space, levels
from retrain.search.strategies.base import Proposal, Seen
from retrain.search.strategies.guided import GaussianGuided

BEAM = 6
"""Candidates trained at each width."""
EXPANDED = 400
"""Most candidates that the surrogate ranks at once."""


class Progressive(GaussianGuided):
    """Opens one decision after another, and of all ways to take it trains those that a surrogate predicts to be
    best."""

    name: ClassVar[str] = "pnas"
    paper: ClassVar[str] = "Liu et al. 2017"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._base = space.sample(rng)
        self._open: list[str] = []
        self._level: list[Seen] = []
        self._queue = self._first()

    def tell(self, seen: Seen) -> None:
        """Remember it, and among those of this width."""
        super().tell(seen)
        self._level.append(seen)

    def ask(self) -> Proposal:
        """The next candidate of this width; after the last one, decisions are opened further. Once all are open, the
        most promising of a pool, as other surrogates do."""
        while not self._queue:
            closed = [label for label, _ in self.space.dimensions(self._base) if label not in self._open]
            if not closed or not self._level:
                return super().ask()
            self._widen(closed[0])
        return Proposal(self._queue.pop(0))

    def _first(self) -> list[Candidate]:
        """All ways to take the first decision that can differ, or some of them."""
        for label, parameter in self.space.dimensions(self._base):
            self._open.append(label)
            if len(levels(parameter)) > 1:
                ways = levels(parameter)
                drawn = self.rng.permutation(len(ways))[:BEAM]
                return [self._with(self._base, label, ways[int(place)]) for place in drawn]
        return [self._base]

    def _widen(self, label: str) -> None:
        """Take the next decision in every way, from the best candidates of this width; queue the most promising."""
        beam = sorted(self._level, key=lambda one: one.value, reverse=True)[:BEAM]
        ways = [self._with(one.candidate, label, way) for one in beam for way in self._ways(one.candidate, label)]
        ways = [one for one in ways if self.space.canonical(one) not in self._known][:EXPANDED]
        self._open.append(label)
        if ways:
            promise, _ = self.fit().predict(np.stack([self.place(one) for one in ways]))
            self._queue = [ways[int(place)] for place in np.argsort(-promise)[:BEAM]]
            self._level = beam

    def _ways(self, candidate: Candidate, label: str) -> tuple[Choice, ...]:
        return next((levels(one) for each, one in self.space.dimensions(candidate) if each == label), ())

    def _with(self, candidate: Candidate, label: str, value: Choice) -> Candidate:
        return self.space.vary(candidate, label, value, self.rng)
