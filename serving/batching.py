"""Single rows that arrive together share one call of the graph: four rows at once cost hardly more than one.

The first request of a batch lets the event loop turn once; requests whose bytes were already there join in that turn.
Clients that were answered together mostly ask again together: a batch that begins right after another one lets the loop
turn on until as many rows are there, but no longer than the last call of the graph took, so that a wrong guess costs at
most what a right one saves. A row of which it is known that no other can come is scored at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeAlias

from registry.scoring import input_shape
from serving.champion import Outcome, Served
from serving.context import NOTES

PATIENCE_SECONDS = 0.0005

THREAD_BYTES = 16_384
"""From so many bytes of images on a batch is scored in a thread: some milliseconds of a small network's work."""

Take: TypeAlias = Callable[[Outcome | None], None]
"""Is given a row's answer; None where the call of the graph failed."""

Leave: TypeAlias = Callable[[], None]
"""Is called when a batch is over, once for all rows that bring the same one."""


class Batch:
    """Rows that one version will score together."""

    def __init__(self, served: Served, until: float) -> None:
        self.served, self.begun, self.until = served, perf_counter(), until
        self.rows: list[list[Any]] = []
        self.takes: list[Take] = []
        self.leaves: dict[Leave, None] = {}
        self.call = (0.0, 0.0)
        """Begin and end of the call of the graph."""
        self.error: BaseException | None = None
        """Why it failed, if it did."""


class Batcher:
    """Belongs to one event loop."""

    def __init__(self, largest: int, patience: float = PATIENCE_SECONDS) -> None:
        """`largest`: most rows in one call. `patience`: the longest that a row waits for others, in seconds."""
        self._largest, self._longest = largest, patience
        self._open: Batch | None = None
        self._expected, self._patience = 1, 0.0  # rows of the last batch, and how long to wait for as many
        self._left = 0.0  # when the last batch was over
        self._aside: set[asyncio.Task[None]] = set()
        self.calls = [0] * (largest + 1)
        """How many calls had as many rows as the place says."""
        self.wait_seconds = self.graph_seconds = 0.0
        """The time in which calls waited for rows, and in them."""

    async def score(self, served: Served, values: list[Any]) -> Outcome:
        """The answer to a row's values as `RowReader.values` gives them. Raises `RuntimeError` when the call fails."""
        found: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

        def take(outcome: Outcome | None) -> None:
            if not found.done():  # it is, where nobody waits any more
                found.set_result(outcome)

        batch = self.join(served, values, take)
        outcome = await found
        if outcome is None:
            raise RuntimeError("the call of the graph that this row shared failed") from batch.error
        if (notes := NOTES.get()) is not None:
            notes.graph = (*batch.call, len(batch.rows))
        return outcome

    def join(
        self, served: Served, values: list[Any], take: Take, leave: Leave | None = None, *, alone: bool = False
    ) -> Batch:
        """Have a row scored with those that come until the loop has turned; before this returns, where it is `alone`
        and no batch is open. Neither `take` nor `leave` may raise."""
        batch = self._open
        if batch is None or batch.served is not served or len(batch.rows) >= self._largest:
            batch = self._begin(served)
            if alone:
                self._open = None
            else:
                self._open = batch
                asyncio.get_running_loop().call_soon(self._turn, batch)
        else:
            alone = False
        batch.rows.append(values)
        batch.takes.append(take)
        if leave is not None:
            batch.leaves[leave] = None
        if alone:
            self._score(batch)
        return batch

    def _begin(self, served: Served) -> Batch:
        now = perf_counter()
        return Batch(served, now + self._patience if now < self._left + self._patience else now)

    def _turn(self, batch: Batch) -> None:
        """Let more rows join, or have the batch scored."""
        if len(batch.rows) < self._expected and batch is self._open and perf_counter() < batch.until:
            asyncio.get_running_loop().call_soon(self._turn, batch)
            return
        if self._open is batch:
            self._open = None
        self._score(batch)

    def _score(self, batch: Batch) -> None:
        image = batch.served.image
        if image is not None and len(batch.rows) * math.prod(input_shape(image)) >= THREAD_BYTES:
            task = asyncio.get_running_loop().create_task(self._score_aside(batch))  # others are answered meanwhile
            self._aside.add(task)
            task.add_done_callback(self._aside.discard)
            return
        started = perf_counter()
        try:
            answers = batch.served.score(batch.rows)
        except Exception as error:  # noqa: BLE001 - told to everybody who waits for it
            self._end(batch, started, [None] * len(batch.rows), error)
        else:
            self._end(batch, started, answers)

    async def _score_aside(self, batch: Batch) -> None:
        started = perf_counter()
        try:
            answers = await asyncio.to_thread(batch.served.score, batch.rows)
        except BaseException as error:
            self._end(batch, started, [None] * len(batch.rows), error)
            if not isinstance(error, Exception):  # the loop ends; all else is told to everybody who waits for it
                raise
        else:
            self._end(batch, started, answers)

    def _end(
        self, batch: Batch, started: float, answers: Sequence[Outcome | None], error: BaseException | None = None
    ) -> None:
        rows, now = len(batch.rows), perf_counter()
        self._left, self._expected, self._patience = now, rows, min(now - started, self._longest)
        batch.call, batch.error = (started, now), error
        if error is None:
            self.calls[rows] += 1
            self.wait_seconds += started - batch.begun
            self.graph_seconds += now - started
        for take, answer in zip(batch.takes, answers, strict=True):
            take(answer)
        for leave in batch.leaves:
            leave()
