"""Operations on rows of a table, (n, width) -> (n, width): the blocks of published networks for tables.

Those with weights normalise what they get, and no sum has an activation behind it, as in the residual blocks of
Gorishniy et al. 2021; averaging and the skip connection take it as it is. "narrow" and "wide" stand where image cells
have convolutions of one and of nine pixels.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from retrain.families.base import NORMALISATIONS
from retrain.families.modality import Modality, Style

GROUPS = 8
"""The groups of features that attention and averaging treat as tokens: few, as attention costs their square."""


def normal(width: int, style: Style) -> nn.Module:
    """The style's normalisation of a width."""
    return NORMALISATIONS[style.normalisation](width)


def _grouped(x: Tensor) -> Tensor:
    return x.reshape(-1, GROUPS, x.shape[1] // GROUPS)


def narrow(d_in: int, d_out: int, style: Style) -> nn.Module:
    """Normalisation, one linear layer, activation."""
    return nn.Sequential(
        OrderedDict(
            norm=normal(d_in, style),
            linear=nn.Linear(d_in, d_out),
            activation=style.act(),
            dropout=nn.Dropout(style.dropout),
        )
    )


def wide(d_in: int, d_out: int, style: Style) -> nn.Module:
    """Normalisation and two linear layers with twice the width between them."""
    return nn.Sequential(
        OrderedDict(
            norm=normal(d_in, style),
            widen=nn.Linear(d_in, 2 * d_out),
            activation=style.act(),
            dropout=nn.Dropout(style.dropout),
            linear=nn.Linear(2 * d_out, d_out),
        )
    )


class Gated(nn.Module):
    """A gated linear unit (Dauphin et al. 2017; with other activations than the sigmoid, Shazeer 2020):
    act(W x) * V x. (n, d_in) -> (n, d_out)."""

    def __init__(self, d_in: int, d_out: int, style: Style) -> None:
        super().__init__()
        self.norm = normal(d_in, style)
        self.linear = nn.Linear(d_in, 2 * d_out)
        self.activation = style.act()
        self.dropout = nn.Dropout(style.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Half of the linear layer's outputs let the other half pass."""
        gate, value = self.linear(self.norm(x)).chunk(2, dim=1)
        out: Tensor = self.dropout(self.activation(gate) * value)
        return out


class GroupAttention(nn.Module):
    """Self-attention of one head (Vaswani et al. 2017) over groups of features as tokens; queries, keys and values by
    one linear layer shared by all groups, activation at the end. (n, d_in) -> (n, d_out), both multiples of GROUPS.

    Groups are told from one another by a learnt vector each: without it they could change places.
    """

    def __init__(self, d_in: int, d_out: int, style: Style) -> None:
        super().__init__()
        d, out = d_in // GROUPS, d_out // GROUPS
        self.norm = normal(d_in, style)
        self.places = nn.Parameter(torch.randn(GROUPS, d) / d**0.5)
        self.linear = nn.Linear(d, 2 * d + out)
        self.sizes = (d, d, out)
        self.activation = style.act()
        self.dropout = nn.Dropout(style.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q K' / sqrt(d)) V."""
        tokens = _grouped(self.norm(x)) + self.places
        query, key, value = self.linear(tokens).split(self.sizes, dim=2)
        share = torch.softmax(query @ key.transpose(1, 2) / self.sizes[0] ** 0.5, dim=2)
        out: Tensor = self.dropout(self.activation((share @ value).flatten(1)))
        return out


class GroupMean(nn.Module):
    """Every group of features becomes the mean of itself and its two neighbours, in a ring: average pooling, for rows
    without places. No weights. (n, width) -> (n, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """(before + itself + after) / 3."""
        groups = _grouped(x)
        before = torch.cat([groups[:, -1:], groups[:, :-1]], dim=1)
        after = torch.cat([groups[:, 1:], groups[:, :1]], dim=1)
        return ((before + groups + after) / 3).flatten(1)


class Residual(nn.Module):
    """x + branch(x), x by a linear layer where the width changes. (n, d_in) -> (n, d_out)."""

    def __init__(self, branch: nn.Module, d_in: int, d_out: int) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if d_in == d_out else nn.Linear(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out


def finish(width: int, style: Style) -> nn.Module:
    """Normalisation and activation."""
    return nn.Sequential(OrderedDict(norm=normal(width, style), activation=style.act()))


TABLE = Modality(
    name="table",
    operations={
        "skip": lambda width, style: nn.Identity(),
        "narrow": lambda width, style: narrow(width, width, style),
        "wide": lambda width, style: wide(width, width, style),
        "gated": lambda width, style: Gated(width, width, style),
        "attention": lambda width, style: GroupAttention(width, width, style),
        "pool": lambda width, style: GroupMean(),
    },
    layers={
        "linear": narrow,
        "gated": Gated,
        "residual": lambda d_in, d_out, style: Residual(wide(d_in, d_out, style), d_in, d_out),
        "attention": lambda d_in, d_out, style: Residual(GroupAttention(d_in, d_out, style), d_in, d_out),
    },
    normalisations=("batch", "layer"),
    stem=lambda d_in, width, side, style: nn.Identity(),
    project=narrow,
    reduce=narrow,
    reduced=lambda width: width // 2,
    halving=nn.Identity,
    finish=finish,
    stages=1,
    widths=(32, 128, 32),
)
"""Rows of tables. The stem is the linear layer on the encoder's output, which every network for tables has."""
