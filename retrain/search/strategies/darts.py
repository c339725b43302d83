"""DARTS (Liu, Simonyan & Yang 2018, "DARTS: Differentiable Architecture Search"), first order: every decision
mixes all its values, and the shares of the mixture follow the gradient on rows that the weights do not learn from.

Skip connections are the easy way down that gradient, and the longer it is followed the more of them there are: on
NAS-Bench-201 the cell that DARTS ends with is nothing else (Dong & Yang 2020). The guard stops the mixture once more
than one in `ONE_SKIP_IN` of the decisions that may be skip connections have one as their greatest share (after Liang et
al. 2019, "DARTS+"), and goes back to where it was before; `skips` tells how many there were, step by step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from retrain.families.sharing import Decision, Path
from retrain.families.wiring import NONE, SKIP
from retrain.search.strategies.weight_sharing import RANKED, Shared, WeightSharing

RATE, DECAY = 0.02, 1e-3
ONE_SKIP_IN = 3


class Differentiable(WeightSharing):
    """Mixes all values of every decision and moves their shares along the gradient; stopped before skip connections
    take over."""

    name: ClassVar[str] = "darts"
    paper: ClassVar[str] = "Liu, Simonyan & Yang 2018"
    held: ClassVar[float] = 0.5
    guarded: ClassVar[bool] = True

    skips: list[int]
    """How many decisions had a skip connection as their greatest share, after each step of the shares."""

    def search(self, shared: Shared, until: float) -> Sequence[Path]:
        """Shares and weights in turn; then paths drawn by the shares, the one of the greatest shares first."""
        logits = self._begin(shared)
        optimizer = torch.optim.Adam(logits, lr=RATE, betas=(0.5, 0.999), weight_decay=DECAY)
        judging, kept, self.skips = shared.batches(shared.judging), _copied(logits), []
        most = sum(SKIP in one.values for one in self.decisions) // ONE_SKIP_IN
        begin = time.monotonic()
        for batch in shared.batches(shared.training):
            done = (time.monotonic() - begin) / max(until - begin, 1e-9)
            optimizer.zero_grad(set_to_none=True)
            shared.mixture.steer([self.mix(one, done, shared) for one in logits])
            shared.outcome(next(judging)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            shared.mixture.steer([self.mix(one, done, shared).detach() for one in logits])
            shared.learn(batch)
            self.skips.append(greatest(logits, self.decisions).count(SKIP))
            if self.guarded and self.skips[-1] > most:
                break
            kept = _copied(logits)
            if done > 1:
                break
        return [greatest(kept, self.decisions), *shared.ranked([self._drawn_by(kept) for _ in range(RANKED)])]

    def _begin(self, shared: Shared) -> list[Tensor]:
        """Shares of each decision that are all but equal; no skip connection is the greatest before the first step."""
        logits = [1e-3 * torch.randn(len(one.values), generator=shared.generator) for one in self.decisions]
        for one, decision in zip(logits, self.decisions, strict=True):
            if SKIP in decision.values:
                one[decision.values.index(SKIP)] = one.min()
        return [one.requires_grad_() for one in logits]

    def mix(self, logits: Tensor, done: float, shared: Shared) -> Tensor:
        """The shares (values,) of a decision that are on; `done` is how much of the time is over."""
        return torch.softmax(logits, dim=0)

    def _drawn_by(self, logits: Sequence[Tensor]) -> Path:
        shares = [torch.softmax(one, dim=0).double().numpy() for one in logits]
        drawn = [int(self.rng.choice(len(one), p=one / one.sum())) for one in shares]
        return tuple(one.values[place] for one, place in zip(self.decisions, drawn, strict=True))


def greatest(logits: Sequence[Tensor], decisions: Sequence[Decision]) -> Path:
    """The value of the greatest share of each decision; none is no operation, as the paper has it."""
    shown = [
        [-np.inf if value == NONE else share for value, share in zip(each.values, one.tolist(), strict=True)]
        for each, one in zip(decisions, logits, strict=True)
    ]
    return tuple(each.values[int(np.argmax(one))] for each, one in zip(decisions, shown, strict=True))


def _copied(logits: Sequence[Tensor]) -> list[Tensor]:
    return [one.detach().clone() for one in logits]
