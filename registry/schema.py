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
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from registry.errors import RowError, did_you_mean
from registry.images import MAX_SIZE, MIN_SIZE, ImageError, decode, to_pnm
from registry.texts import LENGTHS, MAX_TEXT_LENGTH

MAX_CATEGORY_LENGTH = 256
TEXT = pd.StringDtype("python", na_value=np.nan)
MAX_SHOWN = 100
"""Characters of a wrong value that a message shows."""


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

    def conform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The schema's columns of a raw frame, in the conformed dtypes; other columns are dropped.

        Raises `RowError` that names column, value and row position for a vanished column or a value of a wrong type.
        Infinities become missing in numeric columns: a frame is history, where they are artefacts of a division.
        """
        gone = [name for name in self.names if name not in frame.columns]
        if gone:
            near = did_you_mean(gone[0], [str(name) for name in frame.columns])
            raise RowError(f"column {gone[0]!r} is missing{near}; the frame has {len(frame.columns)} other columns")
        columns = {column.name: conform_column(frame[column.name], column) for column in self.columns}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def conform_column(values: pd.Series[Any], column: Column) -> pd.Series[Any]:
    """One raw series in the conformed dtype of its column, with a fresh row index (0 to n - 1)."""
    values = values.reset_index(drop=True)
    if column.kind == "numeric":
        return _numeric(values, column.name)
    if column.kind == "boolean":
        return _boolean(values, column.name)
    if column.kind == "datetime":
        return as_datetimes(values, column.name)
    if column.kind == "image":
        return _images(values, column)
    if column.kind == "text":
        return _strings(values, column.name, MAX_TEXT_LENGTH).astype(TEXT)
    return _strings(values, column.name)


def conform_categories(values: pd.Series[Any], column: CategoricalColumn) -> Categories:
    """What `conform_column` makes of a categorical column, in codes."""
    return _coded(values, column.name, MAX_CATEGORY_LENGTH)


def _strings(values: pd.Series[Any], name: str, longest: int = MAX_CATEGORY_LENGTH) -> pd.Series[Any]:
    return _coded(values, name, longest).strings(values)


def _coded(values: pd.Series[Any], name: str, longest: int) -> Categories:
    try:
        return coded(values, longest)
    except TypeError as error:
        row, value = _first_bad(values, hash)
        raise RowError(f"column {name!r}, row {row}: expected a single value, got {value}") from error


class Categories(NamedTuple):
    """(n,) places in canonical strings that are all different, -1 where missing; `canonical` says that the values were
    these very strings already, and all there."""

    codes: npt.NDArray[np.int64]
    names: pd.Index
    canonical: bool

    def strings(self, values: pd.Series[Any]) -> pd.Series[Any]:
        """The values that were coded as strings, None where missing."""
        if self.canonical:
            return values
        strings = np.array([*self.names, None], dtype=object)[self.codes]  # -1, missing, is the last
        return pd.Series(strings, index=values.index, name=values.name, dtype=object)


def as_strings(values: pd.Series[Any], longest: int = MAX_CATEGORY_LENGTH) -> pd.Series[Any]:
    """Categorical values as canonical strings, None where missing (empty strings count as missing)."""
    return coded(values, longest).strings(values)


def coded(values: pd.Series[Any], longest: int = MAX_CATEGORY_LENGTH) -> Categories:
    """Categorical values in codes."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    codes, known = pd.factorize(values)
    texts = [canonical_category(value, longest) for value in known]
    pairs = zip(known, texts, strict=True)
    if values.dtype == object and all(type(value) is str and value == text for value, text in pairs):
        return Categories(codes.astype(np.int64, copy=False), known, bool(len(codes) and codes.min() >= 0))
    places, names = pd.factorize(np.array([*texts, None], dtype=object))  # 1 and "1" are one; what is missing is at -1
    return Categories(places.astype(np.int64)[codes], pd.Index(names, dtype=object), False)


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


def as_datetimes(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Moments as datetime64[us], UTC without zone; naive input counts as UTC."""
    try:
        parsed = pd.to_datetime(values, utc=True, format=None if values.dtype.kind in "Mm" else "ISO8601")
    except (ValueError, TypeError, OverflowError) as error:
        row, value = _first_bad(values, lambda one: pd.to_datetime(one, utc=True, format="ISO8601"))
        raise RowError(f"column {name!r}, row {row}: expected an ISO 8601 date and time, got {value}") from error
    return parsed.dt.tz_localize(None).astype("datetime64[us]")


def _numeric(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    try:
        out = values if values.dtype == np.float64 else pd.to_numeric(values).astype("float64")
    except (ValueError, TypeError) as error:
        row, value = _first_bad(values, pd.to_numeric)
        raise RowError(f"column {name!r}, row {row}: expected a number, got {value}") from error
    endless = np.isinf(out.to_numpy())
    return out.mask(endless) if endless.any() else out


_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "t": 1.0, "f": 0.0, "1": 1.0, "0": 0.0}


def truth(text: str) -> float | None:
    """What a canonical string means in a boolean column: 1.0, 0.0, or None if it means neither.

    >>> truth("Yes"), truth("0"), truth("maybe")
    (1.0, 0.0, None)
    """
    return _TRUTH.get(text.strip().lower())


def _boolean(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    texts = _strings(values, name)
    out = texts.map(truth, na_action="ignore").astype("float64")
    bad = np.flatnonzero(out.isna().to_numpy() & texts.notna().to_numpy())
    if bad.size:
        raise RowError(f"column {name!r}, row {bad[0]}: expected true or false, got {_shown(values.iloc[bad[0]])}")
    return out


def _images(values: pd.Series[Any], column: ImageColumn) -> pd.Series[Any]:
    out: list[bytes | None] = []
    for row, value in enumerate(values):
        try:
            missing = pd.api.types.is_scalar(value) and pd.isna(value)
            out.append(None if missing else to_pnm(decode(value, column.size, column.channels)))
        except ImageError as error:
            raise RowError(f"column {column.name!r}, row {row}: expected {error}, got {_shown(value)}") from error
    return pd.Series(out, index=values.index, name=values.name, dtype=object)


def _first_bad(values: pd.Series[Any], parse: Any) -> tuple[int, str]:
    """The row and the text of the first value that cannot be parsed; lists and the like never can."""
    for row, value in enumerate(values):
        if not pd.api.types.is_scalar(value):
            return row, _shown(value)
        if pd.isna(value):
            continue
        try:
            parse(value)
        except (ValueError, TypeError, OverflowError):
            return row, _shown(value)
    return 0, _shown(values.iloc[0])


def _shown(value: object) -> str:
    """A value as messages show it: in plain Python, and not at any length.

    >>> _shown(np.float64(1.0)), _shown([np.int64(1), "a"])
    ('1.0', "[1, 'a']")
    """
    text = repr(_plain(value))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _plain(value: object) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list) else value
