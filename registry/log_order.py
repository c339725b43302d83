"""Batches read in the order of event time: theirs overlap, rows of a window are wanted one after another.

    batches, by the earliest of their rows --> rows held back until no batch can bring an earlier one --> blocks

Held in memory are ids and moments of the batches that overlap, however long the log is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from registry.log_ids import ids_of
from registry.log_packed import moments_of

AT_ONCE = 20_000
"""Rows in a block, about."""


class Light(NamedTuple):
    """A batch without its outputs and features, as the database has it."""

    number: int
    size: int
    earliest: int
    latest: int
    ids: str
    moments: str


class Block(NamedTuple):
    """Rows: event times and moments of receipt in microseconds, ids, and where they stand."""

    times: npt.NDArray[np.int64]
    received: npt.NDArray[np.int64]
    ids: npt.NDArray[np.object_]
    batch: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)

    def at(self, which: Any) -> Block:
        """Some of the rows: an index, a mask or a slice."""
        return Block(*(one[which] for one in self))


EMPTY = Block(*(np.array([], dtype=kind) for kind in (np.int64, np.int64, object, np.int64, np.int64)))


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks one after another."""
    return Block(*map(np.concatenate, zip(*blocks, strict=True))) if blocks else EMPTY


def block_of(one: Light, start: int | None, end: int | None) -> Block:
    """The rows of a batch between two moments."""
    received, times = moments_of(one.moments)
    ids = np.array(ids_of(orjson.loads(one.ids)), dtype=object)
    place = np.arange(len(ids))
    whole = np.array(times, np.int64), np.array(received, np.int64), ids, np.full(len(ids), one.number), place
    found = Block(*whole)
    if (start is None or one.earliest >= start) and (end is None or one.latest < end):
        return found
    inside = np.ones(len(ids), dtype=bool)
    if start is not None:
        inside &= found.times >= start
    if end is not None:
        inside &= found.times < end
    return found.at(inside)


def ordered(batches: Iterable[Light], start: int | None, end: int | None, *, newest: bool = False) -> Iterator[Block]:
    """The rows between two moments by (time, id), in blocks. Batches come by `earliest`; for the newest rows first, by
    `latest`, the last one first, and each block is in descending order."""
    held: list[Block] = []
    rows, enough = 0, AT_ONCE
    for one in batches:
        if rows >= enough:
            block = joined(held)
            ready = block.times > one.latest if newest else block.times < one.earliest
            if ready.any():
                yield _sorted(block.at(ready), newest)
            held = [block.at(~ready)]
            rows = len(held[0])
            enough = max(AT_ONCE, 2 * rows)
        held.append(block_of(one, start, end))
        rows += len(held[-1])
    if rows:
        yield _sorted(joined(held), newest)


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
