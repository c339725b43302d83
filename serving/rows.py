"""Rows of a request as the graph's inputs: validation compiled once from the schema, quick for one row and for many.

JSON has fewer types than a frame, so a request is read more strictly than `conform` reads history:

    numeric       a number; no text, no boolean, nothing beyond single precision
    boolean       true, false, 0, 1, or the words that training data may use for them ("yes", "f", ...)
    datetime      ISO 8601 text; without a zone it counts as UTC
    categorical   text, a number or a boolean: `canonical_category` makes them one
    text          text
    image         base64 text of an image file; no path, since a server reads no file that a client names

`null` is a missing value everywhere. A column that is absent is an error, since a client that forgot it and one that
has no value must not look alike. Columns the schema does not have are ignored; `unknown` names them, but for those that
training left out: rows that come as they stand in the source hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from registry.errors import RowError, nearest
from registry.images import ImageError, Pixels, decode_sent, stack
from registry.schema import MAX_CATEGORY_LENGTH, Column, ImageColumn, Schema, canonical_category, truth
from registry.scoring import MISSING_TIME, Feed, input_shape
from registry.texts import TextNumbers
from serving.columns import Table, Values, plain
from serving.quoting import shorten, shown

MAX_IMAGE_BYTES = 2**27
"""Of one request's images, decoded and of the size that is read."""

LARGEST = float(np.finfo(np.float32).max)
"""Graphs reckon in single precision: a larger number would become infinite there."""

Row: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
_YEARS = np.datetime64("0001-01-01", "us"), np.datetime64("10000-01-01", "us")


class MisfitError(RowError):
    """A value that does not fit, with its place: what an answer of status 422 names."""

    def __init__(self, message: str, *, row: int | None = None, column: str | None = None, value: object = None):
        super().__init__(message)
        self.row, self.column, self.value = row, column, shorten(value)


class TooManyRowsError(RowError):
    """More rows than one request may hold."""


class _WrongTypeError(ValueError):
    """Raised by a converter; its text is what was expected."""


