"""`POST /predict`, the hot path: bytes in, bytes out, with nothing between them that a request does not need.

A small request is answered in one go on the event loop: handing it to a thread would cost more than the graph does.
A large one is read and scored in a thread, so that others are answered meanwhile; images are always decoded in one,
since a small file may be a large image.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from time import perf_counter
from typing import NamedTuple

import orjson
from starlette.types import Receive, Scope, Send

from registry.errors import EverfitError, RowError
from registry.scoring import Scores
from serving.batching import Batcher
from serving.body import GoneError, parse, read_body, send_json, send_problem
from serving.challenger import chosen
from serving.champion import Served, Slot
from serving.logbook import Logbook
from serving.metrics import Counts
from serving.problems import problem_of
from serving.request import read_request
from serving.rows import MisfitError, Row
from serving.sightings import Sighting, sightings

THREAD_ROWS = 64
"""From so many rows on a request is answered in a thread: about a millisecond of work."""

KEY_HEADER = b"x-everfit-key"
"""Who asks, in the client's words: all requests with one key are answered by one version."""


class Answered(NamedTuple):
    """The answer's body, how many columns have values outside their range, and what was seen of images, if any."""

    body: bytes
    outside: int
    seen: list[Sighting] | None = None


class Ids:
    """Prediction ids: 24 hexadecimal characters, the first 14 the time in microseconds, the rest this process's own.
    Ids sort in the order in which they were made."""

    def __init__(self) -> None:
        self._last = 0
        self._own = secrets.token_hex(5)

    def take(self, count: int) -> list[str]:
        """The next ids."""
        first = max(time.time_ns() // 1000, self._last + 1)
        self._last = first + count - 1
        return [f"{number:014x}{self._own}" for number in range(first, first + count)]


class Predict:
    """The route, as an ASGI application."""

    def __init__(self, slot: Slot, logbook: Logbook, counts: Counts, *, max_bytes: int, max_rows: int) -> None:
        self._slot, self._logbook, self._counts = slot, logbook, counts
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._ids = Ids()
        self._batcher = Batcher(THREAD_ROWS)
        self.inside = 0
        """How many requests are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        self.inside += 1
        try:
            body = await read_body(scope, receive, self._max_bytes)
            answer = await self._by(self._version_for(scope, body), body)
        except EverfitError as error:
            refusal = problem_of(error)
            self._counts.refused_images += self._is_of_an_image(error)
            self._counts.requests["/predict", refusal.status] += 1
            await send_problem(receive, send, refusal)
        except GoneError:
            self._counts.requests["/predict", 499] += 1
        else:
            await send_json(send, answer)
            self._counts.requests["/predict", 200] += 1
            self._counts.answered(perf_counter() - started)
        finally:
            self.inside -= 1

    def _is_of_an_image(self, error: EverfitError) -> bool:
        """Whether a request was refused for an image that cannot be read: it is not logged, and monitoring, which reads
        the log, does not see it."""
        current = self._slot.current
        image = None if current is None else current.image
        return image is not None and isinstance(error, MisfitError) and error.column == image.name

    def _version_for(self, scope: Scope, body: bytes) -> Served:
        """The champion; the canary for its share of the keys."""
        if (canary := self._slot.canary) is not None:
            key = next((value for name, value in scope["headers"] if name == KEY_HEADER), body)
            if chosen(key, canary[1]):
                return canary[0]
        return self._slot.served()

    async def _by(self, served: Served, body: bytes) -> bytes:
        """A version's answer, or the champion's to what a canary cannot answer."""
        try:
            return await self._answer(body, served)
        except EverfitError:
            if (champion := self._slot.served()) is served:
                raise
            return await self._answer(body, champion)

    async def _answer(self, body: bytes, served: Served) -> bytes:
        received = time.time_ns() // 1000
        request = read_request(parse(body), served.manifest.data_schema, self._max_rows)
        rows = request.rows
        ids = request.ids or self._ids.take(len(rows))
        if len(rows) == 1:
            answer, outside, seen = await self._one(served, ids, rows[0])
        elif len(rows) < THREAD_ROWS and served.image is None:
            answer, outside, seen = _many(served, ids, rows)
        else:
            answer, outside, seen = await asyncio.to_thread(_many, served, ids, rows)
        told = b"" if seen is None else b'"seen":%b,' % orjson.dumps(seen)
        self._logbook.append(
            served.version,
            served.record,
            b'{"received":%d,"answer":%b,%b"sent":%b}' % (received, answer, told, body),
            len(rows),
        )
        if self._logbook.synced:
            await self._logbook.settle()
        self._count(served, rows, outside)
        return answer

    async def _one(self, served: Served, ids: list[str], row: Row) -> Answered:
        reader = served.reader
        values = reader.values(row) if served.image is None else await asyncio.to_thread(reader.values, row)
        scores = await self._batcher.score(served, values)
        _require_finite(scores)
        seen = None
        if served.image is not None:
            place = served.manifest.data_schema.names.index(served.image.name)
            seen = sightings([row], [values[place]], served.image, scores)
        warnings = reader.warnings(reader.together([values])) if reader.odd(row) else ()
        return Answered(served.answers.write(ids, scores, warnings), len(warnings), seen)

    def _count(self, served: Served, rows: list[Row], outside: int) -> None:
        self._counts.predictions[served.version] += len(rows)
        self._counts.outside_range += outside
        self._counts.ignored_values += served.reader.ignored(rows)


def _many(served: Served, ids: list[str], rows: list[Row]) -> Answered:
    feed = served.reader.many(rows)
    scores = served.scorer.run_in_parts(feed)
    _require_finite(scores)
    image, warnings = served.image, served.reader.warnings(feed)
    seen = None if image is None else sightings(rows, feed[image.name], image, scores)
    return Answered(served.answers.write(ids, scores, warnings), len(warnings), seen)


def _require_finite(scores: Scores) -> None:
    if not math.isfinite(sum(values := scores.uncertainty.tolist())):
        row = next((row for row, value in enumerate(values) if not math.isfinite(value)), 0)
        raise RowError(f"row {row}: the model has no finite answer to these values")
