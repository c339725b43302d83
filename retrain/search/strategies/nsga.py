"""Non-dominated sorting: NSGA-II (Deb, Pratap, Agarwal & Meyarivan 2002, "A Fast and Elitist Multiobjective Genetic
Algorithm") and NSGA-III (Deb & Jain 2014, "An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point
Based Nondominated Sorting"; its constraints by Jain & Deb 2014, part II).

Of the parents and the children of a generation as many survive as a generation has: front by front, those that nothing
dominates first. Of the front that does not fit in whole NSGA-II takes the least crowded ones, NSGA-III those whose
reference points have the fewest survivors. A network that keeps to the constraints dominates one that does not; of two
that do not, the one that breaks them less dominates. Parents are the winners of tournaments of two: the one that came
first when survivors were chosen, which is NSGA-II's rule (by front, then by crowding). The paper on NSGA-III draws them
at random.

A generation are the next trials that end, whoever asked for them, in the order in which a process learns of them:
processes may differ in a trial or two at its end, and in what NSGA-III draws at random. Children are made of whole
candidates, since most dimensions of these spaces belong to one family alone.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTell, Proposal, Seen

POPULATION = 16
"""Trials of a generation: the papers' hundred would be all that a user can afford. They count when they were trained to
the end, so none is stopped."""

Points = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Genetic(AskTell):
    """What both have: generations, fronts, and children of two winners with one choice changed at random."""

    several: ClassVar[bool] = True
    stoppable: ClassVar[bool] = False

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.parents: list[Seen] = []
        self._ended: list[Seen] = []

    def tell(self, seen: Seen) -> None:
        """Remember it; with the last of a generation, choose the next parents."""
        if seen.reached < math.inf:
            return
        self._ended.append(seen)
        if len(self._ended) == POPULATION:
            self.parents, self._ended = self._survivors([*self.parents, *self._ended]), []

    def ask(self) -> Proposal:
        """A child; in the first generation, which the portfolio is part of, a candidate at random."""
        if not self.parents:
            return Proposal(self.space.sample(self.rng))
        mother, father = (int(self.rng.integers(len(self.parents), size=2).min()) for _ in range(2))
        child = self.space.cross(self.parents[mother].candidate, self.parents[father].candidate, self.rng)
        return Proposal(self.space.mutate(child, self.rng))

    @abstractmethod
    def ordered(self, costs: Points, settled: int) -> Places:
        """The places in a front, whose costs are those (n, m) after so many of better fronts: whoever is to survive
        first."""

    def _survivors(self, known: Sequence[Seen]) -> list[Seen]:
        costs = -np.array([(one.value, *one.others) for one in known])
        ranks = fronts(costs, np.array([one.excess for one in known]))
        chosen = np.empty(0, dtype=np.int64)
        for rank in range(int(ranks.max()) + 1):
            front = np.flatnonzero(ranks == rank)
            order = self.ordered(costs[np.concatenate([chosen, front])], len(chosen))
            chosen = np.concatenate([chosen, front[order]])[:POPULATION]
            if len(chosen) == POPULATION:
                break
        return [known[int(place)] for place in chosen]


class Nsga2(Genetic):
    """Crosses and mutates what nothing dominates, by crowding distance; for several objectives or one."""

    name: ClassVar[str] = "nsga2"
    paper: ClassVar[str] = "Deb et al. 2002"

    def ordered(self, costs: Points, settled: int) -> Places:
        """The least crowded ones first."""
        return np.argsort(-crowding(costs[settled:]), kind="stable")


class Nsga3(Genetic):
    """Crosses and mutates what nothing dominates, by reference points; for three objectives or more."""

    name: ClassVar[str] = "nsga3"
    paper: ClassVar[str] = "Deb & Jain 2014"

    def ordered(self, costs: Points, settled: int) -> Places:
        """By turns of the reference points with the fewest survivors: of one that has none the nearest first, of others
        any."""
        near, distances = associated(normalised(costs), references(costs.shape[1]))
        counts = np.bincount(near[:settled], minlength=near.max() + 1)
        waiting, order = list(range(settled, len(costs))), []
        while waiting:
            own = near[waiting]
            least = self.rng.choice(np.unique(own[counts[own] == counts[own].min()]))
            members = [place for place in waiting if near[place] == least]
            first = counts[least] == 0
            taken = min(members, key=distances.__getitem__) if first else int(self.rng.choice(members))
            waiting.remove(taken)
            order.append(taken - settled)
            counts[least] += 1
        return np.array(order, dtype=np.int64)


def fronts(costs: Points, excess: Points) -> Places:
    """The front (n,) of each point with its costs (n, m) and what it breaks the constraints by (n,): 0 where nothing
    dominates it, 1 where nothing else does, and so on.

    >>> fronts(np.array([[0, 2], [1, 1], [1, 2], [0, 0], [9, 9]]), np.array([0, 0, 0, 0.5, 0.1])).tolist()
    [0, 0, 1, 3, 2]
    """
    better = (costs[:, None] <= costs).all(axis=2) & (costs[:, None] < costs).any(axis=2)
    dominates = (excess[:, None] < excess) | better & (excess[:, None] + excess == 0)
    ranks, rank = np.full(len(costs), -1, dtype=np.int64), 0
    while (left := ranks < 0).any():
        ranks[left & ~(dominates & left[:, None]).any(axis=0)] = rank
        rank += 1
    return ranks


def crowding(costs: Points) -> Points:
    """How far apart the neighbours of each point (n, m) are, beside the range of the front, added up over objectives
    (n,); infinite for the ends of the front.

    >>> crowding(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0], [2.0, 1.0]])).tolist()
    [inf, 1.25, inf, 1.25]
    """
    out = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        known = column[order]
        if known[0] == known[-1]:
            continue
        below, above = np.append(-np.inf, known[:-1]), np.append(known[1:], np.inf)
        finite = known[np.isfinite(known)]
        gaps = np.subtract(above, below, out=np.zeros_like(known), where=above != below)
        out[order] += gaps / ((np.ptp(finite) if len(finite) else 0.0) or 1.0)
    return out


def references(objectives: int) -> Points:
    """Points (h, m) spread evenly on the plane where shares add up to 1 (Das & Dennis 1998): as many as a generation
    has trials, or a few less.

    >>> references(2).shape, references(3).shape, references(4).shape
    ((16, 2), (15, 3), (10, 4))
    """
    parts = 1
    while objectives > 1 and math.comb(objectives + parts, parts + 1) <= POPULATION:
        parts += 1
    drawn = np.array(list(combinations_with_replacement(range(objectives), parts)))
    return np.stack([(drawn == each).mean(axis=1) for each in range(objectives)], axis=1)


def normalised(costs: Points) -> Points:
    """Costs (n, m) from the ideal point, in units of where the plane through the extreme points meets each axis; of the
    greatest cost where there is no such plane."""
    worst = np.where(np.isfinite(costs), costs, -np.inf).max(axis=0)
    moved = np.minimum(costs, np.where(np.isfinite(worst), worst, 0.0))
    moved -= moved.min(axis=0)
    weights = np.where(np.eye(costs.shape[1]) == 1, 1.0, 1e6)
    extremes = moved[(moved[:, None] * weights).max(axis=2).argmin(axis=0)]
    units = moved.max(axis=0)
    if np.linalg.matrix_rank(extremes) == len(extremes):
        plane = np.linalg.solve(extremes, np.ones(len(extremes)))
        units = np.where(plane > 0, 1 / np.where(plane > 0, plane, 1.0), units)
    return moved / np.where(units > 0, units, 1.0)


def associated(points: Points, among: Points) -> tuple[Places, Points]:
    """The reference point (n,) whose line from the ideal point is nearest to each point (n, m), and how far (n,)."""
    lines = among / np.linalg.norm(among, axis=1, keepdims=True)
    along = points @ lines.T
    distances = np.linalg.norm(points[:, None] - along[:, :, None] * lines, axis=2)
    near = distances.argmin(axis=1)
    return near, distances[np.arange(len(points)), near]