class RowReader:
    """The schema, compiled. Without images `one` and `together` reuse the arrays made for as many rows: call them from
    one thread, and use what they return before the next call. `many` makes new ones and may run anywhere."""

    def __init__(self, schema: Schema, time: str | None = None) -> None:
        """`time` is the task's time column. If the schema does not have it, it is checked when it comes."""
        self._columns = [(column.name, _converter(column), _DTYPES[column.kind]) for column in schema.columns]
        self._shapes = {column.name: input_shape(column) for column in schema.columns}
        self._arrays: dict[int, tuple[Feed, list[npt.NDArray[Any]]]] = {}
        self._image = schema.image
        self._time = time if time not in schema.names else None
        self._known = {*schema.names, time, *(one.name for one in schema.left_out)}

    def values(self, row: Row) -> list[Any]:
        """One row's values as the graph takes them, in the order of the columns. Raises `MisfitError`."""
        try:
            found = [convert(row[name]) for name, convert, _ in self._columns]
            if self._time is not None:
                _time(row.get(self._time))
        except (_WrongTypeError, LookupError, TypeError) as error:
            raise self._explain([row]) from error
        return found

    def together(self, rows: Sequence[list[Any]]) -> Feed:
        """The inputs of n rows' `values`, each (n, 1) or (n, *`input_shape`)."""
        if (known := self._arrays.get(len(rows))) is None:
            made = {name: np.empty((len(rows), *self._shapes[name]), dtype) for name, _, dtype in self._columns}
            places = [array[:, 0] if array.shape[1:] == (1,) else array for array in made.values()]
            known = made, places
            if self._image is None:  # arrays of images are large, and filled in threads
                self._arrays[len(rows)] = known
        feed, columns = known
        for number, values in enumerate(rows):
            for column, value in zip(columns, values, strict=True):
                column[number] = value
        return feed

    def one(self, row: Row) -> Feed:
        """The inputs of one row. Raises `MisfitError`."""
        return self.together([self.values(row)])

    def many(self, rows: Sequence[Row]) -> Feed:
        """The inputs of n rows. Raises `MisfitError` for the first row that does not fit, `TooManyRowsError` when their
        images would take too much memory."""
        if self._image is not None:
            _require_room(len(rows), self._image)
        try:
            if self._time is not None:
                for row in rows:
                    _time(row.get(self._time))
            return {
                name: _column([row[name] for row in rows], convert, dtype, self._shapes[name])
                for name, convert, dtype in self._columns
            }
        except (_WrongTypeError, LookupError, TypeError, AttributeError) as error:
            raise self._explain(rows) from error

    def table(self, table: Table) -> Feed:
        """The inputs of a table's rows. Raises as `many` does."""
        if self._image is not None:
            _require_room(table.rows, self._image)
        columns = table.columns
        try:
            if self._time in columns:
                _moments(columns[self._time])
            return {
                name: _whole(columns[name], convert, dtype, self._shapes[name])
                for name, convert, dtype in self._columns
            }
        except (_WrongTypeError, LookupError, TypeError) as error:
            raise self._explain(table.records(), table.others) from error

    def ignored(self, rows: Sequence[Row]) -> int:
        """How many values of rows that fit stand in columns that `unknown` names."""
        return 0 if self._are_bare(rows) else sum(name not in self._known for row in rows for name in row)

    def unknown(self, rows: Sequence[Row]) -> list[str]:
        """The columns of rows that fit which training has not seen, each once."""
        return [] if self._are_bare(rows) else self.strange(name for row in rows for name in row)

    def strange(self, names: Iterable[str]) -> list[str]:
        """Those of the columns which training has not seen, each once: neither the schema has them nor were they left
        out of it."""
        return list(dict.fromkeys(name for name in names if name not in self._known))

    def _are_bare(self, rows: Sequence[Row]) -> bool:
        """Whether rows that fit hold nothing but the schema's columns."""
        return sum(map(len, rows)) == len(rows) * len(self._columns)

    def _explain(self, rows: Sequence[Any], others: Sequence[str] = ()) -> MisfitError:
        """The first misfit in reading order; the quick paths only find out that there is one. `others` are columns that
        came and are not in the rows."""
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                return MisfitError(f"row {number}: expected an object of columns, got {shown(row)}", row=number)
            if (found := self._misfit(number, row, others)) is not None:
                return found
        raise AssertionError("a row that does not fit must be found again")

    def _misfit(self, number: int, row: Row, others: Sequence[str]) -> MisfitError | None:
        checks = [(name, convert) for name, convert, _ in self._columns]
        for name, convert in [*checks, (self._time, _time)] if self._time in row else checks:
            where = f"row {number}, column {name!r}"
            if name not in row:
                near = nearest(str(name), (one for one in (*row, *others) if one not in self._known))
                sent = f" ({near!r} was sent, which is no column of the model)" if near is not None else ""
                message = f"{where}: the row lacks it{sent}; a missing value is written null"
                return MisfitError(message, row=number, column=name)
            try:
                convert(row[name])
            except _WrongTypeError as error:
                message = f"{where}: expected {error}, got {shown(row[name])}"
                return MisfitError(message, row=number, column=name, value=row[name])
        return None


def _require_room(rows: int, image: ImageColumn) -> None:
    most = MAX_IMAGE_BYTES // math.prod(shape := input_shape(image))
    if rows > most:
        form = " x ".join(map(str, shape))
        raise TooManyRowsError(f"rows: expected at most {most} in one request, with images of {form}, got {rows}")


