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

from registry.log_decoded import Column, Parts, Values, cut, features_of, listed, outputs_of
from registry.log_order import Block
from registry.log_packed import private_of
from registry.log_tables import BATCHES, Labels
from registry.statements import among
from registry.task import LogColumns
from registry.texts import MAX_TEXT_LENGTH

Unseal: TypeAlias = Callable[[str, str, str], dict[str, Any]]
"""Encrypted values, the row's id and one of its encrypted columns in; the values out."""

_AT_ONCE, _ROWS_AT_ONCE, _LENGTH_AT_ONCE = 100, 5_000, 8_000_000
"""Batches whose features are read by one statement, and about how many rows, and characters, they have."""

_OUTPUTS = ("prediction", "scores", "set", "uncertainty", "disagreement")


class Heavy(NamedTuple):
    """A batch's outputs and features, as the database has them; `features` and `sealed` None where nobody asked."""

    number: int
    version: str
    size: int
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
            rows = sa.select(c.number, c.version, c.size, c.private, c.outputs, *columns).where(
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
        self._versions, self._private = list[str](), list[LogColumns | None]()
        self._outputs = {name: Parts() for name in _OUTPUTS}
        self._features = {name: Parts() for name in columns or ()}
        self._rows_so_far = 0

    def add(self, one: Heavy) -> None:
        """A batch; each once, in the order of `places`."""
        rows, places = self.places[one.number]
        whole = len(places) == one.size and bool((np.diff(places) == 1).all())
        at = None if whole else places
        for name, values in outputs_of(one.outputs, one.size).items():
            self._outputs[name].add(values, at, len(rows))
        private = [None] * one.size if one.private is None else private_of(one.private)
        self._versions += [one.version] * len(rows)
        self._private += _taken(private, at)
        self._order.append(rows)
        if one.features is not None:
            found = features_of(one.features, one.size)
            if one.sealed is not None:
                found = self._opened(one, found, private)
            self._extend(found, at, len(rows))
        self._rows_so_far += len(rows)

    def _opened(
        self, one: Heavy, plain: Mapping[str, Values], private: Sequence[LogColumns | None]
    ) -> dict[str, Values]:
        """The columns with encrypted values put back, if one of them is wanted, of the rows that are."""
        found = {name: values if isinstance(values, list) else listed(values) for name, values in plain.items()}
        sealed: list[Any] = orjson.loads(one.sealed or "[]")
        for row, place in zip(*(which.tolist() for which in self.places[one.number]), strict=True):
            rule = private[place]
            names = () if rule is None else rule.encrypt
            wanted = names if self._columns is None else set(names) & set(self._columns)
            if wanted:
                for name, value in self._unseal(sealed[place], str(self._rows.ids[row]), min(wanted)).items():
                    found.setdefault(name, [None] * one.size)[place] = value
        if len(one.features or "") + len(one.sealed or "") > MAX_TEXT_LENGTH * one.size:
            found = {name: list(map(cut, values)) for name, values in found.items()}
        return dict(found)

    def _extend(self, found: Mapping[str, Values], at: npt.NDArray[np.int64] | None, rows: int) -> None:
        if self._columns is None:
            for name in found:
                if name not in self._features:
                    self._features[name] = Parts(self._rows_so_far)
        for name, parts in self._features.items():
            parts.add(found.get(name), at, rows)

    def frame(self, labels: Labels) -> pd.DataFrame:
        """The frame of all rows, with their labels."""
        rows = self._rows
        order = np.concatenate(self._order) if self._order else np.array([], np.int64)
        back = None if (np.diff(order) == 1).all() else np.argsort(order, kind="stable")
        outputs = {name: parts.column(back) for name, parts in self._outputs.items()}
        frame = {
            "__id__": pd.Series(rows.ids, dtype="object"),
            "__time__": _moments(rows.times),
            "__received__": _moments(rows.received),
            "__version__": pd.Series(_taken(self._versions, back), dtype="object"),
            "__prediction__": _predicted(outputs["prediction"]),
            "__scores__": pd.Series(listed(outputs["scores"]), dtype="object"),
            "__set__": pd.Series(listed(outputs["set"]), dtype="object"),
            "__uncertainty__": pd.Series(outputs["uncertainty"], dtype="float64"),
            "__disagreement__": pd.Series(outputs["disagreement"], dtype="float64"),
            "__private__": pd.Series(_taken(self._private, back), dtype="object"),
            "__label__": pd.Series(_parsed(labels.texts.tolist()), dtype="object"),
            "__label_time__": _moments(labels.times),
        }
        features = {name: _feature(parts.column(back)) for name, parts in self._features.items()}
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


def _taken(values: list[Any], places: npt.NDArray[np.int64] | None) -> list[Any]:
    """The values at places, all of them for None."""
    return values if places is None else [values[place] for place in places.tolist()]


def _predicted(column: Column) -> pd.Series[Any]:
    """Numbers as float64, anything else as it is."""
    numbers = column.dtype == np.float64 and len(column) > 0 and not np.isnan(column).any()
    return pd.Series(column if numbers else listed(column), dtype="float64" if numbers else "object")


def _feature(column: Column) -> pd.Series[Any]:
    """As pandas takes a list of the values."""
    numbers = column.dtype != object and not (column.dtype == np.float64 and np.isnan(column).all())
    return pd.Series(column if numbers else listed(column), dtype=None if len(column) else "object")


def _parsed(texts: Sequence[str | None]) -> list[Any]:
    known = {text: None if text is None else orjson.loads(text) for text in set(texts)}
    return [known[text] for text in texts]


def _moments(micros: npt.NDArray[np.int64]) -> pd.Series[Any]:
    return pd.Series(micros.view("M8[us]"))
