"""The log's texts decoded, and kept for whoever reads them again: monitoring, a champion that follows and its radius
read the same weeks pass after pass, and to decode them takes longer than to fetch them.

What a text says is a function of the text alone, which is the key: nothing that is kept can be stale, whoever writes,
joins, or lets go. Which batches there are, and the labels, which come late, are asked of the database each time.

Columns are arrays: a quarter of the memory of lists of objects, and joined at once. One of JSON numbers is int64, or
float64 with NaN for None (JSON has no other NaN; float64 too where all are None); any other holds the objects.

>>> [column_of(one).dtype.name for one in ([1, 2], [1.5, None], [None], ["a", None], [1, None], [True])]
['int64', 'float64', 'float64', 'object', 'object', 'object']
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from threading import Lock
from types import NoneType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from registry.log_ids import ids_of
from registry.log_packed import moments_of
from registry.texts import MAX_TEXT_LENGTH

MOST_BYTES = 64 << 20
"""What is kept in one process takes about so much memory at most; what was longest not asked for goes first."""

LEAST = 100
"""Rows of a batch whose texts are kept: smaller ones are joined soon, and to look one up costs as much as it saves."""

_OBJECT = 4
"""An object counts as so many pointers."""

Column: TypeAlias = npt.NDArray[Any]
Values: TypeAlias = Column | list[Any]
T = TypeVar("T")


class Kept:
    """What was made of texts. Several threads may use it."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._lock = most, Lock()
        self._found: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self.size = 0
        """Bytes, about: those of the texts, and of what was made of them."""

    def __len__(self) -> int:
        return len(self._found)

    def of(self, texts: tuple[str, ...], make: Callable[[], T], weigh: Callable[[T], int]) -> T:
        """What `make` makes of these texts, and weighs, unless it was made before. Nobody changes it."""
        with self._lock:
            if texts in self._found:
                self._found.move_to_end(texts)
                found: T = self._found[texts][0]
                return found
        made = make()
        size = weigh(made) + sum(map(len, texts))
        with self._lock:
            if texts not in self._found and size <= self._most:
                self._found[texts] = made, size
                self.size += size
            while self.size > self._most:
                self.size -= self._found.popitem(last=False)[1][1]
        return made


KEPT = Kept()
"""This process's."""


def rows_of(ids: str, moments: str, size: int) -> tuple[list[int], list[int], list[str]]:
    """Event times, moments of receipt, both in microseconds, and ids of a batch's rows."""

    def make() -> tuple[list[int], list[int], list[str]]:
        received, times = moments_of(moments)
        return times, received, ids_of(orjson.loads(ids))

    return make() if size < LEAST else KEPT.of(("rows", ids, moments), make, lambda made: 130 * size)


def outputs_of(text: str, size: int) -> dict[str, Values]:
    """A batch's outputs by name. Scores stay lists, the same ones for all who read them: made anew they set the
    collector off. Equal sets are one object."""
    if size < LEAST:
        read: dict[str, Any] = orjson.loads(text)
        return {name: [None] * size if values is None else values for name, values in read.items()}
    return KEPT.of(("outputs", text), lambda: _outputs(orjson.loads(text)), lambda made: _weight(made) + 3 * len(text))


def _outputs(read: dict[str, Any]) -> dict[str, Values]:
    scores, sets = read.pop("scores"), read.pop("set")
    alike: dict[str, Any] = {}
    members = [None] * len(scores) if sets is None else [alike.setdefault(str(one), one) for one in sets]
    columns = {name: column_of(values) for name, values in read.items()}
    return {**columns, "scores": _objects(scores), "set": _objects(members)}


def features_of(text: str, size: int) -> dict[str, Values]:
    """A batch's features by name; texts are cut to what is read of them where its rows are longer."""

    def make() -> dict[str, Values]:
        found: dict[str, list[Any]] = orjson.loads(text)
        if len(text) > MAX_TEXT_LENGTH * size:
            found = {name: list(map(cut, values)) for name, values in found.items()}
        return dict(found) if size < LEAST else {name: column_of(values) for name, values in found.items()}

    return make() if size < LEAST else KEPT.of(("features", text), make, _weight)


def cut(value: Any) -> Any:
    """Of a text what is read of one: a window of long ones would take all memory."""
    return value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value


def column_of(values: Sequence[Any]) -> Column:
    """JSON values as an array; equal texts are one object."""
    kinds = set(map(type, values))
    if kinds == {int}:
        with suppress(OverflowError):  # JSON knows no bounds
            return np.array(values, dtype=np.int64)
    elif kinds <= {float, NoneType}:
        return np.array(values, dtype=np.float64)
    elif kinds <= {str, NoneType}:
        alike: dict[str | None, str | None] = {}
        values = [alike.setdefault(one, one) for one in values]
    return _objects(values)


class Parts:
    """A column that comes batch by batch: an array of a large one, lists of small ones, of which arrays would be most
    of the work."""

    def __init__(self, rows: int = 0) -> None:
        """It begins with so many rows without a value."""
        self._parts: list[Values] = [np.full(rows, np.nan)] if rows else []

    def add(self, values: Values | None, places: npt.NDArray[np.int64] | None, rows: int) -> None:
        """The values at so many places of a batch, all of them for None; None where it lacks the column."""
        if values is None:
            values = np.full(rows, np.nan) if rows >= LEAST else [None] * rows
        elif places is not None:
            values = [values[one] for one in places.tolist()] if isinstance(values, list) else values[places]
        if isinstance(values, list) and self._parts and isinstance(last := self._parts[-1], list):
            last += values
        else:
            self._parts.append(list(values) if isinstance(values, list) else values)

    def column(self, order: npt.NDArray[np.int64] | None) -> Column:
        """All of it, in this order: numbers where all parts are, objects where they are of several kinds."""
        parts = [column_of(one) if isinstance(one, list) else one for one in self._parts]
        kinds = {one.dtype for one in parts}
        if not parts:
            found = np.empty(0)
        elif len(kinds) == 1 or np.dtype(object) not in kinds:
            found = np.concatenate(parts)
        else:
            found = _objects(list(chain.from_iterable(map(listed, parts))))
        return found if order is None else found[order]


def listed(column: Column) -> list[Any]:
    """The JSON values again."""
    values: list[Any] = column.tolist()
    return [None if one != one else one for one in values] if column.dtype == np.float64 else values


def _objects(values: Sequence[Any]) -> Column:
    return np.fromiter(values, dtype=object, count=len(values))


def _weight(columns: Mapping[str, Values]) -> int:
    arrays = (one for one in columns.values() if not isinstance(one, list))
    return sum(one.nbytes * (_OBJECT if one.dtype == object else 1) for one in arrays)
