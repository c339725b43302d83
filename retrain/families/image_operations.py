"""Operations on images, (n, c, h, w) -> (n, c, h, w): those of NAS-Bench-201 (Dong & Yang 2020) and DARTS (Liu,
Simonyan & Yang 2018), in their order of activation, convolution and normalisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from retrain.families.modality import Layer, Modality, Style

MOST_SIDE = 32
"""The stem brings larger images to at most so many pixels a side, so that a cell costs the same for all."""
SQUEEZE = 4


def normal(c: int, style: Style) -> nn.Module:
    """The style's normalisation of c channels: of each over the batch, or of an image as a whole."""
    return nn.BatchNorm2d(c) if style.normalisation == "batch" else nn.GroupNorm(1, c)


def convolution(k: int, stride: int = 1) -> Layer:
    """Activation, a convolution of k x k pixels, normalisation."""

    def make(d_in: int, d_out: int, style: Style) -> nn.Module:
        conv = nn.Conv2d(d_in, d_out, k, stride=stride, padding=k // 2, bias=False)
        return nn.Sequential(OrderedDict(activation=style.act(), conv=conv, norm=normal(d_out, style)))

    return make


def separable(d_in: int, d_out: int, style: Style) -> nn.Module:
    """A depthwise convolution of 3 x 3 pixels, then one of 1 x 1 over the channels."""
    return nn.Sequential(
        OrderedDict(
            activation=style.act(),
            depthwise=nn.Conv2d(d_in, d_in, 3, padding=1, groups=d_in, bias=False),
            pointwise=nn.Conv2d(d_in, d_out, 1, bias=False),
            norm=normal(d_out, style),
        )
    )


def mean_pool() -> nn.Module:
    """The mean of 3 x 3 pixels around each, those outside left out."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def max_pool() -> nn.Module:
    """The greatest of 3 x 3 pixels around each."""
    return nn.MaxPool2d(3, stride=1, padding=1)


def pooling(pool: Callable[[], nn.Module]) -> Layer:
    """Pooling, and where the width changes a convolution of 1 x 1 after it."""

    def make(d_in: int, d_out: int, style: Style) -> nn.Module:
        project = nn.Identity() if d_in == d_out else convolution(1)(d_in, d_out, style)
        return nn.Sequential(OrderedDict(pool=pool(), project=project))

    return make


class GatedConvolution(nn.Module):
    """A gated linear unit over channels: act(W x) * V x, by convolutions of 3 x 3. (n, d_in, h, w) ->
    (n, d_out, h, w)."""

    def __init__(self, d_in: int, d_out: int, style: Style) -> None:
        super().__init__()
        self.norm = normal(d_in, style)
        self.conv = nn.Conv2d(d_in, 2 * d_out, 3, padding=1)
        self.activation = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """Half of the channels let the other half pass."""
        gate, value = self.conv(self.norm(x)).chunk(2, dim=1)
        out: Tensor = self.activation(gate) * value
        return out


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): every channel is scaled by what the means of all say.
    (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, c: int, style: Style) -> None:
        super().__init__()
        self.squeeze = nn.Linear(c, max(1, c // SQUEEZE))
        self.activation = style.act()
        self.excite = nn.Linear(max(1, c // SQUEEZE), c)

    def forward(self, x: Tensor) -> Tensor:
        """x * sigmoid(W act(V mean(x)))."""
        share = torch.sigmoid(self.excite(self.activation(self.squeeze(x.mean(dim=(2, 3))))))
        return x * share.unsqueeze(-1).unsqueeze(-1)


class ResidualConvolutions(nn.Module):
    """x plus two convolutions of 3 x 3 (He et al. 2016), x by one of 1 x 1 where the width changes.
    (n, d_in, h, w) -> (n, d_out, h, w)."""

    def __init__(self, d_in: int, d_out: int, style: Style) -> None:
        super().__init__()
        make = convolution(3)
        self.branch = nn.Sequential(make(d_in, d_out, style), make(d_out, d_out, style))
        self.shortcut = nn.Identity() if d_in == d_out else nn.Conv2d(d_in, d_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out


class GlobalMean(nn.Module):
    """(n, c, h, w) -> (n, c): the mean over all places."""

    def forward(self, x: Tensor) -> Tensor:
        """One number a channel."""
        return x.mean(dim=(2, 3))


def stem(d_in: int, width: int, side: int, style: Style) -> nn.Module:
    """A convolution of 3 x 3, and before it as many of stride 2 as images of `side` pixels need to have at most
    MOST_SIDE; these are narrower, as they see the most pixels."""
    layers: list[nn.Module] = []
    strides = 0
    while side > MOST_SIDE:
        side, strides = (side + 1) // 2, strides + 1
    for left in reversed(range(strides)):
        d_out = max(8, width >> (left + 1))
        layers += [
            nn.Conv2d(d_in, d_out, 3, stride=2, padding=1, bias=False),
            normal(d_out, style),
            style.act(),
        ]
        d_in = d_out
    return nn.Sequential(*layers, nn.Conv2d(d_in, width, 3, padding=1, bias=False), normal(width, style))


def finish(width: int, style: Style) -> nn.Module:
    """Normalisation, activation, the mean over all places, dropout."""
    parts = {"norm": normal(width, style), "activation": style.act()}
    return nn.Sequential(OrderedDict(**parts, mean=GlobalMean(), dropout=nn.Dropout(style.dropout)))


def excited(d_in: int, d_out: int, style: Style) -> nn.Module:
    """A separable convolution, then squeeze and excitation: the block of MobileNetV3 (Howard et al. 2019) unwidened."""
    return nn.Sequential(OrderedDict(separable=separable(d_in, d_out, style), excitation=Excitation(d_out, style)))


IMAGE = Modality(
    name="image",
    operations={
        "skip": lambda width, style: nn.Identity(),
        "narrow": lambda width, style: convolution(1)(width, width, style),
        "wide": lambda width, style: convolution(3)(width, width, style),
        "wider": lambda width, style: convolution(5)(width, width, style),
        "separable": lambda width, style: separable(width, width, style),
        "excitation": Excitation,
        "pool": lambda width, style: mean_pool(),
        "max": lambda width, style: max_pool(),
    },
    layers={
        "narrow": convolution(1),
        "wide": convolution(3),
        "wider": convolution(5),
        "gated": GatedConvolution,
        "residual": ResidualConvolutions,
        "separable": separable,
        "excitation": excited,
        "pool": pooling(mean_pool),
        "max": pooling(max_pool),
    },
    normalisations=("batch", "layer"),
    stem=stem,
    project=convolution(1),
    reduce=convolution(3, stride=2),
    reduced=lambda width: 2 * width,
    halving=lambda: nn.MaxPool2d(2, ceil_mode=True),
    finish=finish,
    stages=3,
    widths=(16, 64, 16),
)
"""Images of one to three channels."""
