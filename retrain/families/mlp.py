"""The plain multilayer perceptron: the reference of every comparison on tables (Gorishniy et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from retrain.families.base import ACTIVATIONS, NORMALISATIONS, Candidate, Family, TabularNet
from retrain.families.drawing import Drawing
from retrain.families.embeddings import INPUT_PARAMETERS, InputEncoder
from retrain.families.parameters import Choice, Option, Parameter, Real, Whole

_FIRST, _EACH = 3, 4
"""Modules of the first layer, without its linear one, and of each other layer."""


class MlpNet(TabularNet):
    """`depth` times linear, normalisation, activation, dropout; then a linear head."""

    def __init__(
        self,
        inputs: InputEncoder,
        d_out: int,
        *,
        depth: int,
        width: int,
        activation: str,
        normalisation: str,
        dropout: float,
    ) -> None:
        super().__init__(inputs, width)
        act, norm = ACTIVATIONS[activation], NORMALISATIONS[normalisation]
        layers: list[nn.Module] = []
        for level in range(depth):
            layers += [nn.Linear(width, width)] if level else []
            layers += [norm(width), act(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, d_out)

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric), (n, c) -> (n, d_out)."""
        out: Tensor = self.head(self.body(self.embed(numeric, categories)))
        return out

    def in_turn(self) -> Iterable[nn.Module]:
        """All of it, behind the encoder."""
        return self.first, self.body, self.head

    def level_of(self, name: str) -> int | None:
        """Linear, normalisation, activation, dropout, after the first layer's last three."""
        place = re.match(r"body\.(\d+)\.", name)
        return (int(place[1]) - _FIRST) // _EACH if place and int(place[1]) >= _FIRST else None

    @torch.no_grad()
    def pass_on(self, level: int) -> None:
        """The identity, which ReLU lets be one: its input is not negative."""
        linear = self.body[_FIRST + _EACH * level]
        assert isinstance(linear, nn.Linear)
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)

    @property
    def last(self) -> nn.Linear:
        """The head."""
        return self.head


class Mlp(Family):
    """Multilayer perceptrons of one width."""

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "Gorishniy et al. 2021"
    hidden: ClassVar[bool] = True

    def parameters(self) -> tuple[Parameter, ...]:
        """Depth, width, activation, normalisation, dropout and the encoder's dimensions."""
        return (
            Whole("depth", 1, 5),
            Whole("width", 64, 384, step=64),
            Option("activation", tuple(ACTIVATIONS)),
            Option("normalisation", tuple(NORMALISATIONS)),
            Real("dropout", 0.0, 0.5),
            *INPUT_PARAMETERS,
        )

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """A chain: one node a layer."""
        norm = "" if choices["normalisation"] == "none" else f"\n{choices['normalisation']} norm"
        layer = f"linear {choices['width']}{norm}\n{choices['activation']}"
        return Drawing.chain("inputs", *[layer] * int(choices["depth"]), "output")

    def build(self, candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int) -> MlpNet:
        """The network of a candidate."""
        return MlpNet(
            InputEncoder.of(candidate.choices, d_numeric, cardinalities),
            d_out,
            depth=candidate.count("depth"),
            width=candidate.count("width"),
            activation=candidate.text("activation"),
            normalisation=candidate.text("normalisation"),
            dropout=candidate.number("dropout"),
        )
