"""What the journal holds of a row's image beside the request itself: its digest and the numbers that its model sees.

The keeper writes these into the inference log, and not the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt

from registry.image_store import ImageStore
from registry.images import ImageError, Pixels, decode_sent, digest_of
from registry.schema import ImageColumn
from registry.scoring import Scores
from registry.watched import seen_by

Sighting: TypeAlias = tuple[str | None, list[float | None]]
"""The digest, None of a missing image, and the numbers."""


def sightings(
    rows: Sequence[dict[str, Any]], pixels: npt.NDArray[Any] | Sequence[Pixels], column: ImageColumn, scores: Scores
) -> list[Sighting]:
    """What was seen of n rows, whose images are `pixels`."""
    seen: list[Sighting] = []
    for place, row in enumerate(rows):
        missing = row[column.name] is None
        seen.append((None if missing else digest_of(pixels[place]), seen_by(scores, place, missing)))
    return seen


class Picture(NamedTuple):
    """An image as it was sent with a row that was answered, its digest, and the form in which its model reads it."""

    digest: str
    sent: Any
    size: int
    channels: int


def pictures(rows: Sequence[dict[str, Any]], seen: Sequence[Sighting], told: dict[str, Any]) -> list[Picture]:
    """The images of n rows that are not missing; `told` is their column as the journal describes it."""
    name, size, channels = told["name"], told["size"], told["channels"]
    return [
        Picture(digest, row[name], size, channels)
        for row, (digest, _) in zip(rows, seen, strict=True)
        if digest is not None
    ]


class Album:
    """Where the keeper puts the images of logged rows. A disk that fails holds up no row: it is told in `fault`, until
    an image is kept again."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.fault: str | None = None

    def keep(self, given: Sequence[Picture]) -> None:
        """Keep images that are not there yet; at the first that cannot be, the others are left too."""
        try:
            for one in given:
                if not self._store.has(one.digest):
                    self._store.keep(one.digest, decode_sent(one.sent, one.size, one.channels))
                    self.fault = None
        except (OSError, ImageError) as error:
            self.fault = f"images of logged rows are not kept: {error}"
