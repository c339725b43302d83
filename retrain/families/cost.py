"""What a built network costs: parameters, and floating-point operations of a pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """How many numbers are trained; one that two layers share counts once."""
    return sum(one.numel() for one in network.parameters())


def flops(network: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one pass over these inputs, all rows together, in evaluation mode: those of matrix
    products and convolutions, a multiplication and an addition counting as two. Sums, activations and normalisations
    are not counted: they cost memory traffic rather than arithmetic."""
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(*inputs)
    network.train(training)
    return int(counter.get_total_flops())
