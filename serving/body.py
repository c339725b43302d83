"""Request bodies, read up to a bound and no further, and answers, as plain ASGI."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from serving.problems import BodyError, Headers, Problem, TooLargeError, problem

LINGER_BYTES = 16_000_000
LINGER_SECONDS = 2.0
OPEN = ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/ping")
"""The routes that need no key."""


class GoneError(Exception):
    """The client closed the connection before its request was whole."""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises `TooLargeError` as soon as more than `limit` bytes are announced or have come, whatever
    the headers say, and `GoneError` if the client leaves."""
    _check_announced(scope, limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        return _within(body, limit)
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
    if message["type"] == "http.disconnect":
        raise GoneError
    return _within(b"".join(parts), limit)


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises `BodyError` with the place of the fault; NaN and Infinity are not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyError(f"the body is not JSON: {error} (a missing value is written null)") from error


async def send_json(send: Send, body: bytes, headers: Headers | None = None, status: int = 200) -> None:
    """Send a whole answer; without `headers` it is JSON."""
    if headers is None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(receive: Receive, send: Send, answer: Problem) -> None:
    """Send a problem. After a 413 what the client is still sending is thrown away for a moment before the connection
    closes, since a closed one could take the answer with it."""
    if answer.status != 413:
        await send_json(send, answer.body, answer.headers, answer.status)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    size, message = 0, await receive()
    while message.get("more_body", False) and size < LINGER_BYTES:
        size += len(message.get("body", b""))
        message = await receive()


class Guard:
    """Lets only requests with the key pass; the health routes are open. The key is compared in constant time."""

    def __init__(self, key: str) -> None:
        self._expected = f"Bearer {key}".encode()

    def refusal(self, scope: Scope) -> Problem | None:
        """The answer to a request that may not pass."""
        if scope["path"] in OPEN or self._allows(scope):
            return None
        return problem(401, "expected the header `Authorization: Bearer KEY` with this endpoint's key")

    def _allows(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)


def _check_announced(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise _too_large(limit)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body: expected at most {limit} bytes (EVERFIT_MAX_BODY_BYTES), got more")
