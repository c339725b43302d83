"""What the journal holds of a request by columns: already as the log will store it, so that the keeper, which has the
same core as the endpoint where there is only one, moves it and does not read it.

    payload    head, moments, outputs, features, others, each a line of JSON
    head       {"version": ..., "size": rows, "runs": [[name, start, size], ...], "earliest": ..., "latest": ...}
    others     columns of the request that are not logged: the shadow may read them

The rest is `registry.log_packed`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from registry.log_batch import Batch
from registry.log_ids import Run
from registry.log_packed import Packed, unpack
from registry.logged import members
from registry.scoring import Scores
from serving.columns import Table, Values, written
from serving.rows import Row, micros

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class Logged(NamedTuple):
    """Which of a version's columns are logged, and which one is the time, if one is."""

    names: Sequence[str]
    time: str | None


def payload(version: str, logged: Logged, runs: Sequence[Run], table: Table, scores: Scores, received: int) -> bytes:
    """A request's record."""
    columns = table.columns
    times = None if logged.time is None else _times(columns.get(logged.time), received)
    numbers = scores.interval if scores.probabilities is None else scores.probabilities
    head = {
        "version": version,
        "size": table.rows,
        "runs": runs,
        "earliest": received if times is None else times.min(),
        "latest": received if times is None else times.max(),
    }
    outputs = {
        "prediction": scores.prediction.tolist() if scores.prediction.dtype.kind in "OU" else scores.prediction,
        "scores": np.ascontiguousarray(numbers),
        "set": None if scores.sets is None else members(scores.sets),
        "uncertainty": scores.uncertainty,
        "disagreement": scores.disagreement,
    }
    others = [name for name in columns if name not in logged.names]
    return b"\n".join(
        [
            orjson.dumps(head, option=_OPTIONS),
            orjson.dumps({"received": [(received, table.rows)], "times": times}, option=_OPTIONS),
            orjson.dumps(outputs, option=_OPTIONS),
            written({name: columns[name] for name in logged.names}),
            written({name: columns[name] for name in others}),
        ]
    )


def _times(column: Values | None, received: int) -> Any:
    """Event times in microseconds: where a row has none, the moment when it came."""
    if column is None:
        return None
    if isinstance(column, np.ndarray) and column.dtype.kind == "M":
        return np.where(np.isnat(column), received, column.astype("datetime64[us]").view(np.int64))
    return np.array([micros(one) if isinstance(one, str) else received for one in column], dtype=np.int64)


class Tabled(NamedTuple):
    """Such a record, read as far as the log needs it."""

    packed: Packed
    others: bytes

    @property
    def made(self) -> Batch:
        """The predictions."""
        return unpack(self.packed)

    @property
    def rows(self) -> list[Row]:
        """The rows that were sent."""
        columns: Mapping[str, list[Any]] = {**orjson.loads(self.packed.features), **orjson.loads(self.others)}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def tabled(content: memoryview) -> Tabled:
    """A record of the journal. Raises `ValueError` or `LookupError` where it is none."""
    head, moments, outputs, features, others = bytes(content).split(b"\n")
    told = orjson.loads(head)
    runs = [(str(name), int(start), int(size)) for name, start, size in told["runs"]]
    packed = Packed(
        told["version"],
        "champion",
        runs,
        told["size"],
        told["earliest"],
        told["latest"],
        moments.decode(),
        outputs.decode(),
        features.decode(),
    )
    return Tabled(packed, others)
