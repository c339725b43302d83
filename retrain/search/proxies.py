"""What an untrained network tells of itself: scores without training (Abdelfattah et al. 2021, "Zero-Cost Proxies for
Lightweight NAS")."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

ACTIVATED = (nn.ReLU, nn.SiLU, nn.ELU)


def synflow(network: nn.Module, *inputs: Tensor) -> float:
    """The logarithm of the sum of weight times gradient, all weights positive (Tanaka et al. 2020, eq. 3, which the
    benchmarks of proxies sum up): how much flows through a network. Minus infinity where nothing does."""
    positive = copy.deepcopy(network).eval().double()
    with torch.no_grad():
        for one in positive.parameters():
            one.abs_()
    told = positive(*(one.double() if one.is_floating_point() else one for one in inputs)).sum()
    told.backward()
    flow = sum(float((one.detach() * one.grad).sum()) for one in positive.parameters() if one.grad is not None)
    return math.log(flow) if flow > 0 and math.isfinite(flow) else -math.inf


@torch.no_grad()
def naswot(network: nn.Module, *inputs: Tensor) -> float:
    """The logarithm of the determinant of the kernel of activation patterns (Mellor et al. 2021, eq. 2): how well an
    untrained network tells rows from one another. Minus infinity where it does not."""
    rows = len(inputs[0])
    kernel = torch.zeros(rows, rows, dtype=torch.float64)

    def note(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        on = (given[0] > 0).flatten(1).double()
        kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    hooks = [one.register_forward_hook(note) for one in network.modules() if isinstance(one, ACTIVATED)]
    training = network.training
    network.train()
    network(*inputs)
    network.train(training)
    for hook in hooks:
        hook.remove()
    sign, value = torch.linalg.slogdet(kernel)
    return float(value) if sign > 0 and math.isfinite(float(value)) else -math.inf
