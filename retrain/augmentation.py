"""Training rows changed at random, batch by batch, so that a network does not learn them by heart.

    images    flipped left to right, and shifted (Krizhevsky et al. 2012; He et al. 2016), a square of them blotted out
              (cutout, DeVries & Taylor 2017), with noise (Bishop 1995)
    columns   numbers with noise (jitter, Bishop 1995), values of other rows in the place of theirs (swap noise, the
              corruption of SCARF, Bahri et al. 2022), left out at random (dropout of inputs, Hinton et al. 2012); those
              beside an image, too
    both      two rows mixed, and their labels with them (mixup, Zhang et al. 2018)

Whatever has a strength of 0 draws no random number. Feature maps have no way of their own: the `dropout` of families
for images stands behind the mean over places, and so leaves out whole ones (Tompson et al. 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retrain.batches import Rows
from retrain.families.base import Reads
from retrain.families.parameters import Choice, Option, Parameter

FOR_IMAGES: tuple[Parameter, ...] = (
    Option("flip", (0.0, 0.5)),
    Option("crop", (0.0, 0.06, 0.125)),
    Option("cutout", (0.0, 0.25, 0.5)),
    Option("noise", (0.0, 0.02, 0.05)),
    Option("mixup", (0.0, 0.2, 0.4)),
)
FEATURE_DROPOUT = Option("feature_dropout", (0.0, 0.05, 0.15))
FOR_TABLES: tuple[Parameter, ...] = (Option("mixup", (0.0, 0.2, 0.4)), FEATURE_DROPOUT)
NOISE_OF_COLUMNS = (Option("jitter", (0.0, 0.05, 0.1, 0.2)), Option("swap_noise", (0.0, 0.05, 0.15)))
AUGMENTED = Option("augmented", (1.0, 0.75, 0.5, 0.25))
"""The probability beside the strengths: flips, shifts and squares already change one row more and another less."""
OF_COLUMNS = tuple(one.name for one in (*NOISE_OF_COLUMNS, FEATURE_DROPOUT))
"""What changes columns and nothing else."""


def on_demand(reads: Reads) -> tuple[Option, ...]:
    """The dimensions that a space has only where a user names them: what gained nothing as a default, and for images
    what changes the columns that may be beside them."""
    return (*NOISE_OF_COLUMNS, *(() if reads == "table" else (FEATURE_DROPOUT,)), AUGMENTED)


@dataclass(frozen=True)
class Batch:
    """Rows to train on. Under mixup the labels count for `share`, and those of the `others` for the rest."""

    rows: Rows
    others: Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """How strongly rows are changed: the chance of a flip, the share of the side by which an image may be shifted and
    that of the square blotted out, the standard deviation of noise (of the range), the alpha of mixup's Beta(alpha,
    alpha); of columns the standard deviation of jitter (prepared numbers are within [-3, 3]), the chance that a value
    is another row's, and that it is left out; and the chance that any of it is done, to a row, or for mixup to a
    batch."""

    flip: float = 0.0
    crop: float = 0.0
    cutout: float = 0.0
    noise: float = 0.0
    mixup: float = 0.0
    jitter: float = 0.0
    swap_noise: float = 0.0
    feature_dropout: float = 0.0
    augmented: float = 1.0

    @classmethod
    def of(cls, choices: Mapping[str, Choice]) -> Augmentation:
        """What a candidate's choices say; what they do not name is not done."""
        return cls(**{name: float(choices[name]) for name in cls.__dataclass_fields__ if name in choices})

    def apply(self, rows: Rows, generator: torch.Generator) -> Batch:
        """A batch, changed; the rows given stay as they are."""
        changed, mixes = rows, self.mixup > 0 and len(rows) > 1
        if rows.images is not None:
            changed = replace(changed, images=self._images(rows.images, generator))
        changed = self._columns(changed, generator)
        if self.augmented < 1:
            spared = torch.rand(len(rows) + 1, generator=generator) >= self.augmented
            changed, mixes = _spared(rows, changed, spared[1:]), mixes and not spared[0]
        return mixed(changed, self.mixup, generator) if mixes else Batch(changed)

    def _columns(self, rows: Rows, generator: torch.Generator) -> Rows:
        if self.jitter > 0:
            noise = torch.randn(rows.numeric.shape, generator=generator)
            rows = replace(rows, numeric=rows.numeric + self.jitter * noise)
        if self.swap_noise > 0:
            numeric = swapped(rows.numeric, self.swap_noise, generator)
            rows = replace(rows, numeric=numeric, categories=swapped(rows.categories, self.swap_noise, generator))
        return _left_out(rows, self.feature_dropout, generator) if self.feature_dropout > 0 else rows

    def _images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        side = images.shape[-1]
        if self.flip > 0:
            images = flipped(images, self.flip, generator)
        if (reach := round(self.crop * side)) > 0:
            images = shifted(images, reach, generator)
        if (edge := round(self.cutout * side)) > 0:
            images = blotted(images, edge, generator)
        if self.noise > 0:
            strength = 255 * self.noise
            images = images.float() + strength * torch.randn(images.shape, generator=generator)
        return images


