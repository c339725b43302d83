"""Raw columns of a frame made to fit a schema: the conformed dtypes that `registry/schema.py` describes.

Apart from the schema itself, which the endpoint reads too: it never has a frame, and loads no pandas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.errors import RowError, did_you_mean
from registry.images import ImageError, decode, to_pnm
from registry.schema import (
    MAX_CATEGORY_LENGTH,
    CategoricalColumn,
    Column,
    ImageColumn,
    Schema,
    canonical_category,
    truth,
)
from registry.texts import MAX_TEXT_LENGTH

TEXT = pd.StringDtype("python", na_value=np.nan)
MAX_SHOWN = 100
"""Characters of a wrong value that a message shows."""


def conform(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """A schema's columns of a raw frame, in the conformed dtypes; other columns are dropped.

    Raises `RowError` that names column, value and row position for a vanished column or a value of a wrong type.
    Infinities become missing in numeric columns: a frame is history, where they are artefacts of a division.
    """
    gone = [name for name in schema.names if name not in frame.columns]
    if gone:
        near = did_you_mean(gone[0], [str(name) for name in frame.columns])
        raise RowError(f"column {gone[0]!r} is missing{near}; the frame has {len(frame.columns)} other columns")
    columns = {column.name: conform_column(frame[column.name], column) for column in schema.columns}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def conform_column(values: pd.Series[Any], column: Column) -> pd.Series[Any]:
    """One raw series in the conformed dtype of its column, with row index 0 to n - 1."""
    values = numbered(values)
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


def numbered(values: pd.Series[Any]) -> pd.Series[Any]:
    """The values with a row index from 0 to n - 1: the same series where it has that, as to make another takes time."""
    index = values.index
    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1 and index.name is None
    return values if plain else values.reset_index(drop=True)


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
            # pandas' own categories would be counted where no row has them
            return values if values.dtype == object else values.astype(object)
        strings = np.array([*self.names, None], dtype=object)[self.codes]  # -1, missing, is the last
        return pd.Series(strings, index=values.index, name=values.name, dtype=object)


def as_strings(values: pd.Series[Any], longest: int = MAX_CATEGORY_LENGTH) -> pd.Series[Any]:
    """Categorical values as canonical strings, None where missing (empty strings count as missing)."""
    return coded(values, longest).strings(values)


def coded(values: pd.Series[Any], longest: int = MAX_CATEGORY_LENGTH) -> Categories:
    """Categorical values in codes."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    strings, plain = values.dtype == "str", values.dtype == object
    codes, uniques = values.array.factorize() if strings else pd.factorize(values)  # the array, as an index is dear
    known = uniques.tolist()
    texts = [canonical_category(value, longest) for value in known]
    pairs = zip(known, texts, strict=True)
    if (plain or strings) and all(type(value) is str and value == text for value, text in pairs):
        whole = plain and bool(len(codes) and codes.min() >= 0)
        return Categories(codes.astype(np.int64, copy=False), pd.Index(known, dtype=object), whole)
    places, names = pd.factorize(np.array([*texts, None], dtype=object))  # 1 and "1" are one; what is missing is at -1
    return Categories(places.astype(np.int64)[codes], pd.Index(names, dtype=object), False)


def as_numbers(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Labels (n,) of a regression, NaN where missing. Raises `RowError`."""
    try:
        return pd.to_numeric(values).to_numpy(dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise RowError(f"label: expected a number ({error})") from error


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


def _boolean(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        numbers = values.to_numpy(dtype=np.float64)
        if ((numbers == 0) | (numbers == 1) | np.isnan(numbers)).all():  # what the texts below say too, at once
            return values if values.dtype == np.float64 else values.astype("float64")
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
