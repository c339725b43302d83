"""Where a strategy looks at networks before it proposes them: untrained ones, and supernets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from registry.metrics import Problem
from retrain.batches import Rows
from retrain.families.base import Candidate, Network
from retrain.families.catalogue import build
from retrain.families.cost import flops, parameters
from retrain.families.supernet import Mixture, supernet
from retrain.search.geometry import Encoding
from retrain.search.plan import Layout
from retrain.search.proxies import naswot, synflow

LOOKED_AT = 32
"""Training rows that an untrained network is shown."""


@dataclass(frozen=True)
class Workshop:
    """A task's training rows and what networks on them look like. `seconds` tells how much time is left."""

    problem: Problem
    layout: Layout
    d_out: int
    rows: Callable[[str], Rows]
    seconds: Callable[[], float]
    seed: int = 0
    _known: dict[str, Encoding] = field(default_factory=dict)

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

    def _look(self, candidate: Candidate) -> Encoding:
        rows = self.rows(candidate.text("scaling"))
        shown = rows.take(torch.arange(min(LOOKED_AT, len(rows)))).inputs
        ones = [torch.ones_like(one[:1]) if one.is_floating_point() else torch.zeros_like(one[:1]) for one in shown]
        if self.layout.image is not None:
            ones[-1] = torch.full_like(shown[-1][:1], 255)
        network = self.network(candidate)
        sizes = (parameters(network), flops(network, *(one[:1] for one in shown)))
        return np.asarray([*map(math.log, sizes), synflow(network, *ones), naswot(network, *shown)])
