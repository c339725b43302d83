"""Q-learning of architectures (Baker, Gupta, Naik & Raskar 2016, "Designing Neural Network Architectures using
Reinforcement Learning", MetaQNN): decisions in sequence, an epsilon-greedy agent, experience replayed."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np

from retrain.families.parameters import Choice
from retrain.search.geometry import Space, levels, nearest
from retrain.search.strategies.base import AskTell, Proposal, Seen

RATE = 0.1
REPLAYED = 30
EXPLORATION = ((20, 1.0), (30, 0.8), (40, 0.6), (55, 0.4), (75, 0.2))
"""The share of random decisions up to so many trials: the paper's descent in as many trials as a user can afford."""
LEAST = 0.1

UNKNOWN = 0.5
TRACE = 0.8
"""How much of the reward itself reaches a decision, the rest coming from the worth of the next one: a state that knows
one decision alone would tell the earlier ones nothing about their own."""

FEW = 2
"""A state met less often than so many times a value is no guide: the decision without what came before it is."""

State = tuple[str, Choice | None]
"""A decision and the one before it (None: whatever it was): a table of whole prefixes would never be filled."""
Step = tuple[State, int]


class QLearning(AskTell):
    """An agent that learns what each decision is worth after the one before it, and explores less and less."""

    name: ClassVar[str] = "q-learning"
    paper: ClassVar[str] = "Baker et al. 2016"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.values: list[float] = []
        self.worth: dict[State, list[float]] = {}
        self._walks: list[list[Step]] = []
        self._met: Counter[State] = Counter()

    def tell(self, seen: Seen) -> None:
        """Learn from this walk, and from some of those before once more. The reward is the share of candidates so far
        that a candidate beats: scores have no scale of their own."""
        self.values.append(seen.value)
        self._walks.append(self._walk_of(seen))
        rewards = (np.argsort(np.argsort(self.values)) + 0.5) / len(self.values)
        again = self.rng.integers(len(self.values), size=min(REPLAYED, len(self.values)))
        for place in (len(self.values) - 1, *again):
            self._learn(self._walks[int(place)], float(rewards[place]))

    def ask(self) -> Proposal:
        """A walk: each decision at random by epsilon, else the one worth most."""
        epsilon = next((share for until, share in EXPLORATION if len(self.values) < until), LEAST)
        before: list[Choice | None] = [None]

        def choose(label: str, values: tuple[Choice, ...]) -> Choice:
            known = self._known(label, before[-1], len(values))
            most = max(known)
            best = [value for value, worth in zip(values, known, strict=True) if worth == most]
            greedy = self.rng.random() >= epsilon
            chosen = best[int(self.rng.integers(len(best)))] if greedy else self.space.draw(label, self.rng)
            before.append(chosen)
            return chosen

        return Proposal(self.space.decide(choose))

    def _known(self, label: str, before: Choice | None, count: int) -> list[float]:
        """What each way to take a decision is worth. In plain lists, of a few numbers: arrays would take longer."""
        often = self._met[label, before] >= FEW * count
        return self.worth.get((label, before if often else None)) or [UNKNOWN] * count

    def _walk_of(self, seen: Seen) -> list[Step]:
        chosen, out = self.space.params(seen.candidate), []
        before: Choice | None = None
        for label, parameter in self.space.dimensions(seen.candidate):
            values = levels(parameter)
            place = nearest(values, chosen[label])
            for state in ((label, before), (label, None)):
                self.worth.setdefault(state, [UNKNOWN] * len(values))
            self._met[label, before] += 1
            out.append(((label, before), place))
            before = values[place]
        return out

    def _learn(self, walk: list[Step], reward: float) -> None:
        """Q(lambda) (Watkins 1989), from the end, where the reward is; undiscounted."""
        target = reward
        for state, place in reversed(walk):
            for known in (self.worth[state[0], None], self.worth[state]):
                known[place] += RATE * (target - known[place])
            target = TRACE * reward + (1 - TRACE) * max(self._known(*state, len(known)))
