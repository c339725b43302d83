"""The columns a model reads: their kinds, ranges and categories, and the one way a raw frame is made to fit them.

A conformed frame has, by kind:

    numeric       float64, NaN where missing
    boolean       float64: 1.0, 0.0, NaN where missing
    datetime      datetime64[us] without zone (UTC), NaT where missing
    categorical   object: str, None where missing
    text          string: str, NaN where missing
    image         object: bytes of a PNM file of the column's size (`registry/images.py`), None where missing

Every later stage (preparation, the ONNX graph, serving, monitoring) starts from that form.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from registry.images import MAX_SIZE, MIN_SIZE
from registry.texts import LENGTHS

MAX_CATEGORY_LENGTH = 256


class Frozen(BaseModel):
    """Base of Everfit's value objects: immutable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NumericColumn(Frozen):
    """A number. `low` and `high` are the range seen in training, `integer` says that only whole numbers were seen."""

    kind: Literal["numeric"] = "numeric"
    name: str
    missing: float = Field(0.0, ge=0, le=1, description="share of missing values in training")
    low: float | None = None
    high: float | None = None
    integer: bool = False


class BooleanColumn(Frozen):
    """True or false."""

    kind: Literal["boolean"] = "boolean"
    name: str
    missing: float = Field(0.0, ge=0, le=1)


class DatetimeColumn(Frozen):
    """A moment, in UTC without zone. Only its calendar parts reach a model."""

    kind: Literal["datetime"] = "datetime"
    name: str
    missing: float = Field(0.0, ge=0, le=1)
    low: datetime | None = None
    high: datetime | None = None


class CategoricalColumn(Frozen):
    """One of a set of strings. `categories` are those frequent enough in training to be learnt, most frequent first;
    any other value is served as unknown. `distinct` counts all values seen."""

    kind: Literal["categorical"] = "categorical"
    name: str
    missing: float = Field(0.0, ge=0, le=1)
    categories: tuple[str, ...] = ()
    distinct: int = 0


class TextColumn(Frozen):
    """Prose. A model reads how long it is and which of `words`, learnt in training, are in it (`registry/texts.py`)."""

    kind: Literal["text"] = "text"
    name: str
    missing: float = Field(0.0, ge=0, le=1)
    words: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers of it a model reads."""
        return LENGTHS + len(self.words)


class ImageColumn(Frozen):
    """An image. A model reads it as `channels` x `size` x `size` bytes; a missing one is all of the colour `fill`, the
    mean of the training images."""

    kind: Literal["image"] = "image"
    name: str
    missing: float = Field(0.0, ge=0, le=1)
    size: int = Field(32, ge=MIN_SIZE, le=MAX_SIZE)
    channels: Literal[1, 3] = 3
    fill: tuple[int, ...] = (127, 127, 127)

    @model_validator(mode="after")
    def _one_fill_a_channel(self) -> ImageColumn:
        if len(self.fill) != self.channels:
            raise ValueError(f"column {self.name!r}: expected {self.channels} values in fill, got {len(self.fill)}")
        return self


Column: TypeAlias = Annotated[
    NumericColumn | BooleanColumn | DatetimeColumn | CategoricalColumn | TextColumn | ImageColumn,
    Field(discriminator="kind"),
]
ColumnKind: TypeAlias = Literal["numeric", "boolean", "datetime", "categorical", "text", "image"]


class LeftOut(Frozen):
    """A column of the source that no model reads, and why."""

    name: str
    reason: str


class Schema(Frozen):
    """The columns of a task, in the order in which every array and graph holds them."""

    columns: tuple[Column, ...]
    left_out: tuple[LeftOut, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Schema:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"column names must be unique, got {names}")
        if len(images := [column.name for column in self.columns if column.kind == "image"]) > 1:
            raise ValueError(f"at most one column of images can be read, got {images}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)

    def of(self, *kinds: ColumnKind) -> tuple[Column, ...]:
        """The columns of these kinds, in order."""
        return tuple(column for column in self.columns if column.kind in kinds)

    @property
    def image(self) -> ImageColumn | None:
        """The column of images, of which there is one at most."""
        return next((column for column in self.columns if isinstance(column, ImageColumn)), None)

    def without(self, names: Collection[str]) -> Schema:
        """The schema without some of its columns."""
        return Schema(columns=tuple(one for one in self.columns if one.name not in names), left_out=self.left_out)


def canonical_category(value: object, longest: int = MAX_CATEGORY_LENGTH) -> str | None:
    """The string a category is known by, alike whether it came as 1, 1.0, "1" or numpy's 1.

    >>> canonical_category(1.0), canonical_category(True), canonical_category(" a "), canonical_category("")
    ('1', 'true', ' a ', None)
    """
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        text = str(int(value)) if float(value).is_integer() else repr(float(value))
    else:
        text = str(value)
    return text[:longest] or None


_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "1": 1.0, "0": 0.0}


def truth(text: str) -> float | None:
    """What a canonical string means in a boolean column: 1.0, 0.0, or None if it means neither.

    >>> truth("Yes"), truth("0"), truth("maybe")
    (1.0, 0.0, None)
    """
    return _TRUTH.get(text.strip().lower())
