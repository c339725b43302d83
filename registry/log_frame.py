"""Logged rows as a frame: tuples and JSON texts from the database in, columns out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import orjson
import pandas as pd

from registry.log_batch import READ
from registry.task import LogColumns

Unseal: TypeAlias = Callable[[str, str, str], dict[str, Any]]
"""Encrypted values, the row's id and one of its encrypted columns in; the values out."""


def frame_of(
    rows: Sequence[Sequence[Any]],
    labels: Mapping[str, tuple[str, int]],
    columns: Sequence[str] | None,
    unseal: Unseal,
) -> pd.DataFrame:
    """The frame of rows selected as `READ`, with the label (JSON) and its time (microseconds) by id."""
    ids, times, received, versions, features, predictions, scores, sets, rules, sealed, uncertainty, disagreement = (
        zip(*rows, strict=True) if rows else [()] * len(READ)
    )
    private = [None if text is None else _rules(text) for text in rules]
    known = [labels.get(name, (None, None)) for name in ids]
    outputs = {
        "__id__": pd.Series(ids, dtype="object"),
        "__time__": _moments(times),
        "__received__": _moments(received),
        "__version__": pd.Series(versions, dtype="object"),
        "__prediction__": _values(_parse_all(predictions)),
        "__scores__": pd.Series(_parse_all(scores), dtype="object"),
        "__set__": pd.Series(_parse_all(sets), dtype="object"),
        "__uncertainty__": pd.Series(uncertainty, dtype="float64"),
        "__disagreement__": pd.Series(disagreement, dtype="float64"),
        "__private__": pd.Series(private, dtype="object"),
        "__label__": pd.Series(_parse_all([label for label, _ in known]), dtype="object"),
        "__label_time__": _moments([time for _, time in known]),
    }
    if columns is not None and not columns:
        return pd.DataFrame(outputs)
    found = _parse_all(features)
    for row, (one, hidden) in enumerate(zip(private, sealed, strict=True)):
        wanted = () if one is None else one.encrypt if columns is None else set(one.encrypt) & set(columns)
        if wanted:
            found[row] |= unseal(hidden, ids[row], min(wanted))
    return pd.DataFrame({**outputs, **_features(found, columns)})


def lost(frame: pd.DataFrame, names: Collection[str]) -> dict[str, str]:
    """Those of the columns whose values some row of `InferenceLog.frame` lacks, and why: dropped, or hashed."""
    found: dict[str, str] = {}
    for one in _kinds(frame):
        found |= {name: "hashed" for name in one.hash if name in names}
        found |= {name: "dropped" for name in one.drop if name in names}
    return found


def sealed(frame: pd.DataFrame) -> frozenset[str]:
    """The columns that some row of `InferenceLog.frame` holds encrypted in the store."""
    return frozenset(name for one in _kinds(frame) for name in one.encrypt)


def having(frame: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """The rows of `InferenceLog.frame` that lack the values of none of these columns, with a fresh index."""
    lacking = [one for one in _kinds(frame) if not set(one.lost).isdisjoint(names)]
    return frame[~frame["__private__"].isin(lacking)].reset_index(drop=True) if lacking else frame


def _kinds(frame: pd.DataFrame) -> list[LogColumns]:
    """The ways in which rows are not logged in plain: few, whatever the number of rows."""
    return list(frame["__private__"].dropna().unique())


@lru_cache
def _rules(text: str) -> LogColumns:
    return LogColumns.model_validate_json(text)


def _parse_all(texts: Sequence[str | None]) -> list[Any]:
    return [None if text is None else orjson.loads(text) for text in texts]


def _moments(micros: Sequence[int | None]) -> pd.Series[Any]:
    missing = np.iinfo(np.int64).min  # numpy's NaT
    return pd.Series(np.array([missing if one is None else one for one in micros], dtype=np.int64).view("M8[us]"))


def _values(values: list[Any]) -> pd.Series[Any]:
    """Numbers as float64, anything else as it is."""
    numbers = bool(values) and all(isinstance(value, float) for value in values)
    return pd.Series(values, dtype="float64" if numbers else "object")


def _features(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None) -> dict[str, pd.Series[Any]]:
    """The columns of many rows; a key that a row lacks is None there."""
    names = columns if columns is not None else dict.fromkeys(chain.from_iterable(rows))
    return {name: pd.Series([row.get(name) for row in rows], dtype=None if rows else "object") for name in names}
