"""ENAS (Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing"): a controller draws paths,
shared weights learn along them, and in turn the controller learns which do well. The controller is one softmax a
decision: see `reinforce.py` for why it has no recurrent network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from retrain.families.sharing import Path
from retrain.search.strategies.weight_sharing import RANKED, Shared, WeightSharing

RATE, ENTROPY, BASELINE = 0.02, 1e-2, 0.95
EVERY = 4
"""Steps of the weights for each step of the controller."""


class Enas(WeightSharing):
    """A controller learns to draw architectures that do well with weights which all of them share."""

    name: ClassVar[str] = "enas"
    paper: ClassVar[str] = "Pham et al. 2018"
    held: ClassVar[float] = 0.3

    def search(self, shared: Shared, until: float) -> Sequence[Path]:
        """Weights and controller in turn; then the best of what the controller draws."""
        logits = [torch.zeros(len(one.values), requires_grad=True) for one in self.decisions]
        optimizer, baseline = torch.optim.Adam(logits, lr=RATE), None
        judging = shared.batches(shared.judging)
        for step, batch in enumerate(shared.batches(shared.training), start=1):
            shared.mixture.one(self._path(self._draw(logits)))
            shared.learn(batch)
            if step % EVERY == 0:
                drawn = self._draw(logits)
                reward = -shared.loss_of(self._path(drawn), next(judging))
                baseline = reward if baseline is None else BASELINE * baseline + (1 - BASELINE) * reward
                told = [torch.log_softmax(one, dim=0) for one in logits]
                likely = torch.stack([one[place] for one, place in zip(told, drawn, strict=True)]).sum()
                order = torch.stack([(one.exp() * one).sum() for one in told]).sum()
                optimizer.zero_grad(set_to_none=True)
                (-(reward - baseline) * likely + ENTROPY * order).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if time.monotonic() > until:
                break
        return shared.ranked([self._path(self._draw(logits)) for _ in range(RANKED)])

    def _draw(self, logits: Sequence[Tensor]) -> list[int]:
        """A value of each decision, by its number."""
        shares = [torch.softmax(one.detach(), dim=0).double().numpy() for one in logits]
        return [int(self.rng.choice(len(one), p=one / one.sum())) for one in shares]

    def _path(self, drawn: Sequence[int]) -> Path:
        return tuple(one.values[place] for one, place in zip(self.decisions, drawn, strict=True))
