"""A column of images as networks read it, learnt on the training part and kept as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from registry.images import Pixels, stack
from registry.schema import Frozen, ImageColumn

if TYPE_CHECKING:
    import pandas as pd

LEVELS = np.arange(256.0)
PART = 1_024
"""Images counted at once."""


class ImageInput(Frozen):
    """The images that a network reads: `channels` x `size` x `size`, and the mean and standard deviation of each
    channel of the training images, in [0, 255]."""

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageSource(ImageInput):
    """The column that they are from, and the colour of a missing one."""

    name: str
    fill: tuple[int, ...]

    @property
    def input(self) -> ImageInput:
        """What a network is told of them."""
        return ImageInput(size=self.size, channels=self.channels, mean=self.mean, std=self.std)

    @classmethod
    def fit(cls, values: pd.Series[Any], column: ImageColumn) -> ImageSource:
        """Learn from conformed training images."""
        pixels = stack(values.to_list(), column.size, column.channels, column.fill)
        counts = sum(_counts(part) for part in np.array_split(pixels, -(-len(pixels) // PART)))
        shares = counts / (len(pixels) * column.size**2)
        mean = shares @ LEVELS
        std = np.maximum(np.sqrt(np.maximum(shares @ LEVELS**2 - mean**2, 0)), 1.0)
        fields = column.model_dump(include={"name", "size", "channels", "fill"})
        return cls(**fields, mean=tuple(map(float, mean.round(4))), std=tuple(map(float, std.round(4))))

    def apply(self, values: pd.Series[Any]) -> Pixels:
        """(n, channels, size, size) of conformed images."""
        return stack(values.to_list(), self.size, self.channels, self.fill)


def _counts(pixels: Pixels) -> npt.NDArray[np.int64]:
    """(channels, 256): how often each level is in each channel of (n, channels, size, size)."""
    return np.stack([np.bincount(channel.reshape(-1), minlength=256) for channel in pixels.swapaxes(0, 1)])
