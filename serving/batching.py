"""Single rows that arrive together share one call of the graph: four rows at once cost hardly more than one.

The first request of a batch lets the event loop turn once; requests whose bytes were already there join in that turn.
Clients that were answered together mostly ask again together: a batch that begins right after another one lets the loop
turn on until as many rows are there, but no longer than the last call of the graph took, so that a wrong guess costs at
most what a right one saves. Alone, a row is scored as before, a microsecond later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from registry.schema import ImageColumn
from registry.scoring import input_shape
from serving.champion import Outcome, Served
from serving.context import NOTES

PATIENCE_SECONDS = 0.0005

THREAD_BYTES = 16_384
"""From so many bytes of images on a batch is scored in a thread: some milliseconds of a small network's work."""


class _Batch:
    """Rows that one version will score together."""

    def __init__(self, served: Served, values: list[Any]) -> None:
        self.served = served
        self.rows = [values]
        self.answers: Sequence[Outcome] | None = None
        self.call = (0.0, 0.0)  # begin and end of the call of the graph
        self.done: asyncio.Future[None] | None = None


class Batcher:
    """Belongs to one event loop."""

    def __init__(self, largest: int, patience: float = PATIENCE_SECONDS) -> None:
        """`largest`: most rows in one call. `patience`: the longest that a row waits for others, in seconds."""
        self._largest, self._longest = largest, patience
        self._open: _Batch | None = None
        self._expected, self._patience = 1, 0.0  # rows of the last batch, and how long to wait for as many
        self._left = 0.0  # when the last row was given its scores
        self.calls = [0] * (largest + 1)
        """How many calls had as many rows as the place says."""
        self.wait_seconds = self.graph_seconds = 0.0
        """The time in which calls waited for rows, and in them."""

    async def score(self, served: Served, values: list[Any]) -> Outcome:
        """The answer to a row's values as `RowReader.values` gives them."""
        batch = self._open
        if batch is None or batch.served is not served or len(batch.rows) >= self._largest:
            return await self._lead(_Batch(served, values))
        place = len(batch.rows)
        batch.rows.append(values)
        if batch.done is None:
            batch.done = asyncio.get_running_loop().create_future()
        await batch.done
        self._left = perf_counter()
        if batch.answers is None:
            raise RuntimeError("the call of the graph that this row shared failed")
        _note(batch)
        return batch.answers[place]

    async def _lead(self, batch: _Batch) -> Outcome:
        self._open = batch
        try:
            begun = await self._fill(batch)
            self._close(batch)
            started = perf_counter()
            answers: Sequence[Outcome]
            if batch.served.image is None:
                answers = batch.served.score(batch.rows)
            else:
                answers = await _score_images(batch, batch.served.image)
            batch.answers = answers
            self._left = perf_counter()
            self._expected, self._patience = len(batch.rows), min(self._left - started, self._longest)
            self._count(batch, begun, started)
        finally:
            self._close(batch)  # a leader that is cancelled while it waits must not leave a batch that nobody scores
            if batch.done is not None and not batch.done.done():
                batch.done.set_result(None)
        return answers[0]

    def _count(self, batch: _Batch, begun: float, started: float) -> None:
        self.calls[len(batch.rows)] += 1
        self.wait_seconds += started - begun
        self.graph_seconds += self._left - started
        batch.call = started, self._left
        _note(batch)

    async def _fill(self, batch: _Batch) -> float:
        """Let rows join; when that began."""
        now = perf_counter()
        until = now + self._patience if now < self._left + self._patience else now
        await asyncio.sleep(0)
        while len(batch.rows) < self._expected and perf_counter() < until:
            await asyncio.sleep(0)
        return now

    def _close(self, batch: _Batch) -> None:
        """Let no further row join."""
        if self._open is batch:
            self._open = None


def _note(batch: _Batch) -> None:
    if (notes := NOTES.get()) is not None:
        notes.graph = (*batch.call, len(batch.rows))


async def _score_images(batch: _Batch, image: ImageColumn) -> Sequence[Outcome]:
    """The scores of rows with images: of many or large ones in a thread, so that others are answered meanwhile."""
    if len(batch.rows) * math.prod(input_shape(image)) < THREAD_BYTES:
        return batch.served.score(batch.rows)
    return await asyncio.to_thread(batch.served.score, batch.rows)
