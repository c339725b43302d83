"""Small residual convolutional networks (He et al. 2016, "Identity Mappings in Deep Residual Networks"), for images of
8 to 224 pixels on a CPU."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from retrain.families.base import Candidate
from retrain.families.drawing import Drawing
from retrain.families.parameters import Choice, Option, Parameter, Real
from retrain.families.picture import Deepening, Features, PictureFamily
from retrain.image_source import ImageInput

STAGES = 3
LAST_SIDE = 7
"""Maps are halved until their side is at most this."""

FINE_SIDE = 64
"""Largest side of images whose stem may leave out a halving: it costs four times as much."""

SQUEEZED = 4
"""By how much the squeeze-and-excitation gate narrows its channels."""


def halvings(size: int) -> int:
    """How often maps of this side are halved.

    >>> halvings(8), halvings(28), halvings(32), halvings(224)
    (1, 2, 3, 5)
    """
    return math.ceil(math.log2(size / LAST_SIDE))


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): each channel times a number from 0 to 1 that all their means give."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(4, channels // SQUEEZED)
        self.gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same."""
        out: Tensor = x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]
        return out


class ConvBlock(nn.Module):
    """x' + conv(ReLU(norm(conv(ReLU(norm(x)))))), x' a 1 x 1 convolution of x where sizes change."""

    def __init__(self, d_in: int, d_out: int, *, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(d_in)
        self.branch = nn.Sequential(
            nn.Conv2d(d_in, d_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(d_out),
            nn.ReLU(),
            nn.Conv2d(d_out, d_out, 3, padding=1, bias=False),
            Gate(d_out) if squeeze else nn.Identity(),
        )
        alike = stride == 1 and d_in == d_out
        self.shortcut = None if alike else nn.Conv2d(d_in, d_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, d_in, h, w) -> (n, d_out, h / stride, w / stride)."""
        first = torch.relu(self.norm(x))
        out: Tensor = self.branch(first) + (x if self.shortcut is None else self.shortcut(first))
        return out

    @torch.no_grad()
    def silence(self) -> None:
        """Give x' alone."""
        last = self.branch[3]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)


class Pooled(nn.Module):
    """norm, ReLU, and the mean over places: (n, channels, h, w) -> (n, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The channels' means."""
        return torch.relu(self.norm(x)).mean(dim=(2, 3))


class ConvBody(Deepening):
    """A stem, `STAGES` stages of blocks and the mean over places: (n, channels, h, w) -> (n, width)."""

    def __init__(self, stem: list[nn.Module], stages: list[list[ConvBlock]], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)
        self.pooled = Pooled(width)

    def forward(self, x: Tensor) -> Tensor:
        """Images as features."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.pooled(x)
        return out

    def level_of(self, name: str) -> int | None:
        """The blocks behind the first of their stage, row by row."""
        place = re.match(r"stages\.(\d+)\.([1-9]\d*)\.", name)
        return int(place[1]) + STAGES * int(place[2]) if place else None

    def pass_on(self, level: int) -> None:
        """A branch that gives nothing: these blocks have a plain shortcut."""
        stage = self.stages[level % STAGES]
        assert isinstance(stage, nn.Sequential)
        block = stage[level // STAGES]
        assert isinstance(block, ConvBlock)
        block.silence()


class ConvNets(PictureFamily):
    """Small residual convolutional networks: a stem, three stages that double in width, a mean over places."""

    name: ClassVar[str] = "convnet"
    paper: ClassVar[str] = "He et al. 2016"
    hidden: ClassVar[bool] = True

    def parameters(self) -> tuple[Parameter, ...]:
        """Width of the stem, blocks a stage, whether the stem halves as often as it may, gates, dropout."""
        return (
            Option("stem_width", (16, 24, 32, 48, 64)),
            Option("blocks", (1, 2)),
            Option("coarse", (False, True)),
            Option("squeeze", (False, True)),
            Real("dropout", 0.0, 0.5),
        )

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """Stem, blocks with the ways around them, and the mean. Where maps are halved depends on the images."""
        stem, gate = int(choices["stem_width"]), "\nsqueeze, excite" if choices["squeeze"] else ""
        blocks, d_in = [], stem
        for d_out in (stem * 2**stage for stage in range(STAGES) for _ in range(int(choices["blocks"]))):
            convolution = f"batch norm, relu\nconv 3 x 3, {d_out}"
            blocks.append((f"{convolution}\n{convolution}{gate}", "" if d_in == d_out else f"conv 1 x 1, {d_out}"))
            d_in = d_out
        ends = ["inputs", f"stem\nconv 3 x 3, {stem}"], ["batch norm, relu\nmean", "output"]
        return Drawing.residual(ends[0], blocks, ends[1], f"{'coarse' if choices['coarse'] else 'fine'} stem")

    def features(self, candidate: Candidate, image: ImageInput) -> Features:
        """Stem, stages and mean. The second and the third stage halve once each, the stem what is left to halve; one
        time less if it is not `coarse`."""
        width, squeeze = candidate.count("stem_width"), bool(candidate.choices["squeeze"])
        late = min(halvings(image.size), STAGES - 1)
        early = halvings(image.size) - late
        if not candidate.choices["coarse"] and image.size <= FINE_SIDE:
            early = max(0, early - 1)
        stem = _stem(image.channels, width, early)
        stages: list[list[ConvBlock]] = []
        d_in = width
        for stage in range(STAGES):
            d_out, stride = width * 2**stage, 2 if 1 <= stage <= late else 1
            blocks = [ConvBlock(d_in, d_out, stride=stride, squeeze=squeeze)]
            blocks += [ConvBlock(d_out, d_out, stride=1, squeeze=squeeze) for _ in range(candidate.count("blocks") - 1)]
            stages.append(blocks)
            d_in = d_out
        body = ConvBody(stem, stages, d_in)
        return Features(body, d_in, candidate.number("dropout"))


def _stem(channels: int, width: int, times: int) -> list[nn.Module]:
    """Convolutions that halve so many times; one that does not for none."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, stride=2 if times else 1, padding=1, bias=False)]
    for _ in range(times - 1):
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)]
    return layers
