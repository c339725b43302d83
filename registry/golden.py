"""What of a bundle's reference the endpoint needs, as JSON: to read the Parquet file itself takes a library of 50 MB.

    golden.json    {"rows": {column: {"dtype": ..., "values": [...]}}, "disagreement": [...]}

The first rows of the reference, which a loaded graph must answer as they were answered when the bundle was made, and
how much the members disagree about each of all rows. Missing numbers are null, moments microseconds since 1970. Bundles
with images and those from before have no such file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

GOLDEN = "golden.json"
GOLDEN_ROWS = 32

Columns: TypeAlias = dict[str, npt.NDArray[Any]]
"""Columns by name, (n,) each, of objects where they hold text, lists or bytes."""


class Golden(NamedTuple):
    """The golden rows, and the disagreement about all reference rows, (n,)."""

    rows: Columns
    disagreement: npt.NDArray[np.float64]

    @classmethod
    def of(cls, reference: Columns) -> Golden:
        """Of all columns of a reference."""
        rows = {name: values[:GOLDEN_ROWS] for name, values in reference.items()}
        return cls(rows, np.asarray(reference["disagreement"], dtype=np.float64))

    def write(self, folder: Path) -> None:
        """Write the file into a bundle's folder; none where the rows hold bytes."""
        path = folder / GOLDEN
        path.unlink(missing_ok=True)
        held = (one for values in self.rows.values() if values.dtype == object for one in values)
        if not any(isinstance(one, bytes) for one in held):
            rows = {name: {"dtype": str(values.dtype), "values": _told(values)} for name, values in self.rows.items()}
            path.write_bytes(orjson.dumps({"rows": rows, "disagreement": self.disagreement.tolist()}))

    @classmethod
    def read(cls, folder: Path) -> Golden:
        """The inverse. Raises `OSError`, and `ValueError`, `LookupError` or `TypeError` for another content."""
        told = orjson.loads((folder / GOLDEN).read_bytes())
        rows = {name: _array(one["values"], np.dtype(one["dtype"])) for name, one in told["rows"].items()}
        return cls(rows, np.array(told["disagreement"], dtype=np.float64))


def _told(values: npt.NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "M":
        found: list[Any] = values.astype("datetime64[us]").view(np.int64).tolist()
        return found
    return [_plain(one) for one in values.tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    return None if isinstance(value, float) and value != value else value


def _array(values: list[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind == "M":
        return np.array(values, dtype=np.int64).view("datetime64[us]")
    if dtype.kind == "f":
        return np.array([np.nan if one is None else one for one in values], dtype=dtype)
    found = np.empty(len(values), dtype=dtype)
    for place, one in enumerate(values):
        found[place] = one
    return found
