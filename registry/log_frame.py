"""Logged rows as a frame: rows in an order and JSON texts from the database in, columns out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.log_order import Block
from registry.log_packed import private_of
from registry.log_tables import BATCHES
from registry.statements import among
from registry.task import LogColumns
from registry.texts import MAX_TEXT_LENGTH

Unseal: TypeAlias = Callable[[str, str, str], dict[str, Any]]
"""Encrypted values, the row's id and one of its encrypted columns in; the values out."""

_AT_ONCE, _ROWS_AT_ONCE, _LENGTH_AT_ONCE = 100, 5_000, 8_000_000
"""Batches whose features are read by one statement, and about how many rows, and characters, they have."""

_NAT = np.iinfo(np.int64).min  # numpy's NaT
_OUTPUTS = ("prediction", "scores", "set", "uncertainty", "disagreement")


class Heavy(NamedTuple):
    """A batch's outputs and features, as the database has them; `features` and `sealed` None where nobody asked."""

    number: int
    version: str
    private: str | None
    outputs: str
    features: str | None
    sealed: str | None


def heavy(connection: Connection, numbers: Sequence[int], *, features: bool) -> Iterator[Heavy]:
    """Batches by their numbers, in that order, some at a time: of large ones few."""
    c = BATCHES.c
    columns = (c.features, c.sealed) if features else (sa.null(), sa.null())
    for first in range(0, len(numbers), _AT_ONCE):
        some = numbers[first : first + _AT_ONCE]
        sizes = sa.select(c.number, c.size, c.length).where(among(connection, c.number, some))
        known = {row[0]: row for row in connection.execute(sizes)}
        for part in _parts(known[one] for one in some):
            rows = sa.select(c.number, c.version, c.private, c.outputs, *columns).where(
                among(connection, c.number, part)
            )
            found = {row[0]: row for row in connection.execute(rows)}
            yield from (Heavy(*found.pop(number)) for number in part)


def _parts(sizes: Iterable[sa.Row[Any]]) -> Iterator[list[int]]:
    """Numbers, each with its rows and its length, in parts that end where there are enough of either."""
    part, rows, length = list[int](), 0, 0
    for number, size, characters in sizes:
        part.append(number)
        rows, length = rows + size, length + characters
        if rows >= _ROWS_AT_ONCE or length >= _LENGTH_AT_ONCE:
            yield part
            part, rows, length = [], 0, 0
    if part:
        yield part


class Places(NamedTuple):
    """The rows of a block that stand in one batch: which rows, and where in the batch."""

    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


def places_of(rows: Block) -> dict[int, Places]:
    """Where rows stand, by batch, in the order in which batches first appear."""
    numbers, firsts, which = np.unique(rows.batch, return_index=True, return_inverse=True)
    by_batch = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which, minlength=len(numbers)))[:-1])
    return {int(numbers[one]): Places(by_batch[one], rows.place[by_batch[one]]) for one in np.argsort(firsts)}


