"""ENAS (Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing"): a controller draws cells,
shared weights learn along them, and in turn the controller learns which do well. The controller is one softmax an edge:
see `reinforce.py` for why it has no recurrent network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from retrain.families.cell import OPERATIONS
from retrain.families.supernet import PLACES
from retrain.search.strategies.weight_sharing import RANKED, Cell, Shared, WeightSharing

RATE, ENTROPY, BASELINE = 0.02, 1e-2, 0.95
EVERY = 4
"""Steps of the weights for each step of the controller."""


class Enas(WeightSharing):
    """A controller learns to draw cells that do well with weights which all of them share."""

    name: ClassVar[str] = "enas"
    paper: ClassVar[str] = "Pham et al. 2018"
    held: ClassVar[float] = 0.3

    def search(self, shared: Shared, until: float) -> Sequence[Cell]:
        """Weights and controller in turn; then the best of what the controller draws."""
        logits = torch.zeros(len(PLACES), len(OPERATIONS), requires_grad=True)
        optimizer, baseline = torch.optim.Adam([logits], lr=RATE), None
        judging = shared.batches(shared.judging)
        for step, batch in enumerate(shared.batches(shared.training), start=1):
            shared.mixture.one(_cell(self._draw(logits)))
            shared.learn(batch)
            if step % EVERY == 0:
                drawn = self._draw(logits)
                reward = -shared.loss_of(_cell(drawn), next(judging))
                baseline = reward if baseline is None else BASELINE * baseline + (1 - BASELINE) * reward
                told = torch.log_softmax(logits, dim=1)
                gain = (reward - baseline) * told.gather(1, drawn[:, None]).sum()
                optimizer.zero_grad(set_to_none=True)
                (-gain + ENTROPY * (told.exp() * told).sum()).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if time.monotonic() > until:
                break
        return shared.ranked([_cell(self._draw(logits)) for _ in range(RANKED)])

    def _draw(self, logits: Tensor) -> Tensor:
        """Operations (edges,) by their numbers."""
        shares = torch.softmax(logits.detach(), dim=1).double().numpy()
        return torch.tensor([int(self.rng.choice(len(one), p=one / one.sum())) for one in shares])


def _cell(drawn: Tensor) -> Cell:
    return tuple(OPERATIONS[int(place)] for place in drawn)
