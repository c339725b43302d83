"""Networks that read an image, and whatever columns there are beside it.

    image (n, channels, size, size) uint8 -> scaled -> body -> features (n, width) --+
                                                                                     +-> dropout -> head -> (n, d_out)
    columns -> inputs -> first -> (n, `TABLE_WIDTH`), where there are any -----------+

A family of them says what its body is and nothing else: any module from (n, channels, size, size) float to (n, width).
The mean and the standard deviation of the training images are buffers of the network, and so in its weights and in the
graph. A network is called as `network(numeric, categories, images)`; images may be floats in [0, 255] too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from registry.errors import TaskError
from retrain.families.base import Candidate, Family, Network, Reads
from retrain.families.embeddings import InputEncoder
from retrain.image_source import ImageInput

TABLE_WIDTH = 64
CATEGORY_CAP = 8


class Deepening(nn.Module, ABC):
    """A body with repeated layers that a deeper one has more of: see `Network.level_of`, of names within it, and
    `Network.pass_on`."""

    @abstractmethod
    def level_of(self, name: str) -> int | None:
        """Which of the repeated layers a parameter of this name is in; None for all others."""

    @abstractmethod
    def pass_on(self, level: int) -> None:
        """Make that layer give what it gets."""


@dataclass(frozen=True)
class Features:
    """What turns scaled images (n, channels, size, size) into features (n, width), and the dropout behind it. `parts`:
    it is put together from operations (see `Family.parts`)."""

    module: nn.Module
    width: int
    dropout: float = 0.0
    parts: bool = False


class PictureNet(Network):
    """A body for the image, an encoder for the columns beside it, and a linear head on both."""

    mean: Tensor
    std: Tensor

    def __init__(self, image: ImageInput, body: Features, inputs: InputEncoder | None, d_out: int) -> None:
        super().__init__()
        shape = (1, image.channels, 1, 1)
        self.register_buffer("mean", torch.tensor(image.mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(image.std, dtype=torch.float32).view(shape))
        self.body = body.module
        self.inputs = inputs
        self.first = None if inputs is None else nn.Linear(inputs.d_out, TABLE_WIDTH)
        self.d_features = body.width
        self.of_parts = body.parts
        self.dropout = nn.Dropout(body.dropout)
        self.head = nn.Linear(body.width + (TABLE_WIDTH if inputs is not None else 0), d_out)

    def forward(self, numeric: Tensor, categories: Tensor, images: Tensor) -> Tensor:
        """(n, d_numeric), (n, c), (n, channels, size, size) -> (n, d_out)."""
        return self.answer(self.features(images), numeric, categories)

    def features(self, images: Tensor) -> Tensor:
        """(n, channels, size, size) -> (n, width)."""
        out: Tensor = self.body((images.float() - self.mean) / self.std)
        return out

    def answer(self, features: Tensor, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, width), (n, d_numeric), (n, c) -> (n, d_out)."""
        if self.inputs is not None and self.first is not None:
            table = torch.relu(self.first(self.inputs(numeric, categories)))
            features = torch.cat([features, table], dim=1)
        out: Tensor = self.head(self.dropout(features))
        return out

    def level_of(self, name: str) -> int | None:
        """The body's."""
        if not isinstance(self.body, Deepening) or not name.startswith("body."):
            return None
        return self.body.level_of(name.removeprefix("body."))

    @torch.no_grad()
    def pass_on(self, level: int) -> None:
        """The body's."""
        if isinstance(self.body, Deepening):
            self.body.pass_on(level)

    def is_part(self, name: str) -> bool:
        """All of a body that is put together from operations."""
        return self.of_parts and name.startswith("body.")

    @property
    def last(self) -> nn.Linear:
        """The head."""
        return self.head


def beside(d_numeric: int, cardinalities: Sequence[int]) -> InputEncoder | None:
    """The encoder of the columns beside an image; None without any."""
    return InputEncoder(d_numeric, cardinalities, cap=CATEGORY_CAP) if d_numeric or cardinalities else None


class PictureFamily(Family):
    """Base of the families of networks that read an image. A subclass gives the dimensions and the body."""

    reads: ClassVar[frozenset[Reads]] = frozenset({"image"})

    @abstractmethod
    def features(self, candidate: Candidate, image: ImageInput) -> Features:
        """The untrained body of a candidate for such images."""

    def build(self, candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int) -> Network:
        """Raises `TaskError`: without an image there is nothing to build."""
        raise TaskError(f"family {self.name!r} reads images, and the task has no column of them")

    def build_for(
        self, candidate: Candidate, image: ImageInput, d_numeric: int, cardinalities: Sequence[int], d_out: int
    ) -> PictureNet:
        """The untrained network of a candidate, for images like these beside such columns."""
        return PictureNet(image, self.features(candidate, image), beside(d_numeric, cardinalities), d_out)
