"""Arrow IPC (stream or file) and Parquet, as bodies and as answers. Loaded with the first of them: it takes 30 MB.
Arrow's functions of columns and Parquet's reader would take 10 more: the first are hardly used, and values made in
numpy, the other is loaded with the first such body.

A column `__id__` of an Arrow or Parquet body holds the client's ids. Columns that no model reads are not looked at.

What comes from strangers stays small: compressed Arrow buffers and Parquet files that unpack to more than
`MOST_TIMES` what a body may have are refused before they are unpacked, and what they hold is checked for buffers that
are not there (`validate(full=True)`).
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from registry.schema import MAX_CATEGORY_LENGTH, canonical_category
from serving.answers import Columns
from serving.columns import Kinds, Table, Values
from serving.problems import BodyError, TooLargeError
from serving.quoting import shorten, shown
from serving.rows import MisfitError
from serving.tables import FILE, PARQUET, STREAM, check_rows

ID_COLUMN = "__id__"
MOST_TIMES = 16
_FURTHEST = {"ms": (2**63 - 1) // 1_000, "s": (2**63 - 1) // 1_000_000, "D": (2**63 - 1) // 86_400_000_000}
"""Moments, either way, that microseconds have room for."""


def table_of(body: bytes, form: str, kinds: Kinds, *, max_rows: int, max_bytes: int) -> tuple[Table, list[Any] | None]:
    """The columns of an Arrow or Parquet body that `kinds` names, and the ids beside them, if any.

    Raises `BodyError` for what cannot be read, `TooLargeError`, `TooManyRowsError`, `MisfitError`.
    """
    wanted = [*kinds, ID_COLUMN]
    try:
        if form == PARQUET:
            found, others = _parquet(body, wanted, max_rows, max_bytes)
        else:
            found, others = _arrow(body, form, wanted, max_rows)
        found.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        raise BodyError(f"the body is no {form} that can be read: {str(error)[:200]}") from error
    check_rows(found.num_rows, max_rows)
    full = set[str]()
    columns = {
        name: _values(name, found.column(name), kinds[name], MOST_TIMES * max_bytes, full)
        for name in found.column_names
        if name != ID_COLUMN
    }
    ids = _listed(ID_COLUMN, found.column(ID_COLUMN)) if ID_COLUMN in found.column_names else None
    return Table(columns, found.num_rows, form, frozenset(full), others), ids


def packed(columns: Columns, told: dict[str, Any], form: str) -> bytes:
    """An answer's columns as Arrow or Parquet; the schema's metadata `everfit` are what was told, as JSON."""
    arrays = {name: _array(values) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({"everfit": orjson.dumps(told)})
    sink = io.BytesIO()
    if form == PARQUET:
        import pyarrow.parquet as pq

        pq.write_table(table, sink)
    else:
        make = pa.ipc.new_stream if form == STREAM else pa.ipc.new_file
        with make(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def _array(values: Any) -> pa.Array:
    if isinstance(values, dict):
        return pa.StructArray.from_arrays([pa.array(part) for part in values.values()], names=list(values))
    return pa.array(values)


def is_compressed(metadata: bytes) -> bool:
    """Whether the metadata of an Arrow message are those of a record batch with compressed buffers (Message.fbs: the
    header is the third field, a record batch its third kind; its compression is the fourth field)."""
    message = _root(metadata)
    kind_at, header_at = _field(metadata, message, 1), _field(metadata, message, 2)
    if kind_at is None or header_at is None:
        return False
    kind = metadata[kind_at]
    header = header_at + struct.unpack_from("<I", metadata, header_at)[0]
    if kind == 2:  # a dictionary batch: its record batch is the second field
        inner = _field(metadata, header, 1)
        if inner is None:
            return False
        header = inner + struct.unpack_from("<I", metadata, inner)[0]
    return kind in (2, 3) and _field(metadata, header, 3) is not None


def _root(metadata: bytes) -> int:
    return int(struct.unpack_from("<I", metadata, 0)[0])


def _field(metadata: bytes, table: int, slot: int) -> int | None:
    """Where a field of a flatbuffer's table lies; None where it is left out."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0:
        raise ValueError("a table of its metadata begins before them")
    if 4 + 2 * slot >= struct.unpack_from("<H", metadata, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * slot)[0]
    return table + offset if offset else None


def _arrow(body: bytes, form: str, wanted: Sequence[str], max_rows: int) -> tuple[pa.Table, tuple[str, ...]]:
    stream = pa.py_buffer(body)
    if form == FILE:
        stream = stream.slice(8)  # a file is a stream between its magic and its footer
    batches: list[pa.RecordBatch] = []
    for message in pa.ipc.MessageReader.open_stream(stream):
        if is_compressed(message.metadata.to_pybytes()):
            raise ValueError("its buffers are compressed: send them as they are")
    with pa.ipc.open_stream(stream) as reader:
        rows = 0
        for batch in reader:
            rows += batch.num_rows
            check_rows(max(rows, 1), max_rows)
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
    _check_names(table.column_names)
    return table.select([name for name in wanted if name in table.column_names]), _others(table.column_names, wanted)


