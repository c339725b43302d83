"""What the journal holds of a row's image beside the request itself: its digest and the numbers that its model sees.

The keeper writes these into the inference log, and not the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy.typing as npt

from registry.image_store import ImageStore
from registry.images import Pixels, decode_sent, digest_of
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


def keep(store: ImageStore, digest: str | None, sent: Any, told: dict[str, Any]) -> None:
    """Keep the image of a row that was answered, `told` being the column as the journal describes it."""
    if digest is not None and not store.has(digest):
        store.keep(digest, decode_sent(sent, told["size"], told["channels"]))
