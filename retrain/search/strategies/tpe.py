"""The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio & Kegl 2011, "Algorithms for Hyper-Parameter
Optimization"), as Optuna has it, in a tenth of the time: what was seen is kept as numbers, not read from the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import AskTell, Proposal, Seen
from retrain.search.strategies.parzen import Parzen, choice, coordinate

STARTUP = 10
CANDIDATES = 24
GOOD, MOST = 0.1, 25
"""This share of the trials is good, and at most so many."""

Group: TypeAlias = tuple[list[str], Parzen, Parzen]


class Tpe(AskTell):
    """Tree-structured Parzen estimator, joint over the dimensions that occur together (Falkner et al. 2018), spreading
    out over what parallel workers try."""

    name: ClassVar[str] = "tpe"
    paper: ClassVar[str] = "Bergstra et al. 2011"
    drawn_by_weight: ClassVar[int] = STARTUP

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._columns = {label: place for place, label in enumerate(space.labelled)}
        self._ranks: list[tuple[bool, float, float]] = []
        self._places: list[Encoding] = []
        self._running: list[Candidate] = []
        self._known: set[str] = set()
        self._models: list[Group] | None = None

    def tell(self, seen: Seen) -> None:
        """Remember it. Those that keep to the constraints are the better ones, then those that were trained longer."""
        self._ranks.append((seen.allowed, seen.reached, seen.value))
        self._places.append(self._place(seen.candidate))
        self._known.add(self.space.canonical(seen.candidate))
        self._models = None

    def under_way(self, candidates: Sequence[Candidate]) -> None:
        """They count as bad until they have ended (Ginsbourger et al. 2010, the constant liar)."""
        if candidates != self._running:
            self._running, self._models = list(candidates), None

    def ask(self) -> Proposal:
        """A candidate at random at first; then, in each group of dimensions, of some draws from the density of the good
        trials the one where that is greatest beside the density of the others: the first such that was not tried."""
        if len(self._ranks) < STARTUP:
            return Proposal(self.space.sample(self.rng))
        ranked = [(labels, self._ranked(good, others)) for labels, good, others in self._densities()]
        made = (self._candidate(ranked, place) for place in range(CANDIDATES))
        first = next(made)
        fresh = (one for one in chain((first,), made) if self.space.canonical(one) not in self._known)
        return Proposal(next(fresh, first))

    def pass_over(self, candidate: Candidate) -> None:
        """It is not proposed."""
        self._known.add(self.space.canonical(candidate))

    def _ranked(self, good: Parzen, others: Parzen) -> Encoding:
        """Draws from the density of the good ones, the most promising first."""
        drawn = good.draw(CANDIDATES, self.rng)
        return drawn[np.argsort(others.log(drawn) - good.log(drawn), kind="stable")]

    def _candidate(self, ranked: Sequence[tuple[list[str], Encoding]], place: int) -> Candidate:
        """The candidate of the draws at a place in the ranking of each group; what is in no group is drawn freely."""
        given = {
            label: choice(self.space.labelled[label], where)
            for labels, drawn in ranked
            for label, where in zip(labels, drawn[place].tolist(), strict=True)
        }
        return self.space.complete(given, self.rng)

    def _densities(self) -> list[Group]:
        """Labels of dimensions that occur together, and there the densities of good and of other trials."""
        if self._models is None:
            order = sorted(range(len(self._ranks)), key=self._ranks.__getitem__, reverse=True)
            places = np.array([*self._places, *map(self._place, self._running)])
            is_good = np.zeros(len(places), dtype=bool)
            is_good[order[: min(math.ceil(GOOD * len(order)), MOST)]] = True
            self._models = [self._group(labels, places, is_good) for labels in self._together(places)]
        return self._models

    def _together(self, places: Encoding) -> list[list[str]]:
        """The labels of the dimensions that exist in the same candidates; nothing is known of those in none."""
        there, groups = ~np.isnan(places), dict[bytes, list[str]]()
        for column, label in enumerate(self.space.labelled):
            if there[:, column].any():
                groups.setdefault(there[:, column].tobytes(), []).append(label)
        return list(groups.values())

    def _group(self, labels: list[str], places: Encoding, is_good: npt.NDArray[np.bool_]) -> Group:
        """Their densities of the good and of the other candidates that have them."""
        own = places[:, [self._columns[label] for label in labels]]
        there = ~np.isnan(own[:, 0])
        dimensions = [self.space.labelled[label] for label in labels]
        good, others = (Parzen(dimensions, own[there & which]) for which in (is_good, ~is_good))
        return labels, good, others

    def _place(self, candidate: Candidate) -> Encoding:
        """The coordinates of a candidate (d,), not a number where a dimension does not exist."""
        out = np.full(len(self._columns), np.nan)
        for label, value in self.space.params(candidate).items():
            out[self._columns[label]] = coordinate(self.space.labelled[label], value)
        return out
