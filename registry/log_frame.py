"""Logged rows as a frame: tuples and JSON texts from the database in, columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pandas as pd

READ = (
    "id",
    "time",
    "received",
    "version",
    "features",
    "prediction",
    "scores",
    "conformal",
    "uncertainty",
    "disagreement",
)
"""The columns of the table that make a frame, in order."""


def frame_of(
    rows: Sequence[Sequence[Any]], labels: Mapping[str, tuple[str, int]], columns: Sequence[str] | None
) -> pd.DataFrame:
    """The frame of rows selected as `READ`, with the label (JSON) and its time (microseconds) by id."""
    ids, times, received, versions, features, predictions, scores, sets, uncertainty, disagreement = (
        zip(*rows, strict=True) if rows else [()] * len(READ)
    )
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
        "__label__": pd.Series(_parse_all([label for label, _ in known]), dtype="object"),
        "__label_time__": _moments([time for _, time in known]),
    }
    return pd.DataFrame({**outputs, **_features(features, columns)})


def _parse_all(texts: Sequence[str | None]) -> list[Any]:
    return [None if text is None else orjson.loads(text) for text in texts]


def _moments(micros: Sequence[int | None]) -> pd.Series[Any]:
    missing = np.iinfo(np.int64).min  # numpy's NaT
    return pd.Series(np.array([missing if one is None else one for one in micros], dtype=np.int64).view("M8[us]"))


def _values(values: list[Any]) -> pd.Series[Any]:
    """Numbers as float64, anything else as it is."""
    numbers = bool(values) and all(isinstance(value, float) for value in values)
    return pd.Series(values, dtype="float64" if numbers else "object")


def _features(texts: Sequence[str], columns: Sequence[str] | None) -> dict[str, pd.Series[Any]]:
    """The columns of many JSON objects; a key that a row lacks is None there."""
    if columns is not None and not columns:
        return {}
    rows = _parse_all(texts)
    names = columns if columns is not None else dict.fromkeys(chain.from_iterable(rows))
    return {name: pd.Series([row.get(name) for row in rows], dtype=None if rows else "object") for name in names}
