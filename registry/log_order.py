"""Batches read in the order of event time: theirs overlap, rows of a window are wanted one after another.

    batches, by the earliest of their rows --> rows held back until no batch can bring an earlier one --> blocks

Held in memory are ids and moments of the batches that overlap, however long the log is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry.log_decoded import rows_of
from registry.log_tables import Labels

AT_ONCE = 20_000
"""Rows in a block, about; fewer where fewer are wanted."""


class Light(NamedTuple):
    """A batch without its outputs and features, as the database has it."""

    number: int
    size: int
    earliest: int
    latest: int
    ids: str
    moments: str


class Block(NamedTuple):
    """Rows: event times and moments of receipt in microseconds, ids, and where they stand; their labels, as `Labels`
    has them, where they were asked for."""

    times: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    ids: npt.NDArray[np.object_]
    batch: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    labels: npt.NDArray[np.object_]
    label_times: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)

    def at(self, which: Any) -> Block:
        """Some of the rows: an index, a mask or a slice."""
        return Block(*(one[which] for one in self))

    def told(self, labels: Labels) -> Block:
        """The same with these labels."""
        return Block(self.times, self.received, self.ids, self.batch, self.place, *labels)


def _block(*lists: Sequence[Any]) -> Block:
    """Times, moments of receipt, ids, batches and places, without labels."""
    kinds = (np.int64, np.int64, object, np.int64, np.int64)
    times, received, ids, batch, place = (np.array(one, dtype=kind) for one, kind in zip(lists, kinds, strict=True))
    return Block(times, received, ids, batch, place, *Labels.none(len(times)))


EMPTY = _block([], [], [], [], [])


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks one after another."""
    return Block(*map(np.concatenate, zip(*blocks, strict=True))) if blocks else EMPTY


class Rows(NamedTuple):
    """The rows of a batch, as lists."""

    times: list[int]
    received: list[int]
    ids: list[str]
    place: Sequence[int]

    @classmethod
    def of(cls, one: Light, start: int | None, end: int | None) -> Rows:
        """Those between two moments."""
        times, received, ids = rows_of(one.ids, one.moments, one.size)
        found = cls(times, received, ids, range(one.size))
        if (start is None or one.earliest >= start) and (end is None or one.latest < end):
            return found
        inside = [(start is None or time >= start) and (end is None or time < end) for time in times]
        return cls(
            list(compress(times, inside)),
            list(compress(received, inside)),
            list(compress(found.ids, inside)),
            list(compress(found.place, inside)),
        )


class _Held:
    """Rows that are not given out yet. As lists: a batch may be of one row, of which arrays would be most of the
    work."""

    def __init__(self) -> None:
        self._lists: tuple[list[Any], ...] = ([], [], [], [], [])

    def __len__(self) -> int:
        return len(self._lists[0])

    def add(self, number: int, rows: Rows) -> None:
        """The rows of a batch."""
        times, received, ids, batch, place = self._lists
        times += rows.times
        received += rows.received
        ids += rows.ids
        batch += [number] * len(rows.ids)
        place += rows.place

    def take(self, moment: int | None, newest: bool) -> Block:
        """The rows before a moment, or after it, are given out; all of them for None."""
        block = _block(*self._lists)
        if moment is None:
            return block
        ready = block.times > moment if newest else block.times < moment
        self._lists = tuple(one.tolist() for one in block.at(~ready)[: len(self._lists)])
        return block.at(ready)


def ordered(
    batches: Iterable[Light], start: int | None, end: int | None, *, newest: bool = False, at_once: int = AT_ONCE
) -> Iterator[Block]:
    """The rows between two moments by (time, id), in blocks of some `at_once`. Batches come by `earliest`; for the
    newest rows first, by `latest`, the last one first, and each block is in descending order."""
    held, enough = _Held(), at_once
    for one in batches:
        if len(held) >= enough:
            yield _sorted(held.take(one.latest if newest else one.earliest, newest), newest)
            enough = max(at_once, 2 * len(held))
        held.add(one.number, Rows.of(one, start, end))
    yield _sorted(held.take(None, newest), newest)


def _sorted(block: Block, newest: bool) -> Block:
    if not _is_sorted(block):
        block = block.at(np.argsort(block.times, kind="stable"))
        if not _is_sorted(block):
            keys = list(zip(block.times.tolist(), block.ids.tolist(), strict=True))
            block = block.at(np.array(sorted(range(len(keys)), key=keys.__getitem__)))
    return block.at(slice(None, None, -1)) if newest else block


def _is_sorted(block: Block) -> bool:
    steps = np.diff(block.times)
    if (steps < 0).any():
        return False
    ties = np.flatnonzero(steps == 0)
    return all(map(str.__le__, block.ids[ties].tolist(), block.ids[ties + 1].tolist()))