def flipped(images: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Images (n, c, s, s), some of them turned left to right."""
    turned = torch.rand(len(images), generator=generator) < chance
    return torch.where(turned[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Images moved by up to `reach` pixels each way; what comes in is the border's colour."""
    n, _, side, _ = images.shape
    down, right = torch.randint(-reach, reach + 1, (2, n, 1), generator=generator)
    line = torch.arange(side)
    rows, columns = (line + down).clamp(0, side - 1), (line + right).clamp(0, side - 1)
    moved = images[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def blotted(images: Tensor, edge: int, generator: torch.Generator) -> Tensor:
    """Images with a square of this edge, anywhere, partly outside perhaps, in the batch's mean colour."""
    n, channels, side, _ = images.shape
    line = torch.arange(side)
    inside = []
    for centre in torch.randint(0, side, (2, n, 1), generator=generator):
        begin = centre - edge // 2
        inside.append((line >= begin) & (line < begin + edge))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    colour = images.float().mean(dim=(0, 2, 3)).to(images.dtype).view(1, channels, 1, 1)
    return torch.where(square, colour, images)


def swapped(values: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Values (n, d) of which some are another row's of the batch, in the same column: so each value comes as often as
    training rows have it."""
    others = torch.randint(0, len(values), values.shape, generator=generator)
    kept = torch.rand(values.shape, generator=generator) >= chance
    return torch.where(kept, values, values.gather(0, others))


def _spared(rows: Rows, changed: Rows, spared: Tensor) -> Rows:
    """The changed rows, and the given ones in the place of those that are spared (n,)."""
    images = changed.images
    if rows.images is not None and images is not None:
        images = torch.where(spared[:, None, None, None], rows.images, images)
    numeric = torch.where(spared[:, None], rows.numeric, changed.numeric)
    categories = torch.where(spared[:, None], rows.categories, changed.categories)
    return replace(changed, numeric=numeric, categories=categories, images=images)


def _left_out(rows: Rows, chance: float, generator: torch.Generator) -> Rows:
    """Rows with some of their columns unknown: numbers in the middle of their scale, categories of code 0."""
    numeric = torch.rand(rows.numeric.shape, generator=generator) >= chance
    categories = torch.rand(rows.categories.shape, generator=generator) >= chance
    return replace(rows, numeric=rows.numeric * numeric, categories=rows.categories * categories)


def mixed(rows: Rows, alpha: float, generator: torch.Generator) -> Batch:
    """Each row mixed with another one of the batch, all in one proportion; of categories each is from one of the two
    rows, in that proportion. A number to predict is mixed too."""
    share = _beta(alpha, generator)
    other = rows.take(torch.randperm(len(rows), generator=generator))
    images = None
    if rows.images is not None and other.images is not None:
        images = torch.lerp(other.images.float(), rows.images.float(), share)
    own = torch.rand(rows.categories.shape, generator=generator) < share
    inputs = Rows(
        torch.lerp(other.numeric, rows.numeric, share),
        torch.where(own, rows.categories, other.categories),
        rows.labels,
        images,
    )
    if rows.labels.is_floating_point():
        return Batch(replace(inputs, labels=torch.lerp(other.labels, rows.labels, share)))
    return Batch(inputs, other.labels, share)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A share from Beta(alpha, alpha), by Jöhnk's method (1964): torch's own takes no generator."""
    while True:
        x, y = (torch.rand(2, generator=generator, dtype=torch.float64) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return float(x / (x + y))
