"""Tensors as rows, the form in which every request is checked, answered and logged; and scores as tensors.

One tensor a column, [n] or [n, 1], named as the column; or one tensor [n, k] of any other name, whose k columns are
the schema's, in its order. By the kind of the column:

    numeric       a tensor of numbers; NaN where missing
    boolean       BOOL; numbers 1 and 0 with NaN where missing; BYTES of the words that JSON requests may use
    datetime      BYTES of ISO 8601; INT64 microseconds since 1970 UTC, the smallest INT64 where missing (so numpy's
                  datetime64[us] viewed as int64); FP64 of the same
    categorical   BYTES; numbers and BOOL as JSON requests may use them
    text          BYTES
    image         BYTES: a file as it is, or as base64 text

Empty BYTES are a missing value everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from registry.schema import Schema
from registry.scoring import MISSING_TIME, Scores
from registry.target import Target
from serving.quoting import shorten, shown
from serving.rows import MisfitError, Row
from serving.tensors import BOOL, BYTES, FP64, INT64, Output, Tensor, TensorError

_EPOCH = datetime(1970, 1, 1)


def rows_of(tensors: Sequence[Tensor], schema: Schema, time: str | None) -> list[Row]:
    """The rows that tensors hold; `time` is the task's time column, which the schema need not have.

    Raises `TensorError` when tensors are not of one length, or of more columns than the schema has; `MisfitError` for a
    value that is none of its column's. Whether all columns are there is the row reader's to say.
    """
    kinds = {time: "datetime"} if time is not None else {}
    kinds |= {column.name: column.kind for column in schema.columns}
    first = tensors[0]
    if len(tensors) == 1 and first.name not in kinds:
        return _matrix(first, schema)
    columns = [_column(tensor, kinds.get(tensor.name, "")) for tensor in tensors]
    if any(tensor.rows != first.rows for tensor in tensors):
        other = next(tensor for tensor in tensors if tensor.rows != first.rows)
        lengths = f"{first.rows} in {shown(first.name)}, {other.rows} in {shown(other.name)}"
        raise TensorError(f"inputs: expected as many rows in each tensor, got {lengths}")
    names = [tensor.name for tensor in tensors]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def outputs_of(ids: Sequence[str], scores: Scores, target: Target) -> list[Output]:
    """The outputs for n rows, but `out_of_distribution`; classes by their names, k of them in the target's order."""
    n, k = len(ids), len(target.classes)
    found = [Output("id", BYTES, [n, 1], ids)]
    if scores.probabilities is None or scores.sets is None:
        interval: Any = scores.interval
        found += [Output("prediction", FP64, [n, 1], scores.prediction), Output("interval", FP64, [n, 2], interval)]
    else:
        found.append(Output("prediction", BYTES, [n, 1], scores.prediction.tolist()))
        found.append(Output("probabilities", FP64, [n, k], scores.probabilities))
        found.append(Output("set", BOOL, [n, k], scores.sets))
    found.append(Output("uncertainty", FP64, [n, 1], scores.uncertainty))
    found.append(Output("disagreement", FP64, [n, 1], scores.disagreement))
    return found


def _matrix(tensor: Tensor, schema: Schema) -> list[Row]:
    names, width = schema.names, tensor.width
    if width != len(names):
        raise TensorError(
            f"input {shown(tensor.name)}: expected an input for each column, named as it, or one of "
            f"{len(names)} columns, {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}; got {width}"
        )
    columns = [
        _values(tensor.values[place::width], tensor.datatype, column.kind, column.name)
        for place, column in enumerate(schema.columns)
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(tensor: Tensor, kind: str) -> list[Any]:
    if tensor.width != 1:
        raise TensorError(f"input {shown(tensor.name)}: expected one column, got {tensor.width}")
    return _values(tensor.values, tensor.datatype, kind, tensor.name)


def _values(values: list[Any], datatype: str, kind: str, name: str) -> list[Any]:
    if datatype == BYTES:
        return [_text(value, kind, row, name) if value else None for row, value in enumerate(values)]
    if kind != "datetime":
        return values
    if datatype not in (INT64, FP64):
        raise TensorError(
            f"input {shown(name)}: expected BYTES of ISO 8601 dates and times, or INT64 microseconds since 1970 "
            f"UTC, got {datatype}"
        )
    return [_moment(value, row, name) for row, value in enumerate(values)]


def _text(value: bytes | str, kind: str, row: int, name: str) -> str:
    if isinstance(value, str):
        return value
    if kind == "image" and (b"\0" in value or not value.isascii()):
        return base64.b64encode(value).decode()
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        message = f"row {row}, column {shown(name)}: expected UTF-8 text, got {shorten(value)}"
        raise MisfitError(message, row=row, column=name) from error


def _moment(value: float | None, row: int, name: str) -> str | None:
    if value is None or value == MISSING_TIME:
        return None
    try:
        return (_EPOCH + timedelta(microseconds=value)).isoformat()
    except OverflowError as error:
        message = f"row {row}, column {shown(name)}: expected microseconds since 1970 UTC, got {value}"
        raise MisfitError(message, row=row, column=name, value=value) from error
