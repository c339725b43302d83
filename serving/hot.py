"""What all hot routes have in common: a body in, an answer out, counted, and refused in the words of its protocol.

A small body is read on the event loop: handing it to a thread would cost more. A large one is read in a thread.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson
from starlette.types import Receive, Scope, Send

from registry.cores import cores
from registry.errors import EverfitError
from serving.body import AT_ONCE, GoneError, read_body, send_json, send_problem
from serving.champion import Served, Slot
from serving.dialects import in_words_of
from serving.encodings import decompress, header_of
from serving.lean import tidy
from serving.metrics import Counts
from serving.prediction import KEY_HEADER, Answer, Predictor
from serving.problems import Headers, problem, problem_of
from serving.request import Request
from serving.rows import MisfitError

THREAD_BYTES = 32_768
"""From so many bytes on a body is read in a thread: about a millisecond of work. A compressed one always is: nobody
knows how large it is before."""

LARGE_AT_ONCE = cores()
"""So many large bodies of a task are read and answered at once: as many as there are cores; one more where each waits
for the disk. More would not be answered sooner, but all of them be in memory."""

FAULT = "the endpoint failed; its log has the details"

T = TypeVar("T")


class Reply(NamedTuple):
    """An answer, with headers where it is not JSON alone."""

    body: bytes
    headers: Headers | None = None


class HotRoute(ABC):
    """A route as an ASGI application."""

    name: ClassVar[str]
    """The route as the metrics call it."""
    unpacks: ClassVar[bool] = False
    """Whether it takes compressed bodies."""

    def __init__(
        self, slot: Slot, counts: Counts, *, max_bytes: int, max_rows: int, gate: asyncio.Semaphore | None = None
    ) -> None:
        """`gate` is where large bodies wait for those before them; each route has its own where none is given."""
        self._slot, self._counts = slot, counts
        self._gate = asyncio.Semaphore(LARGE_AT_ONCE) if gate is None else gate
        self._max_bytes, self._max_rows, self._tidy = max_bytes, max_rows, tidy()
        self.inside = 0
        """How many requests are not answered yet."""

    @abstractmethod
    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """The answer to a body as it was sent. Raises `EverfitError`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A fault of ours is answered 500, and raised for the server to log."""
        started = perf_counter()
        self.inside += 1
        try:
            body = await read_body(scope, receive, self._max_bytes)
            if self.is_large(scope, body):
                async with self._gate:
                    try:
                        reply = await self.reply(scope, body)
                    finally:  # one that is refused was read too
                        self._tidy.later()
            else:
                reply = await self.reply(scope, body)
        except EverfitError as error:
            self._counts.refused_images += self._is_of_an_image(error)
            refusal = in_words_of(scope["path"], problem_of(error))
            self._counts.requests[self.name, refusal.status] += 1
            await send_problem(receive, send, refusal)
        except GoneError:
            self._counts.requests[self.name, 499] += 1
        except Exception:
            self._counts.requests[self.name, 500] += 1
            await send_problem(receive, send, in_words_of(scope["path"], problem(500, FAULT)))
            raise
        else:
            at_once = scope.get(AT_ONCE)
            if at_once is None or reply.headers is not None or not at_once(reply.body):
                await send_json(send, reply.body, reply.headers)
            self._counts.answered(self.name, perf_counter() - started)
        finally:
            self.inside -= 1

    def is_large(self, scope: Scope, body: bytes) -> bool:
        """Whether a body is large, or may be."""
        return len(body) >= THREAD_BYTES or (self.unpacks and header_of(scope, b"content-encoding") is not None)

    def _is_of_an_image(self, error: EverfitError) -> bool:
        """Whether a request was refused for an image that cannot be read: it is not logged, and monitoring, which reads
        the log, does not see it."""
        current = self._slot.current
        image = None if current is None else current.image
        return image is not None and isinstance(error, MisfitError) and error.column == image.name


class PredictingRoute(HotRoute):
    """A route that answers rows: checked, answered and logged alike, whatever protocol they come in."""

    def __init__(self, slot: Slot, predictor: Predictor, counts: Counts, **bounds: Any) -> None:
        """`bounds` are those of `HotRoute`."""
        super().__init__(slot, counts, **bounds)
        self._predictor = predictor

    async def predicted(
        self, scope: Scope, body: bytes, request: Request, sent: bytes | None = None, served: Served | None = None
    ) -> Answer:
        """The answer to rows, logged; by a version that the client named, or by the one whose turn it is. `sent` is
        what the log keeps of them, if it is not the rows as they are here."""
        key = header_of(scope, KEY_HEADER)
        if sent is None:
            sent = await aside(self.is_large(scope, body), orjson.dumps, {"rows": request.rows})
        return await self._predictor.answer(request, sent, body if key is None else key, served)

    def unpacked(self, scope: Scope, body: bytes) -> bytes:
        """A body without its `Content-Encoding`. Raises `TooLargeError`, `BodyError`."""
        encoding = header_of(scope, b"content-encoding")
        return body if encoding is None else decompress(body, encoding, self._max_bytes)


async def aside(large: bool, work: Callable[..., T], *args: Any) -> T:
    """The result of work on a body, done in a thread when the body is large."""
    return await asyncio.to_thread(work, *args) if large else work(*args)
