"""What the hot routes of other protocols have in common: a body in, an answer out, counted, and refused in their words.

A small body is read on the event loop, as `POST /predict` does; a large one in a thread.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, TypeVar

import orjson
from starlette.types import Receive, Scope, Send

from registry.errors import EverfitError
from serving.body import GoneError, read_body, send_json, send_problem
from serving.champion import Served, Slot
from serving.dialects import in_words_of
from serving.encodings import decompress, header_of
from serving.metrics import Counts
from serving.prediction import KEY_HEADER, Answer, Predict
from serving.problems import Headers, problem_of
from serving.request import Request

THREAD_BYTES = 32_768
"""From so many bytes on a body is read in a thread: about a millisecond of work."""

T = TypeVar("T")


class Reply(NamedTuple):
    """An answer, with headers where it is not JSON alone."""

    body: bytes
    headers: Headers | None = None


class HotRoute(ABC):
    """A route as an ASGI application. Rows go the way of `POST /predict`: checked, answered and logged alike."""

    name: ClassVar[str]
    """The route as the metrics call it."""

    def __init__(self, slot: Slot, predict: Predict, counts: Counts, *, max_bytes: int, max_rows: int) -> None:
        self._slot, self._predict, self._counts = slot, predict, counts
        self._max_bytes, self._max_rows = max_bytes, max_rows

    @abstractmethod
    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """The answer to a body as it was sent. Raises `EverfitError`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        self._predict.inside += 1
        try:
            reply = await self.reply(scope, await read_body(scope, receive, self._max_bytes))
        except EverfitError as error:
            refusal = in_words_of(scope["path"], problem_of(error))
            self._counts.refused_images += self._predict.is_of_an_image(error)
            self._counts.requests[self.name, refusal.status] += 1
            await send_problem(receive, send, refusal)
        except GoneError:
            self._counts.requests[self.name, 499] += 1
        except Exception:
            self._counts.requests[self.name, 500] += 1
            raise
        else:
            await send_json(send, reply.body, reply.headers)
            self._counts.answered(self.name, perf_counter() - started)
        finally:
            self._predict.inside -= 1

    async def predicted(self, scope: Scope, body: bytes, request: Request, served: Served | None = None) -> Answer:
        """The answer to rows, logged; by a version that the client named, or by the one whose turn it is."""
        key = header_of(scope, KEY_HEADER)
        sent = await aside(body, orjson.dumps, {"rows": request.rows})
        return await self._predict.answer(request, sent, body if key is None else key, served)

    def unpacked(self, scope: Scope, body: bytes) -> bytes:
        """A body without its `Content-Encoding`. Raises `TooLargeError`, `BodyError`."""
        encoding = header_of(scope, b"content-encoding")
        return body if encoding is None else decompress(body, encoding, self._max_bytes)


async def aside(body: bytes, work: Callable[..., T], *args: Any) -> T:
    """The result of work on a body, done in a thread when the body is large."""
    return work(*args) if len(body) < THREAD_BYTES else await asyncio.to_thread(work, *args)
