"""The tabular ResNet of Gorishniy et al. 2021, "Revisiting Deep Learning Models for Tabular Data", section 3.2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from retrain.families.base import ACTIVATIONS, NORMALISATIONS, Candidate, Family, TabularNet
from retrain.families.drawing import Drawing
from retrain.families.embeddings import INPUT_PARAMETERS, InputEncoder
from retrain.families.parameters import Choice, Option, Parameter, Real, Whole


class ResidualBlock(nn.Module):
    """x + Dropout(Linear(Dropout(act(Linear(norm(x)))))), widened by `expansion` inside."""

    def __init__(
        self, width: int, *, expansion: float, activation: str, normalisation: str, dropout: float, residual: float
    ) -> None:
        super().__init__()
        inner = int(width * expansion)
        self.branch = nn.Sequential(
            NORMALISATIONS[normalisation](width),
            nn.Linear(width, inner),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(inner, width),
            nn.Dropout(residual),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, width) -> (n, width)."""
        out: Tensor = x + self.branch(x)
        return out

    @torch.no_grad()
    def silence(self) -> None:
        """Give x alone."""
        last = self.branch[4]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class ResNet(TabularNet):
    """Linear, residual blocks, then norm, activation and a linear head."""

    def __init__(
        self,
        inputs: InputEncoder,
        d_out: int,
        *,
        depth: int,
        width: int,
        expansion: float,
        activation: str,
        normalisation: str,
        dropout: float,
        residual: float,
    ) -> None:
        super().__init__(inputs, width)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    width,
                    expansion=expansion,
                    activation=activation,
                    normalisation=normalisation,
                    dropout=dropout,
                    residual=residual,
                )
                for _ in range(depth)
            )
        )
        self.head = nn.Sequential(
            NORMALISATIONS[normalisation](width), ACTIVATIONS[activation](), nn.Linear(width, d_out)
        )

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric), (n, c) -> (n, d_out)."""
        out: Tensor = self.head(self.blocks(self.embed(numeric, categories)))
        return out

    def level_of(self, name: str) -> int | None:
        """The block."""
        place = re.match(r"blocks\.(\d+)\.", name)
        return int(place[1]) if place else None

    @torch.no_grad()
    def pass_on(self, level: int) -> None:
        """A branch that gives nothing."""
        block = self.blocks[level]
        assert isinstance(block, ResidualBlock)
        block.silence()

    @property
    def last(self) -> nn.Linear:
        """The end of the head."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last


class ResNets(Family):
    """Residual networks for tables."""

    name: ClassVar[str] = "resnet"
    paper: ClassVar[str] = "Gorishniy et al. 2021"
    hidden: ClassVar[bool] = True

    def parameters(self) -> tuple[Parameter, ...]:
        """Depth, width, expansion, activation, normalisation, both dropouts and the encoder's dimensions."""
        return (
            Whole("depth", 1, 4),
            Whole("width", 64, 256, step=64),
            Option("expansion", (1.0, 1.5, 2.0)),
            Option("activation", tuple(ACTIVATIONS)),
            Option("normalisation", ("batch", "layer")),
            Real("dropout", 0.0, 0.5),
            Option("residual_dropout", (0.0, 0.1, 0.2)),
            *INPUT_PARAMETERS,
        )

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """A chain of sums, each of the one before and of a block on it."""
        width, inner = int(choices["width"]), int(int(choices["width"]) * float(choices["expansion"]))
        block = f"{choices['normalisation']} norm\nlinear {inner}\n{choices['activation']}\nlinear {width}"
        return Drawing.residual(["inputs", f"linear {width}"], [(block, "")] * int(choices["depth"]), ["output"])

    def build(self, candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int) -> ResNet:
        """The network of a candidate."""
        return ResNet(
            InputEncoder.of(candidate.choices, d_numeric, cardinalities),
            d_out,
            depth=candidate.count("depth"),
            width=candidate.count("width"),
            expansion=candidate.number("expansion"),
            activation=candidate.text("activation"),
            normalisation=candidate.text("normalisation"),
            dropout=candidate.number("dropout"),
            residual=candidate.number("residual_dropout"),
        )
