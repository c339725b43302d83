"""Everfit's own: screen without training, then predict, around the best and far from it."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from retrain.search.strategies.base import Proposal
from retrain.search.strategies.guided import STARTUP, GaussianGuided
from retrain.search.strategies.screening import Screen


class Auto(GaussianGuided):
    """Screens candidates without training, then a Gaussian process chooses among all neighbours of the best, children
    of the good ones and strangers."""

    name: ClassVar[str] = "auto"
    paper: ClassVar[str] = "Everfit's own, after Abdelfattah et al. 2021, Snoek et al. 2012 and White et al. 2021"

    @cached_property
    def screen(self) -> Screen:
        """Made when it is first needed: networks are built for it."""
        return Screen.of(self.space, self.rng)

    def ask(self) -> Proposal:
        """Screened candidates first, then what the model finds most promising."""
        if len(self.seen) >= STARTUP or not self.screen.ranked:
            return super().ask()
        return Proposal(self.screen.ranked.pop(0))

    def pool(self) -> list[Proposal]:
        """Every neighbour of the best beside the usual ones: local search is hard to beat where there are few steps to
        the top, and the model finds the step that it would find last."""
        (best,) = self.best(1)
        near = [Proposal(one, best.number) for one in self.space.neighbours(best.candidate, self.rng)]
        return [*(one for one in near if self.space.canonical(one.candidate) not in self._known), *super().pool()]
