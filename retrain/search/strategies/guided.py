"""Strategies that learn to predict scores: a model of what was seen ranks a pool of candidates that were not."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import numpy as np

from retrain.families.base import Candidate
from retrain.search.geometry import Encoding, Space
from retrain.search.strategies.base import AskTell, Proposal, Seen
from retrain.search.strategies.gaussian import Gaussian, improvement
from retrain.search.taught import Informed

STARTUP = 10
PARENTS, CHILDREN, STRANGERS = 5, 20, 60
"""The pool: children of the best candidates, by one mutation or two, and strangers."""
REFIT = 10
HANDED = 60
"""Candidates of former studies in the pool, where there are any."""


class Guided(AskTell):
    """A pool of candidates around the best and far from them; the most promising by a model is next."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.seen: list[Seen] = []
        self.places: list[Encoding] = []
        self._known: set[str] = set()

    def tell(self, seen: Seen) -> None:
        """Remember it; one that breaks a constraint is the worst of all: the like of it can be in no model."""
        self.seen.append(seen if seen.allowed else replace(seen, value=-math.inf))
        self.places.append(self.place(seen.candidate))
        self._known.add(self.space.canonical(seen.candidate))

    def pass_over(self, candidate: Candidate) -> None:
        """It is in no pool any more."""
        self._known.add(self.space.canonical(candidate))

    def ask(self) -> Proposal:
        """A candidate at random at first, then the most promising of a pool."""
        if len(self.seen) < STARTUP:
            return Proposal(self.space.sample(self.rng))
        return self.most_promising(self.pool())

    def most_promising(self, pool: Sequence[Proposal]) -> Proposal:
        """The best of a pool by the model."""
        worth = self.worth(np.stack([self.place(one.candidate) for one in pool]))
        return pool[int(np.argmax(worth))]

    def place(self, candidate: Candidate) -> Encoding:
        """What the model is told of a candidate (d,)."""
        return self.space.encode(candidate)

    @property
    def scores(self) -> Encoding:
        """What was seen, as the normal quantiles of its ranks (n,): one network that fails would otherwise be all that
        the model sees, and the best alike (Salinas, Shen & Perrone 2020, section 3)."""
        from scipy.stats import norm, rankdata

        told = [one.value for one in self.seen]
        return np.asarray(norm.ppf((rankdata(told) - 0.5) / len(told)))

    def best(self, count: int) -> Sequence[Seen]:
        """The best of those seen."""
        return sorted(self.seen, key=lambda one: one.value, reverse=True)[:count]

    def pool(self) -> list[Proposal]:
        """Candidates not seen before, where there are any."""
        made = [Proposal(self.space.sample(self.rng)) for _ in range(STRANGERS)]
        for parent in self.best(PARENTS):
            for turn in range(CHILDREN):
                child = self.space.mutate(parent.candidate, self.rng)
                made.append(Proposal(self.space.mutate(child, self.rng) if turn % 2 else child, parent.number))
        return [one for one in made if self.space.canonical(one.candidate) not in self._known] or made

    @abstractmethod
    def worth(self, places: Encoding) -> Encoding:
        """How promising candidates at these places (m, d) are, (m,); greater is better."""


class GaussianGuided(Guided):
    """Bayesian optimisation: a Gaussian process on encodings, expected improvement over a pool of candidates."""

    name: ClassVar[str] = "gp"
    paper: ClassVar[str] = "Snoek, Larochelle & Adams 2012"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self._kept: tuple[float, float] | None = None
        self._fitted = 0
        self.taught = space.taught if self.learns_from_others else None

    def forget(self) -> None:
        """A plain process."""
        self.taught = None

    def ask(self) -> Proposal:
        """The best by former studies, as soon as something was seen by the process that they inform; without any, as
        every guided strategy asks."""
        if self.taught is None:
            return super().ask()
        others = (Proposal(one) for one in self.taught.candidates if self.space.canonical(one) not in self._known)
        handed = list(islice(others, HANDED))
        if not self.seen:
            return handed[0] if handed else Proposal(self.space.sample(self.rng))
        return self.most_promising([*handed, *self.pool()])

    def worth(self, places: Encoding) -> Encoding:
        """Expected improvement over the best expected one: the best score seen is the luckiest, too."""
        model = self.fit()
        known, _ = model.predict(np.stack(self.places))
        return improvement(*model.predict(places), float(known.max()))

    def fit(self) -> Gaussian | Informed:
        """The process of all that was seen; its length and noise are chosen anew every tenth time."""
        if self.taught is not None:
            return Informed.fit(self.taught, np.stack(self.places), self.scores)
        if self._kept is None or len(self.seen) >= self._fitted + REFIT:
            self._kept, self._fitted = None, len(self.seen)
        model = Gaussian.fit(np.stack(self.places), self.scores, self._kept)
        self._kept = (model.length, model.noise)
        return model