def micros(text: str) -> int:
    """Microseconds since 1970 UTC of ISO 8601 text; without a zone it counts as UTC. Raises `ValueError`.

    >>> micros("1970-01-01T00:00:01"), micros("1970-01-01 01:00+01:00")
    (1000000, 0)
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return (moment - _EPOCH) // _MICROSECOND


def _number(value: Any) -> float:
    kind = type(value)
    if kind is float or kind is int:
        if -LARGEST <= value <= LARGEST:
            return float(value)
        raise _WrongTypeError(f"a number between {-LARGEST:.3g} and {LARGEST:.3g}")
    if value is None:
        return math.nan
    raise _WrongTypeError("a number")


def _truth(value: Any) -> float:
    if value is True:
        return 1.0
    if value is False:
        return 0.0
    if value is None or value == "":
        return math.nan
    text = canonical_category(value) if isinstance(value, (str, int, float)) else None
    found = None if text is None else truth(text)
    if found is None:
        raise _WrongTypeError("true or false")
    return found


def _time(value: Any) -> int:
    if value is None:
        return MISSING_TIME
    if isinstance(value, str):
        try:
            return micros(value)
        except ValueError:
            pass
    raise _WrongTypeError("an ISO 8601 date and time")


def _category(value: Any) -> str:
    if type(value) is str:
        return value[:MAX_CATEGORY_LENGTH]
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return canonical_category(value) or ""
    raise _WrongTypeError("text, a number or a boolean")


def _converter(column: Column) -> Convert:
    if column.kind == "image":
        return _image_converter(column)
    if column.kind != "text":
        return _CONVERTERS[column.kind]
    numbers = TextNumbers(column.words)

    def convert(value: Any) -> npt.NDArray[np.float64]:
        if value is None or isinstance(value, str):
            return numbers.of(value or None)
        raise _WrongTypeError("text")

    return convert


def _image_converter(column: ImageColumn) -> Convert:
    absent: Pixels = stack([None], column.size, column.channels, column.fill)[0]

    def convert(value: Any) -> Pixels:
        if value is None:
            return absent
        try:
            return decode_sent(value, column.size, column.channels)
        except ImageError as error:
            raise _WrongTypeError(str(error)) from error

    return convert


_CONVERTERS: dict[str, Convert] = {"numeric": _number, "boolean": _truth, "datetime": _time, "categorical": _category}
_DTYPES: dict[str, Any] = {
    "numeric": np.float64,
    "boolean": np.float64,
    "datetime": np.int64,
    "categorical": object,
    "text": np.float64,
    "image": np.uint8,
}
_NUMBERS = {float, int, type(None)}


def _column(values: list[Any], convert: Convert, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if convert is _number and set(map(type, values)) <= _NUMBERS:
        found = np.array(values, dtype=np.float64)
        if not (np.abs(found) > LARGEST).any():
            return found[:, None]
    out = np.empty((len(values), *shape), dtype=dtype)
    if shape == (1,):
        out[:, 0] = [convert(value) for value in values]
    else:
        for row, value in enumerate(values):
            out[row] = convert(value)
    return out


def _whole(values: Values, convert: Convert, dtype: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A column of a table: arrays need no look at each value where they are of the type that is wanted."""
    if isinstance(values, list):
        return _column(values, convert, dtype, shape)
    if dtype is object and values.dtype == object:
        return values[:, None]
    if dtype is np.int64 and values.dtype.kind == "M":
        _moments(values)
        return values.astype("datetime64[us]").view(np.int64)[:, None]
    if convert is _truth and (values.dtype == bool or _are_truths(values)):
        return values.astype(np.float64)[:, None]
    if convert is _number and values.dtype.kind == "f" and not (np.abs(values) > LARGEST).any():
        return values.astype(np.float64, copy=False)[:, None]
    return _column(plain(values), convert, dtype, shape)


def _are_truths(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and bool(((values == 0) | (values == 1) | np.isnan(values)).all())


def _moments(values: Values) -> None:
    """Raise unless they are moments that ISO 8601 and the log can write: Arrow's may lie in any year."""
    if isinstance(values, list) or values.dtype.kind != "M":
        for value in plain(values):
            _time(value)
    elif ((values < _YEARS[0]) | (values >= _YEARS[1])).any():
        raise _WrongTypeError("a moment of the years 1 to 9999")
