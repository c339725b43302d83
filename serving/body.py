"""Request bodies, read up to a bound and no further, and answers, as plain ASGI."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from itertools import chain
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from serving.problems import BodyError, Headers, Problem, TooLargeError

LINGER_BYTES = 16_000_000
LINGER_SECONDS = 2.0
MOST_LEVELS = 64

AT_ONCE = "everfit.at_once"
"""Where a request's connection says how to answer it as a whole: see `Connection`."""

VERDICT = "everfit.verdict"
"""Where it says what the guard has said of it, if it was asked already: see `Express`."""


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
            raise too_large(limit)
    if message["type"] == "http.disconnect":
        raise GoneError
    return _within(b"".join(parts), limit)


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises `BodyError` with the place of the fault; NaN and Infinity are not JSON.

    Lists and objects inside one another are bounded far below what the parser bears (1,024): the journal wraps a body,
    and what can be answered must be readable there too.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise BodyError("the body is not JSON: it is empty") from error
        hint = " (a missing value is written null)" if _NUMBERLESS.search(body) else ""
        raise BodyError(f"the body is not JSON: {error}{hint}") from error
    brackets = body.count(b"[") + body.count(b"{")
    if brackets > MOST_LEVELS and brackets - _rows(found) >= MOST_LEVELS and _is_deeper(found, MOST_LEVELS):
        raise BodyError(f"the body: expected at most {MOST_LEVELS} lists and objects inside one another, got more")
    return found


_NUMBERLESS = re.compile(rb"[:,\[]\s*(?:[-+]?(?:nan|inf|infinity)|none|na)\b|[:,]\s*[,}\]]", re.IGNORECASE)
"""What other writers make of a missing value, none at all among it; for the hint in an error alone."""


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


def _rows(value: Any) -> int:
    """How many objects lie side by side in a body as it usually is: of all these only one can hold what is deep."""
    if type(value) is dict:
        value = value.get("rows", value.get("labels"))
    return list(map(type, value)).count(dict) - 1 if type(value) is list else 0


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether there are more than so many lists and objects inside one another, found level by level: a body has far
    fewer of them than values, so that a recursion would be slower, and could go too deep itself."""
    found = [value]
    for _ in range(levels + 1):
        found = [one for one in found if type(one) is list or type(one) is dict]
        if not found:
            return False
        found = list(chain.from_iterable(one if type(one) is list else one.values() for one in found))
    return any(type(one) is list or type(one) is dict for one in found)


def _check_announced(scope: Scope, limit: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise too_large(limit)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise too_large(limit)
    return body


def too_large(limit: int) -> TooLargeError:
    """The error of a body of more than `limit` bytes."""
    return TooLargeError(f"the body: expected at most {limit} bytes (EVERFIT_MAX_BODY_BYTES), got more")
