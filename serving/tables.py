"""Bodies that hold columns: which form they have, and those in JSON, `{"columns": {...}, "ids": [...]}`."""

from __future__ import annotations

from serving.columns import Kinds, Table
from serving.quoting import shorten, shown
from serving.rows import MisfitError, TooManyRowsError

STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
_MAGIC = ((b"\xff\xff\xff\xff", STREAM), (b"ARROW1", FILE), (b"PAR1", PARQUET))


def form_of(body: bytes) -> str | None:
    """The media type of a body of columns, by its first bytes; None when it is none."""
    return next((form for magic, form in _MAGIC if body.startswith(magic)), None)


def table_of_lists(columns: object, kinds: Kinds, *, max_rows: int) -> Table:
    """The table of `{"columns": {...}}`: lists of JSON values by name. Raises `MisfitError`, `TooManyRowsError`."""
    if not isinstance(columns, dict) or not columns:
        raise MisfitError(f"columns: expected an object of lists, got {shown(columns)}")
    for name, values in columns.items():
        if not isinstance(values, list):
            message = f"column {shown(name)}: expected a list of values, got {shown(values)}"
            raise MisfitError(message, column=str(shorten(name)))
    lengths = {name: len(values) for name, values in columns.items()}
    rows = lengths[next((name for name in kinds if name in lengths), next(iter(lengths)))]
    if odd := next((name for name, length in lengths.items() if length != rows), None):
        message = f"column {shown(odd)}: expected {rows} values, as many as the others have, got {lengths[odd]}"
        raise MisfitError(message, column=str(shorten(odd)))
    check_rows(rows, max_rows)
    kept = {name: columns[name] for name in kinds if name in columns}
    return Table(kept, rows, others=tuple(name for name in columns if name not in kept))


def check_rows(rows: int, max_rows: int) -> None:
    """Raises `MisfitError` for no rows, `TooManyRowsError` above `max_rows`."""
    if rows == 0:
        raise MisfitError("expected at least one row, got none")
    if rows > max_rows:
        raise TooManyRowsError(f"expected at most {max_rows} rows in one request, got {rows}")
