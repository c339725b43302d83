"""What differs between kinds of data, so that a template of networks is written once.

A modality gives modules to names: operations, which keep the shape of what they get; layers, which may change its
width; and the parts of a template around them. Rows of tables are (n, width), images (n, width, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from retrain.families.base import ACTIVATIONS


@dataclass(frozen=True)
class Style:
    """What the operations of a network have in common; `normalisation` is a name that its modality knows."""

    activation: str = "relu"
    normalisation: str = "batch"
    dropout: float = 0.0

    def act(self) -> nn.Module:
        """An activation."""
        return ACTIVATIONS[self.activation]()


Operation = Callable[[int, Style], nn.Module]
Layer = Callable[[int, int, Style], nn.Module]
Stem = Callable[[int, int, int, Style], nn.Module]


@dataclass(frozen=True)
class Modality:
    """One kind of data.

    `operations` (width, style) keep the shape. `layers` (d_in, d_out, style) may change the width; they are what
    chains are made of, each followed by a `halving` now and then. `stem` (d_in, width, side, style) brings raw input to
    the width, and images of `side` pixels to at most 32. `project` changes the width and nothing else. `reduce` is the
    layer between two stages, after which there are `reduced(width)` numbers at each place. `finish` (width, style)
    makes (n, width) features of what the last cell gives. `stages` is how many stages a stack of cells has, `widths`
    (least, most, step) the widths of the first.
    """

    name: str
    operations: Mapping[str, Operation]
    layers: Mapping[str, Layer]
    normalisations: tuple[str, ...]
    stem: Stem
    project: Layer
    reduce: Layer
    reduced: Callable[[int], int]
    halving: Callable[[], nn.Module]
    finish: Callable[[int, Style], nn.Module]
    stages: int
    widths: tuple[int, int, int]
