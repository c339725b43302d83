"""The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio & Kegl 2011, "Algorithms for Hyper-Parameter
Optimization"), with Optuna's choices for all that the paper leaves open, in a tenth of its time: what was seen is kept
as numbers, not read from the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import AskTell, Proposal, Seen
from retrain.search.strategies.parzen import Parzen, choice, coordinate

STARTUP = 10
CANDIDATES = 24
GOOD, MOST = 0.1, 25
"""This share of the trials is good, and at most so many."""

Group: TypeAlias = tuple[list[str], Parzen, Parzen]
"""Labels of dimensions that exist in the same candidates, and there the densities of the good and of the others."""


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
        self._groups: dict[str, Group] = {}
        self._told: tuple[Encoding, npt.NDArray[np.bool_]] | None = None

    def tell(self, seen: Seen) -> None:
        """Remember it. Those that keep to the constraints are the better ones, then those that were trained longer."""
        self._ranks.append((seen.allowed, seen.reached, seen.value))
        self._places.append(self._place(seen.candidate))
        self._known.add(self.space.canonical(seen.candidate))
        self._told = None

    def under_way(self, candidates: Sequence[Candidate]) -> None:
        """They count as bad until they have ended (Ginsbourger et al. 2010, the constant liar)."""
        if candidates != self._running:
            self._running, self._told = list(candidates), None

    def pass_over(self, candidate: Candidate) -> None:
        """It is not proposed."""
        self._known.add(self.space.canonical(candidate))

    def ask(self) -> Proposal:
        """A candidate at random at first; then, in each group of dimensions, of some draws from the density of the good
        trials the one where that is greatest beside the density of the others: the first such that was not tried."""
        if len(self._ranks) < STARTUP:
            return Proposal(self.space.sample(self.rng))
        if self._told is None:
            order = sorted(range(len(self._ranks)), key=self._ranks.__getitem__, reverse=True)
            places = np.array([*self._places, *map(self._place, self._running)])
            good = np.zeros(len(places), dtype=bool)
            good[order[: min(math.ceil(GOOD * len(order)), MOST)]] = True
            self._told, self._groups = (places, good), {}
        drawn: dict[str, Encoding] = {}
        made = (self._candidate(drawn, place) for place in range(CANDIDATES))
        first = next(made)
        fresh = (one for one in chain((first,), made) if self.space.canonical(one) not in self._known)
        return Proposal(next(fresh, first))

    def _candidate(self, drawn: dict[str, Encoding], place: int) -> Candidate:
        """The candidate of the draws at a place in the ranking of each group. A group is drawn from when the walk comes
        to it: most belong to other families."""

        def given(label: str) -> Choice | None:
            if label not in drawn:
                drawn.update(self._draw(label))
            return choice(self.space.labelled[label], float(drawn[label][place])) if drawn[label].size else None

        return self.space.complete(given, self.rng)

    def _draw(self, label: str) -> dict[str, Encoding]:
        """Coordinates by label in the group of a dimension, the most promising first; none of one that was never
        seen."""
        if label not in self._groups:
            self._groups[label] = self._group(label)
        labels, good, others = self._groups[label]
        if not labels:
            return {label: np.empty(0)}
        drawn = good.draw(CANDIDATES, self.rng)
        ranked = drawn[np.argsort(others.log(drawn) - good.log(drawn), kind="stable")]
        return dict(zip(labels, ranked.T, strict=True))

    def _group(self, label: str) -> Group:
        """Of a dimension."""
        assert self._told is not None
        places, good = self._told
        there = ~np.isnan(places)
        own = there[:, self._columns[label]]
        same = np.flatnonzero((there == own[:, None]).all(axis=0)) if own.any() else np.empty(0, dtype=np.int64)
        known = list(self.space.labelled.items())
        dimensions = [known[place][1] for place in same]
        among, others = (Parzen(dimensions, places[which & own][:, same]) for which in (good, ~good))
        return [known[place][0] for place in same], among, others

    def _place(self, candidate: Candidate) -> Encoding:
        """The coordinates of a candidate (d,), not a number where a dimension does not exist."""
        out = np.full(len(self._columns), np.nan)
        for label, value in self.space.params(candidate).items():
            out[self._columns[label]] = coordinate(self.space.labelled[label], value)
        return out
