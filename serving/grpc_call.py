"""One call of gRPC: its metadata as the headers of a request, what the routes say to it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

import orjson
from grpc import StatusCode
from starlette.types import ASGIApp, Message, Scope

from serving.context import HEADER, given_id
from serving.hot import FAULT

_LOG = logging.getLogger("uvicorn.error")
_HEADERS = frozenset(("x-request-id", "x-everfit-key", "traceparent", "tracestate", "baggage"))
_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.FAILED_PRECONDITION,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
}


class Answered(NamedTuple):
    """What a route said."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class EndError(Exception):
    """A call ends with an error."""

    def __init__(self, code: StatusCode, detail: str, told: Sequence[tuple[str, str]] = ()) -> None:
        """`told` goes with it as metadata."""
        super().__init__(detail)
        self.code, self.detail, self.told = code, detail, told


Body: TypeAlias = Callable[[Scope], Coroutine[Any, Any, bytes]]
"""Gives the body of a request when it is read."""


async def _nothing(_scope: Scope) -> bytes:
    return b""


class Call:
    """One call: its metadata as headers, and what the routes say of it."""

    def __init__(self, app: ASGIApp, context: Any, most: int) -> None:
        """`most` is how many bytes a body may have."""
        self._app, self.context, self.most = app, context, most
        self._headers = _headers_of(context.invocation_metadata() or ())
        self._request = given_id(self._headers)

    def scope(self, method: str, path: str) -> Scope:
        """The call as a request."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(self._headers),
        }
        if self._request is not None:
            scope["request_id"] = self._request.decode()
        return scope

    async def ask(self, method: str, path: str, body: Body = _nothing) -> Answered:
        """What the routes say. A client that leaves does not end it: others' rows may share its call of the graph."""
        return await asyncio.shield(asyncio.ensure_future(self._asked(self.scope(method, path), body)))

    async def _asked(self, scope: Scope, body: Body) -> Answered:
        status, headers, parts, given = 500, {}, [b""], False

        async def receive() -> Message:
            nonlocal given
            if given:  # a refusal throws away what would still come
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": await body(scope), "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], dict(message["headers"])
            else:
                parts.append(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        except Exception:  # noqa: BLE001 - the route has answered that it failed; the server is to go on
            _LOG.exception("a call of gRPC failed")
        return Answered(status, headers, b"".join(parts))

    def echo(self) -> None:
        """Have the answer tell the request's id, where the client gave one."""
        if echoed := self.echoed(()):
            self.context.set_trailing_metadata(echoed)

    def echoed(self, told: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """The request's id, where the client gave one and nothing that is told has it."""
        name = HEADER.decode()
        if self._request is None or any(one == name for one, _ in told):
            return ()
        return ((name, self._request.decode()),)


def refuse(said: Answered) -> NoReturn:
    """End a call with what a route said was wrong."""
    try:
        detail = str(orjson.loads(said.body)["error"])
    except (ValueError, KeyError, TypeError):
        detail = FAULT
    names = (b"retry-after", HEADER)
    told = [(name.decode(), said.headers[name].decode()) for name in names if name in said.headers]
    raise EndError(_CODES.get(said.status, StatusCode.INTERNAL), detail, told)


def _headers_of(metadata: Sequence[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """The metadata that mean something here."""
    found = []
    for name, value in metadata:
        if isinstance(value, bytes):
            continue
        if name == "authorization" or name in _HEADERS:
            found.append((name.encode(), value.encode()))
        elif name == "x-api-key":
            found.append((b"authorization", b"Bearer " + value.encode()))
    return found
