"""Predictions as they are stored: one row of the database for all of a batch, its columns as JSON.

    ids        [[name, start, size], ...], see `log_ids`
    moments    {"received": [[microseconds, rows], ...], "times": [microseconds, ...] or null: as received}
    outputs    {"prediction": [...], "scores": [[...], ...], "set": [[place, ...], ...] or null,
                "uncertainty": [...], "disagreement": [...]}
    features   {column: [...], ...}
    private    [[columns not in plain or null, rows], ...], or null: none of any row
    sealed     [text or null, ...], or null

What is done for each row is what a log costs: whoever has columns already stores them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import orjson

from registry.log_batch import Batch, Role
from registry.log_ids import Run, ids_of, runs_of
from registry.privacy import to_json
from registry.task import LogColumns


@dataclass(frozen=True)
class Packed:
    """n predictions of one version; `earliest` and `latest` are the event times between which they lie."""

    version: str
    role: Role
    runs: Sequence[Run]
    size: int
    earliest: int
    latest: int
    moments: str
    outputs: str
    features: str
    private: str | None = None
    sealed: str | None = None

    def __len__(self) -> int:
        return self.size


def pack(batch: Batch) -> Packed:
    """A batch as it is stored. Raises `RowError` for an id that no database keeps."""
    times = None if list(batch.times) == list(batch.received) else list(batch.times)
    outputs = {
        "prediction": batch.predictions,
        "scores": batch.scores,
        "set": batch.conformal,
        "uncertainty": batch.uncertainty,
        "disagreement": batch.disagreement,
    }
    hidden = batch.private is not None and any(one is not None for one in batch.private)
    sealed = batch.sealed is not None and any(one is not None for one in batch.sealed)
    return Packed(
        batch.version,
        batch.role,
        runs_of(batch.ids),
        len(batch),
        min(batch.times, default=0),
        max(batch.times, default=0),
        to_json({"received": _lengths(batch.received), "times": times}),
        to_json(outputs),
        to_json(_columns(batch.features)),
        to_json(_lengths([_plain(one) for one in batch.private or ()])) if hidden else None,
        to_json(batch.sealed) if sealed else None,
    )


def unpack(packed: Packed) -> Batch:
    """The batch again; a column that a row did not have is None there."""
    received, times = moments_of(packed.moments)
    outputs, columns = orjson.loads(packed.outputs), orjson.loads(packed.features)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Batch(
        packed.version,
        packed.role,
        ids_of(packed.runs),
        times,
        received,
        rows or [{}] * len(packed),
        outputs["prediction"],
        outputs["scores"],
        outputs["set"],
        outputs["uncertainty"],
        outputs["disagreement"],
        None if packed.private is None else private_of(packed.private),
        None if packed.sealed is None else orjson.loads(packed.sealed),
    )


def moments_of(text: str) -> tuple[list[int], list[int]]:
    """When rows were received, and their event times."""
    read = orjson.loads(text)
    received = _spread(read["received"])
    return received, received if read["times"] is None else read["times"]


def private_of(text: str) -> list[LogColumns | None]:
    """What of each row is not in plain; equal ones are one object."""
    rules = [(None if one is None else LogColumns.model_validate(one), rows) for one, rows in orjson.loads(text)]
    return _spread(rules)


def _plain(rules: LogColumns | None) -> dict[str, Any] | None:
    return None if rules is None else rules.model_dump(mode="json")


def _lengths(values: Sequence[Any]) -> list[tuple[Any, int]]:
    """Each value with how often it follows itself."""
    return [(value, sum(1 for _ in same)) for value, same in groupby(values)]


def _spread(lengths: Iterable[tuple[Any, int]]) -> list[Any]:
    return [value for value, rows in lengths for _ in range(rows)]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, None where a row lacks one."""
    if not rows:
        return {}
    names = rows[0].keys()
    if all(row.keys() == names for row in rows):
        return {name: list(map(itemgetter(name), rows)) for name in names}
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}
