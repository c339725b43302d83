"""REINFORCE (Williams 1992) as a controller of architectures (Zoph & Le 2016, "Neural Architecture Search with
Reinforcement Learning"), with one softmax a decision instead of a recurrent network, as NAS-Bench-201 has it (Dong &
Yang 2020): with a hundred trainings there is nothing a recurrent controller could learn."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import ClassVar

import numpy as np

from retrain.families.parameters import Choice
from retrain.search.geometry import Encoding, Space, levels, nearest
from retrain.search.strategies.base import AskTell, Proposal, Seen

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.999
BASELINE = 0.9


class Reinforce(AskTell):
    """A policy of one softmax a decision, moved along the gradient of its candidates' scores."""

    name: ClassVar[str] = "reinforce"
    paper: ClassVar[str] = "Zoph & Le 2016"

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.logits: dict[str, Encoding] = {}
        self.values: list[float] = []
        self._baseline: float | None = None
        self._first: dict[str, Encoding] = {}
        self._second: dict[str, Encoding] = {}
        self._shares: dict[str, list[float]] = {}
        self._steps: Counter[str] = Counter()

    def tell(self, seen: Seen) -> None:
        """One step of Adam on advantage times the gradient of the candidate's log-probability. Scores are divided by
        their spread so far: accuracies and losses have different scales."""
        self.values.append(seen.value)
        baseline = seen.value if self._baseline is None else self._baseline
        self._baseline = BASELINE * baseline + (1 - BASELINE) * seen.value
        spread = float(np.std(self.values))
        if spread > 0:
            self._step(seen, float(np.clip((seen.value - baseline) / spread, -3, 3)))

    def ask(self) -> Proposal:
        """A candidate drawn from the policy."""
        return Proposal(self.space.decide(self._draw))

    def _draw(self, label: str, values: tuple[Choice, ...]) -> Choice:
        """By the decision's cumulated shares, which are kept until it is learnt from: a policy that is sure of itself
        draws what it has drawn before many times in a row."""
        if label not in self._shares:
            shares = _softmax(self._logits(label)).cumsum()
            self._shares[label] = (shares / shares[-1]).tolist()
        return values[bisect_right(self._shares[label], self.rng.random())]

    def _logits(self, label: str) -> Encoding:
        """Of one decision: at first, the user's weights."""
        if label not in self.logits:
            self.logits[label] = np.log(self.space.odds(label))
        return self.logits[label]

    def _step(self, seen: Seen, advantage: float) -> None:
        chosen = self.space.params(seen.candidate)
        for label, parameter in self.space.dimensions(seen.candidate):
            values = levels(parameter)
            logits = self._logits(label)
            gradient = -_softmax(logits)
            gradient[nearest(values, chosen[label])] += 1
            self._shares.pop(label, None)
            logits += RATE * self._adam(label, advantage * gradient)

    def _adam(self, label: str, gradient: Encoding) -> Encoding:
        self._steps[label] += 1  # its own: a decision that is seldom met is not corrected for steps of others
        first = MOMENTUM * self._first.get(label, np.zeros_like(gradient)) + (1 - MOMENTUM) * gradient
        second = DECAY * self._second.get(label, np.zeros_like(gradient)) + (1 - DECAY) * gradient**2
        self._first[label], self._second[label] = first, second
        root = np.sqrt(second / (1 - DECAY ** self._steps[label])) + 1e-8
        moved: Encoding = first / (1 - MOMENTUM ** self._steps[label]) / root
        return moved


def _softmax(logits: Encoding) -> Encoding:
    powers = np.exp(logits - logits.max())
    shares: Encoding = powers / powers.sum()
    return shares
