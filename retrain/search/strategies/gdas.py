"""GDAS (Dong & Yang 2019, "Searching for a Robust Neural Architecture in Four GPU Hours"): as DARTS, but each step runs
one value a decision, drawn by Gumbel-softmax, the gradient going straight through the draw."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from retrain.search.strategies.darts import Differentiable
from retrain.search.strategies.weight_sharing import Shared

WARM, COLD = 10.0, 0.1


class Gumbel(Differentiable):
    """As `darts`, with one value of each decision drawn at each step: as cheap as one network."""

    name: ClassVar[str] = "gdas"
    paper: ClassVar[str] = "Dong & Yang 2019"

    def mix(self, logits: Tensor, done: float, shared: Shared) -> Tensor:
        """One-hot by Gumbel-softmax (Jang et al. 2017), the temperature falling from `WARM` to `COLD`."""
        temperature = WARM + (COLD - WARM) * min(done, 1.0)
        drawn = torch.rand(logits.shape, generator=shared.generator).clamp(min=1e-9)
        soft = torch.softmax((logits - torch.log(-torch.log(drawn))) / temperature, dim=0)
        hard = torch.zeros_like(soft).scatter_(0, soft.argmax(dim=0, keepdim=True), 1.0)
        return hard - soft.detach() + soft
