"""Everfit's own: screen without training, look around the best of the screen, then predict. Studies of other tasks,
where there are any, are the process's prior from the first trial on, in place of the screen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import Proposal
from retrain.search.strategies.guided import STARTUP, GaussianGuided
from retrain.search.strategies.screening import Screen

AROUND = 32
"""Neighbours of the start that are trained at most: all of them in a space of a few options, not a whole budget in a
larger one."""


class Auto(GaussianGuided):
    """Ranks candidates without training them and trains those ranked first; from ten trials on a Gaussian process
    learns from the results and picks the most promising of variants of the best, children of good ones and random ones.

    A search that no defaults open trains the first of the ranking and then what differs from it in one choice alone."""

    name: ClassVar[str] = "auto"
    paper: ClassVar[str] = "Everfit's own, after Abdelfattah et al. 2021, Snoek et al. 2012 and White et al. 2021"
    learns_from_others: ClassVar[bool] = True
    drawn_by_weight: ClassVar[int] = STARTUP

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._start: Candidate | None = None
        self._around: Iterator[Candidate] = iter(())

    @cached_property
    def screen(self) -> Screen:
        """Made when it is first needed: networks are built for it."""
        return Screen.of(self.space, self.rng)

    def prepare(self) -> None:
        """Rank the candidates: no other worker has to wait for it."""
        if len(self.seen) < STARTUP and self.space.taught is None:
            _ = self.screen

    def ask(self) -> Proposal:
        """The neighbours of the start, where there is one. It is the best of the screen, in a search that begins with
        nothing: what differs from a good candidate in one choice alone tells the model what each choice is worth. After
        other beginnings, or where nothing is known untrained, some of the screen; then what the model finds most
        promising."""
        near = next(self._around, None)
        if near is not None:
            return Proposal(near, next((one.number for one in self.seen if one.candidate == self._start), None))
        if self.space.taught is not None or len(self.seen) >= STARTUP or not self.screen.ranked:
            return super().ask()
        first = self.screen.ranked.pop(0)
        if not self.seen and self.screen.tells:
            self._start, self._around = first, islice(self.space.neighbours(first, self.rng), AROUND)
        return Proposal(first)

    def pool(self) -> list[Proposal]:
        """Every neighbour of the best beside the usual ones: local search is hard to beat where there are few steps to
        the top, and the model finds the step that it would find last."""
        (best,) = self.best(1)
        near = [Proposal(one, best.number) for one in self.space.neighbours(best.candidate, self.rng)]
        return [*(one for one in near if self.space.canonical(one.candidate) not in self._known), *super().pool()]
