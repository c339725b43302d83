"""Chains: layers of different kinds and widths, one after the other (the chain-structured space of Wistuba et al. 2019,
section 2.1; layer by layer as in Baker et al. 2017 and Zoph & Le 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from retrain.families.base import ACTIVATIONS, Candidate
from retrain.families.drawing import Drawing
from retrain.families.modality import Modality, Style
from retrain.families.parameters import Choice, Option, Parameter, Real, When, Whole
from retrain.families.sharing import Mixture
from retrain.families.spaces import ArchitectureSpace
from retrain.families.stack import Body

LONGEST = 6
HALVED = 2
"""After so many layers an image is halved."""
POOLING = ("pool", "max")
"""Kinds of layers that have no activation of their own while they keep the width."""


class Chain(Body):
    """Layer after layer. `plan` is the kind, the width and the activation of each."""

    def __init__(
        self, plan: list[tuple[str, int, str]], modality: Modality, style: Style, *, d_in: int, side: int
    ) -> None:
        super().__init__()
        width = plan[0][1]
        self.d_in = d_in
        self.stem = modality.stem(d_in, width, side, style)
        self.layers = nn.ModuleList()
        self.halvings = nn.ModuleList()
        for place, (kind, d_out, activation) in enumerate(plan):
            layer = modality.layers[kind](width, d_out, replace(style, activation=activation))
            self.layers.append(nn.ModuleDict({kind: layer}))
            halved = place % HALVED == HALVED - 1 and place + 1 < len(plan)
            self.halvings.append(modality.halving() if halved else nn.Identity())
            width = d_out
        self.finish = modality.finish(width, replace(style, activation=plan[-1][2]))
        self.d_out = width

    def in_turn(self) -> Iterable[nn.Module]:
        """Stem, layers, each with its halving, and finish."""
        pairs = zip(self.layers, self.halvings, strict=True)
        return self.stem, *(one for layer, halving in pairs for one in (*layer.children(), halving)), self.finish

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d_out)."""
        x = self.stem(x)
        for layers, halving in zip(self.layers, self.halvings, strict=True):
            assert isinstance(layers, nn.ModuleDict)
            for layer in layers.values():
                x = halving(layer(x))
        out: Tensor = self.finish(x)
        return out


class SharedChain(Body):
    """Every kind of layer at every place, all of one width and style, and an end behind each place."""

    def __init__(self, mixture: Mixture, modality: Modality, style: Style, *, width: int, d_in: int, side: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.d_in, self.d_out = d_in, width
        self.stem = modality.stem(d_in, width, side, style)
        self.layers = nn.ModuleList(
            nn.ModuleDict({kind: layer(width, width, style) for kind, layer in modality.layers.items()})
            for _ in range(LONGEST)
        )
        self.halving = modality.halving()
        self.finish = modality.finish(width, style)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d_out): what the chains give that are on, each as much as it is."""
        x = self.stem(x)
        lengths = {int(length): weight for length, weight in self.mixture.on("length").items()}
        ends = []
        for place, layers in enumerate(self.layers, start=1):
            assert isinstance(layers, nn.ModuleDict)
            kinds = self.mixture.on(f"kind_{place}").items()
            x = torch.stack([weight * layers[str(kind)](x) for kind, weight in kinds]).sum(dim=0)
            if place in lengths:
                ends.append(lengths[place] * self.finish(x))
            if place >= max(lengths):
                break
            x = self.halving(x) if place % HALVED == 0 else x
        return torch.stack(ends).sum(dim=0)


class Chains(ArchitectureSpace):
    """One to six layers, each of its own kind, width and activation."""

    name: ClassVar[str] = "chain"
    paper: ClassVar[str] = "Wistuba et al. 2019"
    hidden: ClassVar[bool] = True

    def dimensions(self, modality: Modality) -> tuple[Parameter, ...]:
        """How many layers; kind, width and activation of each that there is; the style of all."""
        return (
            Whole("length", 1, LONGEST),
            *(one for place in range(1, LONGEST + 1) for one in _layer_dimensions(place, modality)),
            Option("normalisation", modality.normalisations),
            Real("dropout", 0.0, 0.5),
        )

    def body(self, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1) -> Chain:
        """The chain of a candidate. Rows of tables come in the first layer's width."""
        plan = _plan(candidate.choices)
        style = Style(plan[0][2], candidate.text("normalisation"), candidate.number("dropout"))
        return Chain(plan, modality, style, d_in=plan[0][1] if d_in is None else d_in, side=side)

    def decisions(self, modality: Modality) -> tuple[Parameter, ...]:
        """How many layers, and the kind of each; widths and activations are the template's."""
        kinds = (Option(f"kind_{place}", tuple(modality.layers)) for place in range(1, LONGEST + 1))
        return (Whole("length", 1, LONGEST), *kinds)

    def shared_body(
        self, mixture: Mixture, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1
    ) -> SharedChain:
        """All chains of the first layer's width and activation."""
        width = candidate.count("width_1")
        style = Style(candidate.text("activation_1"), candidate.text("normalisation"), candidate.number("dropout"))
        return SharedChain(mixture, modality, style, width=width, d_in=width if d_in is None else d_in, side=side)

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Pooling between two layers that keeps the width has an activation in name only: the first one there is. A
        supernet's choices say no widths."""
        written = dict(super().canonical(choices))
        for place in range(2, int(choices["length"])):
            width = choices.get(f"width_{place}")
            if choices[f"kind_{place}"] in POOLING and width is not None and width == choices.get(f"width_{place - 1}"):
                written[f"activation_{place}"] = next(iter(ACTIVATIONS))
        return written

    def parts(self, choices: Mapping[str, Choice]) -> dict[str, str]:
        """Kind, width and activation of each layer."""
        return {f"layer {place}": _label(layer) for place, layer in enumerate(_plan(choices), start=1)}

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """A chain: one node a layer."""
        return Drawing.chain("inputs", *(_label(layer) for layer in _plan(choices)), "output")


def _layer_dimensions(place: int, modality: Modality) -> tuple[Parameter, ...]:
    """Of the layer at a place, counted from 1: they exist where the chain is as long. It may be twice as wide as a
    cell, which has several operations."""
    least, most, step = modality.widths
    there = When("length", tuple(range(place, LONGEST + 1))) if place > 1 else None
    return (
        Option(f"kind_{place}", tuple(modality.layers), when=there),
        Whole(f"width_{place}", least, 2 * most, step, when=there),
        Option(f"activation_{place}", tuple(ACTIVATIONS), when=there),
    )


def _plan(choices: Mapping[str, Choice]) -> list[tuple[str, int, str]]:
    return [
        (str(choices[f"kind_{place}"]), int(choices[f"width_{place}"]), str(choices[f"activation_{place}"]))
        for place in range(1, int(choices["length"]) + 1)
    ]


def _label(layer: tuple[str, int, str]) -> str:
    return " ".join(map(str, layer))
