"""From columns to one vector: embeddings of categories and of numbers.

Categories share one table with one width for all columns, so that a row costs one look-up, in training and in the
served graph. Code 0 (unknown) and code 1 (missing) begin at zero: a category never seen adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import TypeAlias

import torch
from torch import Tensor, nn

from retrain.families.parameters import Option, Parameter, Real, When

RESERVED_CODES = 2
D_PERIODIC = 8

INPUT_PARAMETERS: tuple[Parameter, ...] = (
    Option("category_cap", (4, 8, 16, 32)),
    Option("numeric_embedding", ("none", "periodic", "piecewise")),
    Option("frequencies", (8, 16, 32), when=When("numeric_embedding", ("periodic",))),
    Real("sigma", 0.02, 1.0, log=True, when=When("numeric_embedding", ("periodic",))),
    Option("pieces", (8, 16, 32), when=When("numeric_embedding", ("piecewise",))),
)
"""The dimensions of the encoder, shared by all families."""


def embedding_width(cardinalities: Sequence[int], cap: int) -> int:
    """Width of the shared table: 1.6 n^0.56 of the largest column (fastai's rule), at most `cap`.

    >>> embedding_width([4, 100], 16), embedding_width([4], 16)
    (16, 4)
    """
    return min(cap, max(2, math.ceil(1.6 * math.pow(max(cardinalities, default=0), 0.56))))


class CategoryEmbedding(nn.Module):
    """(n, c) codes -> (n, c * width), by one table for all columns."""

    offsets: Tensor

    def __init__(self, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        starts = [0, *accumulate(cardinalities)]
        self.width = width
        self.d_out = len(cardinalities) * width
        self.table = nn.Embedding(starts[-1], width)
        self.register_buffer("offsets", torch.tensor(starts[:-1], dtype=torch.int64), persistent=False)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(width))
        with torch.no_grad():
            for start in starts[:-1]:
                self.table.weight[start : start + RESERVED_CODES] = 0.0

    def forward(self, categories: Tensor) -> Tensor:
        """Codes beyond a column's cardinality are an error of the caller: preparation never gives one."""
        looked_up: Tensor = self.table(categories + self.offsets)
        return looked_up.reshape(-1, self.d_out)  # flatten(1) would be four nodes of a served graph, this is one


class PeriodicEmbedding(nn.Module):
    """PLR-lite (Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning"): each number
    becomes sines and cosines of learnt frequencies, then one linear layer shared by all columns, then ReLU.
    (n, d) -> (n, d * D_PERIODIC). A cosine is reckoned as the sine of a quarter turn more: all waves in one go."""

    shifts: Tensor

    def __init__(self, d_numeric: int, frequencies: int, sigma: float) -> None:
        super().__init__()
        self.d_out = d_numeric * D_PERIODIC
        self.frequencies = nn.Parameter(torch.randn(d_numeric, frequencies) * sigma)
        self.linear = nn.Linear(2 * frequencies, D_PERIODIC)
        shifts = torch.tensor([0.0, math.pi / 2]).repeat_interleave(frequencies)
        self.register_buffer("shifts", shifts, persistent=False)

    def forward(self, numeric: Tensor) -> Tensor:
        """x -> ReLU(W [sin(2 pi c x), cos(2 pi c x)] + b), column by column."""
        turns = 2 * math.pi * torch.cat([self.frequencies, self.frequencies], dim=-1)
        waves = torch.sin(numeric.unsqueeze(-1) * turns + self.shifts)
        return torch.relu(self.linear(waves)).reshape(-1, self.d_out)


class PiecewiseEmbedding(nn.Module):
    """Piecewise-linear encoding (Gorishniy et al. 2022, section 3.2): each number becomes the shares to which it fills
    the `pieces` intervals between fixed knots, 1 in those below it, 0 in those above. (n, d) -> (n, d * pieces).

    The knots are quantiles of the standard normal distribution, -3 and 3 at the ends, where preparation's scalings
    bound their results: near to the data's own quantiles, and the same for every column.
    """

    starts: Tensor
    slopes: Tensor

    def __init__(self, d_numeric: int, pieces: int) -> None:
        super().__init__()
        self.d_out = d_numeric * pieces
        inner = [NormalDist().inv_cdf(k / pieces) for k in range(1, pieces)]
        knots = torch.tensor([-3.0, *inner, 3.0])
        self.register_buffer("starts", knots[:-1], persistent=False)
        self.register_buffer("slopes", 1 / knots.diff(), persistent=False)

    def forward(self, numeric: Tensor) -> Tensor:
        """x -> clip((x - start) * slope, 0, 1), column by column, piece by piece."""
        return ((numeric.unsqueeze(-1) - self.starts) * self.slopes).clamp(0, 1).reshape(-1, self.d_out)


NumberEmbedding: TypeAlias = PeriodicEmbedding | PiecewiseEmbedding


def number_embedding(choices: dict[str, str | bool | int | float], d_numeric: int) -> NumberEmbedding | None:
    """The embedding of numbers that a candidate's choices describe; None for numbers as they are, or without any."""
    kind = choices["numeric_embedding"] if d_numeric else "none"
    if kind == "periodic":
        return PeriodicEmbedding(d_numeric, int(choices["frequencies"]), float(choices["sigma"]))
    return PiecewiseEmbedding(d_numeric, int(choices["pieces"])) if kind == "piecewise" else None


class InputEncoder(nn.Module):
    """Numbers and categories as one vector (n, d_out): numeric columns first, then the categorical ones.

    `numbers` embeds the numeric columns; None leaves them as they are. `widths` is how many of the vector's entries
    stand for each numeric and each categorical column.
    """

    def __init__(
        self, d_numeric: int, cardinalities: Sequence[int], *, cap: int, numbers: NumberEmbedding | None = None
    ) -> None:
        super().__init__()
        if d_numeric == 0 and not cardinalities:
            raise ValueError("expected at least one numeric or categorical column, got none")
        self.numbers = numbers
        width = embedding_width(cardinalities, cap)
        self.words = CategoryEmbedding(cardinalities, width) if cardinalities else None
        self.widths = (1 if numbers is None else numbers.d_out // d_numeric, width)
        self.d_out = d_numeric * self.widths[0] + len(cardinalities) * width

    @classmethod
    def of(
        cls, choices: dict[str, str | bool | int | float], d_numeric: int, cardinalities: Sequence[int]
    ) -> InputEncoder:
        """The encoder that a candidate's choices describe."""
        cap = int(choices["category_cap"])
        return cls(d_numeric, cardinalities, cap=cap, numbers=number_embedding(choices, d_numeric))

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric), (n, c) -> (n, d_out)."""
        parts = [numeric if self.numbers is None else self.numbers(numeric)]
        if self.words is not None:
            parts.append(self.words(categories))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
