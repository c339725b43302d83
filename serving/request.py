"""What a body holds: rows, and the ids that the client gives them. What is in a row is `rows.py`'s matter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.errors import did_you_mean
from serving.body import parse
from serving.columns import Kinds, Table
from serving.quoting import shorten, shown
from serving.rows import MisfitError, Row, TooManyRowsError
from serving.tables import form_of, table_of_lists

MAX_ID_LENGTH = 64
_OTHERS = ("instances", "inputs", "dataframe_split", "dataframe_records")
"""Keys by which bodies of other protocols are told."""
_MLFLOW, _V2 = "/invocations or /models/TASK/invocations", "/v2/models/TASK/infer"
JSON_BEGINS = (b"{", b"[")


@dataclass(frozen=True)
class Request:
    """The rows of a request and the ids the client gave them, if any. Where there is a `table`, `rows` is empty."""

    rows: list[Row]
    ids: list[str] | None = None
    table: Table | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.table is None else self.table.rows


def arrow_is_loaded() -> bool:
    """Whether Arrow was read or written before: the first time takes a moment, and a thread."""
    return "serving.arrow" in sys.modules


def read_rows(body: bytes, kinds: Kinds, *, max_rows: int, max_bytes: int) -> Request:
    """The rows of a body: JSON as `read_request` takes it, Arrow IPC or Parquet; which of them, its first bytes say.

    Raises `BodyError`, `TooLargeError`, `MisfitError`, `TooManyRowsError`.
    """
    if body[:1] in JSON_BEGINS or (form := form_of(body)) is None:
        return read_request(parse(body), kinds, max_rows)
    from serving.arrow import table_of

    table, ids = table_of(body, form, kinds, max_rows=max_rows, max_bytes=max_bytes)
    return Request([], None if ids is None else check_ids(ids, table.rows), table)


def read_request(parsed: object, kinds: Kinds, max_rows: int) -> Request:
    """The rows of a parsed body: one row, a list of rows, `{"rows": [...], "ids": [...]}`, or by columns, `{"columns":
    {...}, "ids": [...]}`.

    Raises `MisfitError` for any other shape, `TooManyRowsError` above `max_rows`.
    """
    if isinstance(parsed, list):
        return _checked(parsed, None, max_rows)
    if not isinstance(parsed, dict):
        raise MisfitError(f"expected a row, a list of rows or {{'rows': [...]}}, got {shown(parsed)}")
    if isinstance(parsed.get("columns"), dict):
        check_keys(parsed, ("columns", "ids"))
        table = table_of_lists(parsed["columns"], kinds, max_rows=max_rows)
        ids = parsed.get("ids")
        return Request([], None if ids is None else check_ids(ids, table.rows), table)
    if (other := _other_protocol(parsed, kinds)) is not None:
        raise MisfitError(other)
    if len(parsed) <= 2 and kinds.keys().isdisjoint(parsed):  # no row of this task: a shape that is misspelt
        for key in parsed:
            if (near := did_you_mean(key, ("rows", "columns"))) and "rows" not in parsed:
                raise MisfitError(
                    f"expected a row, a list of rows or {{'rows': [...]}}, got the key {shown(key)}{near}"
                )
    if "rows" not in parsed or ("rows" in kinds and not isinstance(parsed["rows"], list)):
        return Request([parsed])
    if not isinstance(parsed["rows"], list):
        raise MisfitError(f"rows: expected a list of rows, got {shown(parsed['rows'])}")
    check_keys(parsed, ("rows", "ids"))
    return _checked(parsed["rows"], parsed.get("ids"), max_rows)


def _other_protocol(parsed: Mapping[str, Any], kinds: Kinds) -> str | None:
    """What is said of a body of another protocol that an endpoint answers, each at its own path; None of others."""
    found = next((one for one in _OTHERS if one in parsed), None)
    if found is None or not kinds.keys().isdisjoint(parsed):
        return None
    values = parsed[found]
    tensors = isinstance(values, list) and bool(values) and isinstance(values[0], dict) and "datatype" in values[0]
    known = ("the Open Inference Protocol (V2)", _V2) if found == "inputs" and tensors else ("MLflow", _MLFLOW)
    said = "expected a row, a list of rows or {'rows': [...]}"
    return f"{said}, got the key {shown(found)} of {known[0]}, which is spoken at {known[1]}"


def check_keys(parsed: Mapping[str, Any], known: Sequence[str], row: int | None = None) -> None:
    """A key that nobody reads may be one that is misspelt. Raises `MisfitError`."""
    if (wrong := next((key for key in parsed if key not in known), None)) is not None:
        near = did_you_mean(wrong, known)
        where = "" if row is None else f"row {row}: "
        message = f"{where}expected no keys but {', '.join(known)}, got {shown(wrong)}{near}"
        raise MisfitError(message, row=row, column=str(shorten(wrong)))


def _checked(rows: list[Any], ids: object, max_rows: int) -> Request:
    if not rows:
        raise MisfitError("rows: expected at least one row, got none")
    if len(rows) > max_rows:
        raise TooManyRowsError(f"rows: expected at most {max_rows} in one request, got {len(rows)}")
    return Request(rows, None if ids is None else check_ids(ids, len(rows)))


def check_ids(ids: object, expected: int) -> list[str]:
    """The ids of a request, one a row. Raises `MisfitError` unless they are unique, printable and short."""
    if not isinstance(ids, list) or len(ids) != expected:
        found = f"{len(ids)} of them" if isinstance(ids, list) else repr(shorten(ids))
        raise MisfitError(f"ids: expected a list of {expected}, one for each row, got {found}")
    for row, one in enumerate(ids):
        check_id(one, row)
    if len(set(ids)) != len(ids):
        twice = next(one for row, one in enumerate(ids) if one in ids[:row])
        raise MisfitError(f"ids: expected unique ids, got {twice!r} twice", value=twice)
    return ids


def check_id(one: object, row: int) -> str:
    """One prediction id. Raises `MisfitError`."""
    if not isinstance(one, str) or not 0 < len(one) <= MAX_ID_LENGTH or not one.isprintable():
        message = f"row {row}: expected an id of 1 to {MAX_ID_LENGTH} printable characters, in quotes, got {shown(one)}"
        raise MisfitError(message, row=row, column="id", value=one)
    return one
