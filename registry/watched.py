"""What monitoring sees of images: numbers, in columns of their own.

An image is not logged, nor compared pixel by pixel. The graph gives a representation of it, some numbers that tell what
its model tells images apart by, and each of them is a numeric column to whoever watches. They are a model's own: those
that two versions give of one image have nothing to do with one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from registry.bundle import Manifest
from registry.images import COMPONENTS, seen_name
from registry.schema import NumericColumn, Schema
from registry.scoring import REPRESENTATION, Scores

if TYPE_CHECKING:
    import pandas as pd


class SeenColumn(NumericColumn):
    """One number (`place`, from 1) of the representation of the images in the column `image`."""

    image: str
    place: int

    @property
    def leads(self) -> bool:
        """Whether it is the first: an image that is missing is so in all of them."""
        return self.place == 1


def watched(schema: Schema) -> Schema:
    """The schema with an image's numbers in its place; the same schema where there is none."""
    if (image := schema.image) is None:
        return schema
    seen = [
        SeenColumn(name=seen_name(image.name, place), missing=image.missing, image=image.name, place=place)
        for place in range(1, COMPONENTS + 1)
    ]
    columns = [one for column in schema.columns for one in (seen if column is image else [column])]
    return Schema(columns=tuple(columns), left_out=schema.left_out)


def watched_manifest(manifest: Manifest) -> Manifest:
    """The manifest with the schema that is watched."""
    if manifest.data_schema.image is None:
        return manifest
    return manifest.model_copy(update={"data_schema": watched(manifest.data_schema)})


def watched_rows(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Reference rows, the numbers in the image's place: those of `REPRESENTATION`, missing where the image is."""
    if schema.image is None:
        return frame
    name = schema.image.name
    numbers = np.array(frame[REPRESENTATION].to_list(), dtype=np.float64).reshape(len(frame), COMPONENTS)
    numbers[frame[name].isna().to_numpy()] = np.nan
    columns = {seen_name(name, place + 1): values for place, values in enumerate(numbers.T)}
    return frame.drop(columns=name).assign(**columns)


def seen_values(representation: npt.NDArray[Any] | None) -> list[float | None]:
    """The numbers of one image as they are logged, to five digits; missing ones where the image is."""
    if representation is None:
        return [None] * COMPONENTS
    return [float(f"{value:.5g}") for value in representation.tolist()]


def logged_features(
    row: Mapping[str, Any],
    names: Sequence[str],
    image: str | None,
    digest: str | None = None,
    numbers: Sequence[float | None] = (),
) -> dict[str, Any]:
    """A row's columns as they are logged: the image in the column `image`, if any, by its digest and its numbers.

    Raises `KeyError` for a column that the row lacks.
    """
    found = {name: row[name] for name in names}
    if image is None:
        return found
    seen = {seen_name(image, place): value for place, value in enumerate(numbers, 1)}
    return {**found, image: digest, **seen}


def seen_by(scores: Scores, place: int, missing: bool) -> list[float | None]:
    """The numbers of the row at a place, as they are logged."""
    return seen_values(None if missing or scores.representation is None else scores.representation[place])
