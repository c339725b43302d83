"""Weights on an int8 grid: whole numbers from -127 to 127, times a scale for each output channel (symmetric weight
quantisation, Jacob et al. 2018, arXiv 1712.05877; Krishnamoorthi 2018, arXiv 1806.08342).

Activations stay floats: a network whose weights lie on the grid is the same function in torch, which has their
products, and in a graph that holds whole numbers and scales in a quarter of the bytes. On it are the weights of linear
layers and convolutions, a scale for each row of them, and tables of embeddings, whose output channels are columns: a
scale for each row of a few numbers would take as much as it spares. Biases, normalisations and the frequencies of
numbers are not: they are few, and an error of a frequency is multiplied by 2 pi x.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from retrain.families.base import Network

STEPS = 127
NODE = 128
"""Bytes, about, of the node of a graph that makes floats of whole numbers, with its names."""


def snapped(network: nn.Module) -> nn.Module:
    """The network as it is kept and served: itself, or where that is int8 a copy with its weights on the grid, each on
    the nearest point. Weights that are not finite stay so."""
    if not (isinstance(network, Network) and network.int8):
        return network
    network = copy.deepcopy(network)
    with torch.no_grad():
        for weights, axis in _weights(network):
            whole, scales = whole_numbers(weights, axis)
            weights.copy_(whole * scales)
    return network


def whole_numbers(weights: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The points of the grid that are nearest to weights: whole numbers in their shape, still as floats, and scales to
    be multiplied with, one for each place of the axis."""
    others = [one for one in range(weights.dim()) if one != axis]
    scales = weights.abs().amax(others, keepdim=True) / STEPS
    scales = scales.where(scales > 0, 1.0)
    return (weights / scales).round().clamp(-STEPS, STEPS), scales


def spared(shape: tuple[int, ...], axis: int) -> int:
    """Bytes that weights of this shape take less as int8 than as float32; below 0 where that is more.

    >>> spared((128, 64), 0), spared((64, 1), 0)
    (23936, -192)
    """
    return 3 * torch.Size(shape).numel() - 4 * shape[axis] - NODE


def spared_by(network: nn.Module) -> int:
    """Bytes that a network takes less in a graph than as float32."""
    if not (isinstance(network, Network) and network.int8):
        return 0
    return sum(max(0, spared(tuple(weights.shape), axis)) for weights, axis in _weights(network))


def _weights(network: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Those that are on the grid, and the axis of their output channels."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            yield module.weight, int(isinstance(module, nn.Embedding))
