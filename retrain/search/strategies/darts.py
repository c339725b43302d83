"""DARTS (Liu, Simonyan & Yang 2018, "DARTS: Differentiable Architecture Search"), first order: every edge mixes all
operations, and the shares of the mixture follow the gradient on rows that the weights do not learn from.

Skip connections are the easy way down that gradient, and the longer it is followed the more of them there are: on
NAS-Bench-201 the cell that DARTS ends with is nothing else (Dong & Yang 2020). The guard stops the mixture once more
than `MOST_SKIPS` edges have a skip connection as their greatest share (Liang et al. 2019, "DARTS+"), and goes back to
where it was before; `skips` tells how many there were, step by step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from retrain.families.cell import OPERATIONS
from retrain.families.supernet import PLACES
from retrain.families.wiring import NONE, SKIP
from retrain.search.strategies.weight_sharing import RANKED, Cell, Shared, WeightSharing, steered

RATE, DECAY = 0.02, 1e-3
MOST_SKIPS = 2


class Differentiable(WeightSharing):
    """Mixes all operations at every edge and moves their shares along the gradient; stopped before skip connections
    take over."""

    name: ClassVar[str] = "darts"
    paper: ClassVar[str] = "Liu, Simonyan & Yang 2018"
    held: ClassVar[float] = 0.5
    guarded: ClassVar[bool] = True

    skips: list[int]
    """How many edges had a skip connection as their greatest share, after each step of the shares."""

    def search(self, shared: Shared, until: float) -> Sequence[Cell]:
        """Shares and weights in turn; then cells drawn by the shares, the one of the greatest shares first."""
        logits = self._begin(shared)
        optimizer = torch.optim.Adam([logits], lr=RATE, betas=(0.5, 0.999), weight_decay=DECAY)
        judging, kept, self.skips = shared.batches(shared.judging), logits.detach().clone(), []
        begin = time.monotonic()
        for batch in shared.batches(shared.training):
            done = (time.monotonic() - begin) / max(until - begin, 1e-9)
            optimizer.zero_grad(set_to_none=True)
            steered(self.mix(logits, done, shared), shared.mixture)
            shared.outcome(next(judging)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steered(self.mix(logits, done, shared).detach(), shared.mixture)
            shared.learn(batch)
            self.skips.append(greatest(logits).count(SKIP))
            if self.guarded and self.skips[-1] > MOST_SKIPS:
                break
            kept = logits.detach().clone()
            if done > 1:
                break
        return [greatest(kept), *shared.ranked([self._drawn_by(kept) for _ in range(RANKED)])]

    def _begin(self, shared: Shared) -> Tensor:
        """Shares that are all but equal; no skip connection is the greatest before a step was taken."""
        logits = 1e-3 * torch.randn(len(PLACES), len(OPERATIONS), generator=shared.generator)
        logits[:, OPERATIONS.index(SKIP)] = logits.min()
        return logits.requires_grad_()

    def mix(self, logits: Tensor, done: float, shared: Shared) -> Tensor:
        """The shares (edges, operations) that are on; `done` is how much of the time is over."""
        return torch.softmax(logits, dim=1)

    def _drawn_by(self, logits: Tensor) -> Cell:
        shares = torch.softmax(logits, dim=1).double().numpy()
        return tuple(OPERATIONS[int(self.rng.choice(len(one), p=one / one.sum()))] for one in shares)


def greatest(logits: Tensor) -> Cell:
    """The operation of the greatest share at each edge; none is no operation, as the paper has it."""
    shown = logits.detach().numpy().copy()
    shown[:, OPERATIONS.index(NONE)] = -np.inf
    return tuple(OPERATIONS[int(place)] for place in shown.argmax(axis=1))
