"""Prepared rows as tensors, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from retrain.preparation import Prepared

EVALUATION_ROWS = 8192
EVALUATION_BYTES = 2**21
"""Of images that are evaluated at once: what convolutions hold of them is some dozen times as large."""


@dataclass(frozen=True)
class Rows:
    """Prepared rows: `numeric` (n, d) float32, `categories` (n, c) int64, `labels` (n,) int64 class indices or float32
    standardised values; `images` (n, channels, size, size) uint8, None for a task without them."""

    numeric: Tensor
    categories: Tensor
    labels: Tensor
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Rows:
        """The rows at these positions."""
        images = None if self.images is None else self.images[index]
        return Rows(self.numeric[index], self.categories[index], self.labels[index], images)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a network is called with."""
        return (self.numeric, self.categories) if self.images is None else (self.numeric, self.categories, self.images)

    @property
    def at_once(self) -> int:
        """How many rows are evaluated at once."""
        return rows_at_once(self.images)


def rows_of(prepared: Prepared, labels: Tensor) -> Rows:
    """Prepared rows with their labels."""
    images = None if prepared.images is None else torch.from_numpy(prepared.images)
    return Rows(torch.from_numpy(prepared.numeric), torch.from_numpy(prepared.categories), labels, images)


def rows_at_once(images: Tensor | None) -> int:
    """How many rows with such images (n, ...), or without any, are evaluated at once."""
    if images is None or not len(images):
        return EVALUATION_ROWS
    return min(EVALUATION_ROWS, max(16, EVALUATION_BYTES // max(1, images[0].numel())))


def count_batches(n: int, size: int) -> int:
    """Full batches in n rows; at least one."""
    return max(1, n // size)


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled row positions (size,), batch by batch; the incomplete last batch is left out (other rows each epoch)."""
    order = torch.randperm(n, generator=generator)
    for start in range(0, count_batches(n, size) * size, size):
        yield order[start : start + size]