def _parquet(body: bytes, wanted: Sequence[str], max_rows: int, max_bytes: int) -> tuple[pa.Table, tuple[str, ...]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(body))
    metadata = file.metadata
    check_rows(metadata.num_rows, max_rows)
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    if size > MOST_TIMES * max_bytes:
        raise TooLargeError(f"the body unpacks to {size} bytes: expected at most {MOST_TIMES * max_bytes}")
    names = file.schema_arrow.names
    _check_names(names)
    return file.read([name for name in wanted if name in names], use_threads=False), _others(names, wanted)


def _others(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of columns that nobody reads."""
    return tuple(name for name in names if name not in wanted)


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise MisfitError(f"column {shown(twice)} is there twice", column=str(shorten(twice)))


def _values(name: str, column: pa.ChunkedArray, kind: str, most_bytes: int, full: set[str]) -> Values:
    """A column's values; one of categories is added to `full` if none is missing, since its dictionary tells that."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):  # of several chunks that one array cannot hold
        raise BodyError(f"column {name!r}: it is too long")
    if _is_nested(array.type):
        raise MisfitError(f"column {shown(name)}: expected single values, got {array.type}", column=name)
    if kind in ("numeric", "boolean") and (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
    if kind == "numeric" and pa.types.is_decimal(array.type):
        return np.array([np.nan if one is None else float(one) for one in _listed(name, array)], dtype=np.float64)
    if kind == "boolean" and pa.types.is_boolean(array.type) and not array.null_count:
        return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)
    if kind == "datetime" and (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        return _moments(name, array.to_numpy(zero_copy_only=False))
    if kind == "categorical":
        categories, gaps = _categories(name, array)
        if not gaps:
            full.add(name)
        return categories
    _check_size(name, array, most_bytes)
    values = _listed(name, array)
    if pa.types.is_temporal(array.type) or pa.types.is_decimal(array.type):
        return [None if one is None else str(one) for one in values]
    return [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in values]


def _moments(name: str, moments: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Moments in microseconds: what is finer is cut off, what does not fit is refused and not wrapped around."""
    unit, _ = np.datetime_data(moments.dtype)
    known = moments[~np.isnat(moments)].view(np.int64)
    if known.size and max(known.max(), -known.min()) > _FURTHEST.get(unit, np.inf):
        raise MisfitError(
            f"column {shown(name)}: expected moments of the years 1 to 9999, got one far from them", column=name
        )
    return np.asarray(moments, "datetime64[us]")


def _is_nested(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_nested(inner) or pa.types.is_dictionary(inner) or isinstance(inner, pa.BaseExtensionType))


def _categories(name: str, array: pa.Array) -> tuple[npt.NDArray[Any], bool]:
    """Canonical strings, and whether there may be missing ones; each distinct value is looked at once."""
    if pa.types.is_dictionary(array.type):
        coded = [_category(one) for one in _listed(name, array.dictionary)]
        codes = array.indices.to_numpy(zero_copy_only=False)
        places = np.where(np.isnan(codes), len(coded), codes) if array.indices.null_count else codes
        found = np.array([*coded, ""], dtype=object)[places.astype(np.int64)]
        return found, "" in coded or array.indices.null_count > 0
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        values = array.to_numpy(zero_copy_only=False).tolist()
        known = {one: (one or "")[:MAX_CATEGORY_LENGTH] for one in {*values}}  # what `_category` does to text
    else:
        values = _listed(name, array)
        known = {one: _category(one) for one in {*values}}
    found = np.fromiter(map(known.__getitem__, values), dtype=object, count=len(values))
    return found, "" in known.values()


def _listed(name: str, array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values as Python's, which has none for some moments: far ones, those of a nanosecond or of a zone it lacks."""
    try:
        values: list[Any] = array.to_pylist()
    except (ValueError, OverflowError, LookupError) as error:
        message = f"column {shown(name)}: expected values that can be read, got {array.type}: {str(error)[:100]}"
        raise MisfitError(message, column=name) from error
    return values


def _category(value: Any) -> str:
    if isinstance(value, bytes):
        raise MisfitError("a category: expected text, a number or a boolean, got bytes")
    missing = value is None or value != value
    return "" if missing else canonical_category(value) or ""


def _check_size(name: str, array: pa.Array, most_bytes: int) -> None:
    """A dictionary of a few long values may stand for very many bytes."""
    if not pa.types.is_dictionary(array.type) or not _has_lengths(array.dictionary.type):
        return
    import pyarrow.compute as pc

    lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
    if (size := pc.sum(lengths).as_py() or 0) > most_bytes:
        raise TooLargeError(f"column {name!r} unpacks to {size} bytes: expected at most {most_bytes}")


def _has_lengths(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))
