"""Single rows that arrive together share one call of the graph: four rows at once cost hardly more than one.

Nobody waits on a clock for company. The first request of a batch lets the event loop turn once; requests whose bytes
were already there join in that turn. Alone, a row is scored as before, a microsecond later.
"""

from __future__ import annotations

import asyncio
from typing import Any

from registry.scoring import Scores
from serving.champion import Served


class _Batch:
    """Rows that one version will score together."""

    def __init__(self, served: Served, values: list[Any]) -> None:
        self.served = served
        self.rows = [values]
        self.scores: Scores | None = None
        self.done: asyncio.Future[None] | None = None


class Batcher:
    """Belongs to one event loop."""

    def __init__(self, largest: int) -> None:
        """`largest`: most rows in one call."""
        self._largest = largest
        self._open: _Batch | None = None

    async def score(self, served: Served, values: list[Any]) -> Scores:
        """The scores, of length 1, of a row's values as `RowReader.values` gives them."""
        batch = self._open
        if batch is None or batch.served is not served or len(batch.rows) >= self._largest:
            return await self._lead(_Batch(served, values))
        place = len(batch.rows)
        batch.rows.append(values)
        if batch.done is None:
            batch.done = asyncio.get_running_loop().create_future()
        await batch.done
        if batch.scores is None:
            raise RuntimeError("the call of the graph that this row shared failed")
        return batch.scores.take(slice(place, place + 1))

    async def _lead(self, batch: _Batch) -> Scores:
        self._open = batch
        try:
            await asyncio.sleep(0)
            self._close(batch)
            batch.scores = scores = batch.served.scorer.run(batch.served.reader.together(batch.rows))
        finally:
            self._close(batch)  # a leader that is cancelled while it waits must not leave a batch that nobody scores
            if batch.done is not None and not batch.done.done():
                batch.done.set_result(None)
        return scores if len(scores) == 1 else scores.take(slice(0, 1))

    def _close(self, batch: _Batch) -> None:
        """Let no further row join."""
        if self._open is batch:
            self._open = None
