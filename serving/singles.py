"""Single rows in JSON answered and logged without a task of their own: what is left of the hot path when all of a
request is there and nothing about it is unusual. `prediction.py` does the same for everything else.

All rows of a batch are logged by one write, and only then does the first of their answers leave.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from serving.batching import Batcher
from serving.body import parse
from serving.cautions import of_unknown
from serving.champion import Outcome, Served, Slot
from serving.hot import THREAD_BYTES
from serving.logbook import Logbook
from serving.metrics import Counts
from serving.predict import Predict
from serving.prediction import Ids, written
from serving.rows import Row

_LOG = logging.getLogger("uvicorn.error")


class Waiting(Protocol):
    """Who waits for an answer: see `serving.connection.Connection`."""

    @property
    def alone(self) -> bool:
        """Whether nobody else is connected."""

    def answer(self, body: bytes) -> None:
        """Send an answer of status 200."""

    def give_back(self) -> None:
        """Have the request answered the long way."""


class _Single(NamedTuple):
    waiting: Waiting
    served: Served
    row: Row
    values: list[Any]
    sent: bytes
    received: int
    began: float


class Singles:
    """One task's. Belongs to one event loop."""

    def __init__(
        self, slot: Slot, logbook: Logbook, counts: Counts, ids: Ids, batcher: Batcher, max_bytes: int
    ) -> None:
        """`ids` and `batcher` are those of the task's other routes; a body has at most `max_bytes`."""
        self._slot, self._logbook, self._counts, self._ids, self._batcher = slot, logbook, counts, ids, batcher
        self._most = min(max_bytes, THREAD_BYTES - 1)
        self._scored: list[tuple[_Single, Outcome | None]] = []
        self.inside = 0
        """How many requests are not answered yet."""

    def take(self, waiting: Waiting, body: bytes) -> bool:
        """Answer a body, sooner or later; False, and nothing has happened, where it has to go the long way: with a
        canary beside the champion, with images, with a log that is synced to the disk, with anything but a row that
        fits."""
        began, served = perf_counter(), self._served()
        if served is None or len(body) > self._most:
            return False
        try:
            row = parse(body)
            if type(row) is not dict or "rows" in row or "columns" in row:
                return False  # more than a row, or a column of this name
            values = served.reader.values(row)
        except Exception:  # noqa: BLE001 - the long way meets it again, and tells it
            return False
        self.inside += 1
        one = _Single(waiting, served, row, values, body, time.time_ns() // 1000, began)
        self._batcher.join(served, values, partial(self._take, one), self._leave, alone=waiting.alone)
        return True

    def _served(self) -> Served | None:
        served = self._slot.current
        usual = served is not None and served.image is None and self._slot.canary is None and not self._logbook.synced
        return served if usual else None

    def _take(self, one: _Single, outcome: Outcome | None) -> None:
        self._scored.append((one, outcome))

    def _leave(self) -> None:
        """Log and answer the rows of a batch."""
        scored, self._scored = self._scored, []
        self.inside -= len(scored)
        try:
            bodies = self._logged(scored)
        except Exception:  # noqa: BLE001 - the long way meets it again, one request after another, and tells it
            for one, _ in scored:
                _tell(one.waiting.give_back)
            return
        for (one, _), body in zip(scored, bodies, strict=True):
            _tell(one.waiting.answer, body)
            self._counts.answered(Predict.name, perf_counter() - one.began)

    def _logged(self, scored: Sequence[tuple[_Single, Outcome | None]]) -> list[bytes]:
        """The answers to rows of one version, all of them in the journal. Raises where one has none, or the journal
        does not take them; then it has none of them."""
        served, outside, ignored, bodies = scored[0][0].served, 0, 0, list[bytes]()
        for (one, outcome), name in zip(scored, self._ids.take(len(scored)), strict=True):
            if outcome is None:
                raise RuntimeError("the call of the graph failed")
            names = served.reader.unknown([one.row])
            unread = of_unknown(names) if names else ()
            warnings, body = written(served, name, one.values, outcome, unread=unread)
            bodies.append(body)
            outside += len(warnings) - len(unread)
            ignored += len(names)
        contents = [
            b'{"received":%d,"answer":%b,"sent":%b}' % (one.received, body, one.sent)
            for (one, _), body in zip(scored, bodies, strict=True)
        ]
        self._logbook.append_all(served.version, served.record, contents)
        self._counts.predictions[served.version] += len(scored)
        self._counts.outside_range += outside
        self._counts.ignored_values += ignored
        return bodies


def _tell(tell: Callable[..., None], *what: bytes) -> None:
    """Tell one who waits; a fault of that connection is none of the others'."""
    try:
        tell(*what)
    except Exception:  # noqa: BLE001 - logged
        _LOG.exception("a request that went the short way could not be answered")