class Assembly:
    """Columns of rows that come batch by batch."""

    def __init__(self, rows: Block, columns: Sequence[str] | None, unseal: Unseal) -> None:
        """`columns` are the features that are wanted, None all."""
        self._rows, self._columns, self._unseal = rows, columns, unseal
        self.places = places_of(rows)
        self._order: list[npt.NDArray[np.int64]] = []
        self._outputs: dict[str, list[Any]] = {name: [] for name in (*_OUTPUTS, "version", "private")}
        self._features: dict[str, list[Any]] = {} if columns is None else {name: [] for name in columns}
        self._rows_so_far = 0

    def add(self, one: Heavy) -> None:
        """A batch; each once, in the order of `places`."""
        rows, places = self.places[one.number]
        outputs = orjson.loads(one.outputs)
        private = [None] * len(outputs["prediction"]) if one.private is None else private_of(one.private)
        whole = len(places) == len(private) and bool((np.diff(places) == 1).all())
        at = None if whole else places.tolist()
        for name in _OUTPUTS:
            self._outputs[name] += _taken(outputs[name], at, len(rows))
        rules = _taken(private, at, len(rows))
        self._outputs["version"] += [one.version] * len(rows)
        self._outputs["private"] += rules
        self._order.append(rows)
        if one.features is not None:
            found = {name: _taken(values, at, len(rows)) for name, values in orjson.loads(one.features).items()}
            if one.sealed is not None:
                self._open(found, rules, _taken(orjson.loads(one.sealed), at, len(rows)), rows)
            if len(one.features) + len(one.sealed or "") > MAX_TEXT_LENGTH * len(private):
                found = {name: [_cut(value) for value in values] for name, values in found.items()}
            self._extend(found, len(rows))
        self._rows_so_far += len(rows)

    def _open(
        self, found: dict[str, list[Any]], rules: Sequence[LogColumns | None], sealed: Sequence[Any], rows: Any
    ) -> None:
        """Put encrypted values back, if one of them is wanted."""
        for row, (one, text) in enumerate(zip(rules, sealed, strict=True)):
            names = () if one is None else one.encrypt
            wanted = names if self._columns is None else set(names) & set(self._columns)
            if wanted:
                for name, value in self._unseal(text, str(self._rows.ids[rows[row]]), min(wanted)).items():
                    found.setdefault(name, [None] * len(rules))[row] = value

    def _extend(self, found: Mapping[str, list[Any]], rows: int) -> None:
        if self._columns is None:
            for name in found:
                if name not in self._features:
                    self._features[name] = [None] * self._rows_so_far
        for name, values in self._features.items():
            values += found[name] if name in found else [None] * rows

    def frame(self, labels: Sequence[tuple[str, int] | None]) -> pd.DataFrame:
        """The frame of all rows, with the label (JSON) of each and its time (microseconds)."""
        rows = self._rows
        order = np.concatenate(self._order) if self._order else np.array([], np.int64)
        back = None if (np.diff(order) == 1).all() else np.argsort(order, kind="stable").tolist()
        outputs = {name: _taken(values, back, len(rows)) for name, values in self._outputs.items()}
        known = [(None, _NAT) if one is None else one for one in labels]
        frame = {
            "__id__": pd.Series(rows.ids, dtype="object"),
            "__time__": _moments(rows.times),
            "__received__": _moments(rows.received),
            "__version__": pd.Series(outputs["version"], dtype="object"),
            "__prediction__": _values(outputs["prediction"]),
            "__scores__": pd.Series(outputs["scores"], dtype="object"),
            "__set__": pd.Series(outputs["set"], dtype="object"),
            "__uncertainty__": pd.Series(outputs["uncertainty"], dtype="float64"),
            "__disagreement__": pd.Series(outputs["disagreement"], dtype="float64"),
            "__private__": pd.Series(outputs["private"], dtype="object"),
            "__label__": pd.Series(_parsed([label for label, _ in known]), dtype="object"),
            "__label_time__": _moments(np.array([time for _, time in known], dtype=np.int64)),
        }
        dtype = None if len(rows) else "object"
        features = {
            name: pd.Series(_taken(values, back, len(rows)), dtype=dtype) for name, values in self._features.items()
        }
        return pd.DataFrame({**frame, **features})


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


def _taken(values: list[Any] | None, places: Iterable[int] | None, rows: int) -> list[Any]:
    """The values at places, all of them for None; None for each row where there are none."""
    if values is None:
        return [None] * rows
    return values if places is None else [values[place] for place in places]


def _cut(value: Any) -> Any:
    """Of a text what is read of one: a window of long ones would take all memory."""
    return value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value


def _parsed(texts: Sequence[str | None]) -> list[Any]:
    known = {text: None if text is None else orjson.loads(text) for text in set(texts)}
    return [known[text] for text in texts]


def _moments(micros: npt.NDArray[np.int64]) -> pd.Series[Any]:
    return pd.Series(micros.view("M8[us]"))


def _values(values: list[Any]) -> pd.Series[Any]:
    """Numbers as float64, anything else as it is."""
    numbers = bool(values) and all(isinstance(value, float) for value in values)
    return pd.Series(values, dtype="float64" if numbers else "object")
