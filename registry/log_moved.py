"""The log of Everfit before batches, a row of the database for each prediction, moved into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_batch import Batch
from registry.log_packed import pack
from registry.log_tables import store
from registry.task import LogColumns

ROWS = 2_000
"""So many are read at once, and at most in one batch."""

_COLUMNS = (
    "task, role, version, conformal IS NULL, id, time, received, features, prediction, scores, conformal, private, "
    "sealed, uncertainty, disagreement"
)


def move(connection: Connection) -> None:
    """Make batches of the rows of `predictions`, in the order of time; nothing where the log has batches alone."""
    if not sa.inspect(connection).has_table("predictions"):
        return
    rows = sa.text(f"SELECT {_COLUMNS} FROM predictions ORDER BY task, role, time, id")
    for some in connection.execute(rows, execution_options={"yield_per": ROWS}).partitions(ROWS):
        for (task, *_), batch in _batches(some):
            store(connection, task, [pack(batch)])


def _batches(rows: Sequence[sa.Row[Any]]) -> Iterator[tuple[tuple[Any, ...], Batch]]:
    """Rows as batches of one task, role, version and kind each."""
    for key, some in groupby(sorted(rows, key=_key), _key):
        yield key, _batch(key[1], key[2], [row[4:] for row in some])


def _key(row: sa.Row[Any]) -> tuple[Any, ...]:
    return tuple(row[:4])


def _batch(role: Any, version: str, rows: Sequence[Sequence[Any]]) -> Batch:
    ids, times, received, features, predictions, scores, sets, private, sealed, total, apart = zip(*rows, strict=True)
    read = orjson.loads
    return Batch(
        version,
        role,
        ids,
        times,
        received,
        list(map(read, features)),
        list(map(read, predictions)),
        list(map(read, scores)),
        None if sets[0] is None else list(map(read, sets)),
        total,
        apart,
        [None if one is None else LogColumns.model_validate_json(one) for one in private],
        sealed,
    )
