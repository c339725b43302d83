"""Where a strategy looks at networks before it proposes them: untrained ones, and supernets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from registry.metrics import Problem
from retrain.batches import Rows, count_batches
from retrain.families.base import Candidate, Network
from retrain.families.catalogue import build
from retrain.families.cost import flops, parameters
from retrain.families.hidden import unpruned
from retrain.families.sharing import Mixture
from retrain.families.supernet import supernet
from retrain.search.geometry import Encoding
from retrain.search.inputs import Layout
from retrain.search.proxies import naswot, synflow

LOOKED_AT = 32
"""Training rows that an untrained network is shown."""
FEW, MORE = 2, 6
"""Rows whose passes tell how long an epoch takes: so few that even a network that is much too large is soon known."""

STEPS = 3
"""Steps of which the quickest tells how long a training will be."""


@dataclass(frozen=True)
class Workshop:
    """A task's training rows and what networks on them look like. `seconds` tells how much time is left, `at_most` how
    long one training may take."""

    problem: Problem
    layout: Layout
    d_out: int
    rows: Callable[[str], Rows]
    seconds: Callable[[], float]
    seed: int = 0
    at_most: float = math.inf
    _known: dict[str, Encoding] = field(default_factory=dict)
    _paces: dict[str, float] = field(default_factory=dict)

    def network(self, candidate: Candidate, seed: int | None = None) -> Network:
        """The untrained network of a candidate, the same at every call with this seed."""
        torch.manual_seed(self.seed if seed is None else seed)
        return build(candidate, len(self.layout.numeric), self.layout.cardinalities, self.d_out, self.layout.image)

    def supernet(self, candidate: Candidate) -> tuple[Network, Mixture]:
        """The supernet under a candidate's template, and what steers it."""
        torch.manual_seed(self.seed)
        return supernet(candidate, len(self.layout.numeric), self.layout.cardinalities, self.d_out, self.layout.image)

    def proxies(self, candidate: Candidate) -> Encoding:
        """Logarithms of the numbers of parameters and of operations for a row, synflow, NASWOT (4,); minus infinity
        where one cannot be told."""
        if candidate.key not in self._known:
            self._known[candidate.key] = self._look(candidate)
        return self._known[candidate.key]

    def epoch_seconds(self, candidate: Candidate) -> float:
        """About how many CPU-seconds an epoch of a candidate's training takes; the same at every call."""
        if candidate.key not in self._paces:
            self._paces[candidate.key] = self._pace(candidate)
        return self._paces[candidate.key]

    def training_seconds(self, candidate: Candidate) -> float:
        """About how many CPU-seconds a candidate for a table trains for at most: that of a step there and back through
        its untrained network, and as much again by half for the optimizer's, times all steps."""
        rows = self.rows(candidate.text("scaling"))
        size, epochs = min(candidate.count("batch_size"), len(rows)), candidate.count("epochs")
        network, batch = self.network(unpruned(candidate)).train(), rows.take(torch.arange(size))
        _, *taken = (_seconds(network, batch) for _ in range(1 + STEPS))  # the first is longer than others
        return 1.5 * min(taken) * count_batches(len(rows), size) * epochs

    def _pace(self, candidate: Candidate) -> float:
        """By passes forth and back over few rows and over more: what a step takes is linear in its rows. Of one that is
        pruned, what it takes before."""
        rows, batch = self.rows(candidate.text("scaling")), candidate.count("batch_size")
        network = self.network(unpruned(candidate)).train()
        counts = (FEW, FEW, min(MORE, len(rows)))  # the first pass is longer than others, and not looked at
        _, few, more = (_seconds(network, rows.take(torch.arange(count))) for count in counts)
        each = max((more - few) / (MORE - FEW), 0.0)
        return count_batches(len(rows), batch) * max(more, more + each * (min(batch, len(rows)) - MORE))

    def _look(self, candidate: Candidate) -> Encoding:
        rows = self.rows(candidate.text("scaling"))
        shown = rows.take(torch.arange(min(LOOKED_AT, len(rows)))).inputs
        ones = [torch.ones_like(one[:1]) if one.is_floating_point() else torch.zeros_like(one[:1]) for one in shown]
        if self.layout.image is not None:
            ones[-1] = torch.full_like(shown[-1][:1], 255)
        network = self.network(candidate)
        sizes = (parameters(network), flops(network, *(one[:1] for one in shown)))
        return np.asarray([*map(math.log, sizes), synflow(network, *ones), naswot(network, *shown)])


def _seconds(network: Network, rows: Rows) -> float:
    begun = time.thread_time()
    network(*rows.inputs).square().mean().backward()
    return time.thread_time() - begun
