"""Hidden units, which one linear map makes and one other reads, and networks with fewer of them (structured pruning).

Linear layers and convolutions that run one after the other have such units between them: each is a row of the first
one's weights and a column of the second one's, and nothing else looks at it. Normalisations and depthwise convolutions
carry a unit in its place, and lose it with them. What a sum reads, as behind a skip connection, is no hidden unit: it
would have to be taken from all who add to it. A network built with a share of its units has the very shapes of one that
was trained with all of them and pruned to that share.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from retrain.families.base import Candidate
from retrain.families.image_operations import GatedConvolution, GlobalMean
from retrain.families.parameters import KEPT, Choice
from retrain.families.table_operations import Gated

Map: TypeAlias = nn.Linear | nn.Conv2d
_PASSING = (nn.ReLU, nn.SiLU, nn.ELU, nn.Sigmoid, nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, GlobalMean)
_NORMALISING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


@runtime_checkable
class InTurn(Protocol):
    """A module, not itself a sequence, that runs others one after the other."""

    def in_turn(self) -> Iterable[nn.Module]:
        """Them, in their order."""


@dataclass(frozen=True)
class Hidden:
    """Hidden units: who makes them (two numbers for each where one gates the other), who carries them, who reads."""

    maker: Map
    carriers: tuple[nn.Module, ...]
    reader: Map

    @property
    def count(self) -> int:
        """How many there are."""
        return self.reader.weight.shape[1]

    @torch.no_grad()
    def keep(self, units: Tensor) -> None:
        """Take all but these units (k,) away."""
        given = len(self.maker.weight) // self.count
        made = torch.cat([units + self.count * part for part in range(given)])
        _select(self.maker, made, 0)
        for one in self.carriers:
            _select(one, units, 0)
        _select(self.reader, units, 1)


def kept_share(choices: Mapping[str, Choice]) -> float:
    """The share of its hidden units that a candidate with these choices keeps."""
    return float(choices.get(KEPT, 1.0))


def unpruned(candidate: Candidate) -> Candidate:
    """The candidate with all of its hidden units."""
    return candidate.model_copy(update={"choices": {**candidate.choices, KEPT: 1.0}})


def hidden_units(network: nn.Module) -> list[Hidden]:
    """All hidden units of a network, layer by layer."""
    found: dict[int, Hidden] = {}
    for module in network.modules():  # a longer run comes before those in it
        for one in _between(_in_turn(module)):
            found.setdefault(id(one.maker), one)
    return list(found.values())


def prune(network: nn.Module, share: float, worth: Sequence[Tensor] = ()) -> None:
    """Keep a share of the units of every layer, at least one: those worth (units,) most, in their order. Without
    `worth`, the first: the units of an untrained network are alike."""
    for place, hidden in enumerate(hidden_units(network)):
        most = max(1, math.floor(share * hidden.count + 0.5))
        order = torch.argsort(worth[place], descending=True, stable=True) if worth else torch.arange(hidden.count)
        hidden.keep(order[:most].sort().values)


def _in_turn(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that run one after the other where this one runs, none of which is a run of others."""
    if isinstance(module, InTurn):
        parts = module.in_turn()
    elif isinstance(module, (nn.Sequential, Gated, GatedConvolution)):
        parts = module.children()
    else:
        yield module
        return
    for one in parts:
        yield from _in_turn(one)


def _between(modules: Iterator[nn.Module]) -> Iterator[Hidden]:
    maker: Map | None = None
    carriers: list[nn.Module] = []
    for one in modules:
        if isinstance(one, _NORMALISING) or (isinstance(one, nn.Conv2d) and one.groups > 1):
            carriers.append(one)
        elif isinstance(one, (nn.Linear, nn.Conv2d)):
            if maker is not None:
                yield Hidden(maker, tuple(carriers), one)
            maker, carriers = one, []
        elif not isinstance(one, _PASSING):
            maker = None


@torch.no_grad()
def _select(module: nn.Module, places: Tensor, axis: int) -> None:
    for name, one in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if one.dim() > axis:
            chosen = one.detach().index_select(axis, places)
            setattr(module, name, nn.Parameter(chosen) if isinstance(one, nn.Parameter) else chosen)
    for name in _sizes(module, axis):
        setattr(module, name, len(places))
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(places),)


def _sizes(module: nn.Module, axis: int) -> tuple[str, ...]:
    """What a module calls the size of an axis of its weights."""
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return "in_channels", "out_channels", "groups"
    if isinstance(module, nn.Conv2d):
        return ("in_channels",) if axis else ("out_channels",)
    if isinstance(module, nn.Linear):
        return ("in_features",) if axis else ("out_features",)
    return {nn.LayerNorm: (), nn.GroupNorm: ("num_channels",)}.get(type(module), ("num_features",))
