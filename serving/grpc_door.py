"""The Open Inference Protocol over gRPC, where `EVERFIT_GRPC_PORT` names a port: each call is put to the HTTP routes.

    ServerLive      GET /v2/health/live      ServerReady     GET /v2/health/ready    ServerMetadata   GET /v2
    ModelReady      GET /v2/models/NAME[/versions/VERSION]/ready
    ModelMetadata   GET /v2/models/NAME[/versions/VERSION]
    ModelInfer      POST /v2/models/NAME[/versions/VERSION]/infer

So keys, rates, bounds, log, metrics, access log and traces are those of HTTP, and so is what is wrong with a request.
A key comes as metadata, `authorization: Bearer KEY` or `x-api-key: KEY`; what HTTP calls its headers are metadata too.
Messages are read by the call itself, as if the client streamed them, so that nobody without a key has one read, and
so that they have to come in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias
from urllib.parse import quote

import grpc
import orjson
from google.protobuf.message import DecodeError
from grpc import StatusCode
from starlette.types import ASGIApp, Message, Scope

from registry.settings import Settings
from serving.context import HEADER, given_id
from serving.grpc_messages import MESSAGES, PACKAGE
from serving.grpc_tensors import body_of, response_of
from serving.hot import FAULT, LARGE_AT_ONCE, THREAD_BYTES, aside
from serving.infer import LENGTH_HEADER

SERVICE = f"/{PACKAGE}.GRPCInferenceService/"
GRACE_SECONDS = 10.0
LAST_SECONDS = 0.3
"""How long calls are told to go elsewhere before the port is closed: gRPC cancels those that come in that moment, which
clients do not try again."""

MOST_DETAIL = 2_000
"""Characters of an error: gRPC sends it in a header, and bounds those."""

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


class _EndError(Exception):
    """A call ends with an error."""

    def __init__(self, code: StatusCode, detail: str, told: Sequence[tuple[str, str]] = ()) -> None:
        """`told` goes with it as metadata."""
        super().__init__(detail)
        self.code, self.detail, self.told = code, detail, told


class Door(Protocol):
    """The application: its routes, and what is asked of it beside them."""

    def is_shut(self, scope: Scope) -> bool:
        """Whether a request would be refused whatever its path is."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer a request."""


@asynccontextmanager
async def listening(app: Door, settings: Settings) -> AsyncIterator[None]:
    """Answer calls; at the end those that are inside, and no others. Raises `RuntimeError` for a port that is taken."""
    assert settings.grpc_port is not None
    server = grpc.aio.server(options=_options(settings), maximum_concurrent_rpcs=2 * settings.max_concurrent)
    service = _Service(app, settings)
    server.add_generic_rpc_handlers((service,))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    if settings.tls_cert is None or settings.tls_key is None:
        server.add_insecure_port(address)
    else:
        pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
        server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        yield
    finally:
        service.ending = True
        await asyncio.sleep(LAST_SECONDS)
        await server.stop(GRACE_SECONDS)


def _options(settings: Settings) -> Sequence[tuple[str, int]]:
    """Workers share the port by SO_REUSEPORT: the system gives each connection to one of them."""
    return (
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_connection_idle_ms", round(1000 * settings.idle_seconds)),
        ("grpc.max_concurrent_streams", settings.max_concurrent),
        ("grpc.so_reuseport", int(settings.workers > 1)),
    )


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service, whose calls are read here, not by gRPC."""

    def __init__(self, app: Door, settings: Settings) -> None:
        self._app, self._seconds, self.ending = app, settings.body_seconds, False
        self._most = settings.max_body_bytes
        self._gate = asyncio.Semaphore(LARGE_AT_ONCE + 1)
        """Large messages wait unread: read, they may be many times larger. One more than the routes take."""

    def service(self, details: Any) -> Any:
        """The handler of a method; None for one that is not here."""
        name = details.method.removeprefix(SERVICE)
        if name not in _PATHS or name == details.method:
            return None
        open_to_all = name in ("ServerLive", "ServerReady")

        async def handle(_requests: Any, context: Any) -> bytes:
            call = _Call(self._app, context, self._most)
            try:
                return await self._handled(name, call, open_to_all=open_to_all)
            except _EndError as error:
                how = error.code, error.detail[:MOST_DETAIL], (*call.echoed(error.told), *error.told)
            # Here, not where it was raised: gRPC keeps the error of `abort` and so the frames that it went through,
            # with the messages in them, until the collector comes.
            await context.abort(*how)
            raise AssertionError("gRPC has ended the call")

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _handled(self, name: str, call: _Call, *, open_to_all: bool) -> bytes:
        if self.ending:
            raise _EndError(StatusCode.UNAVAILABLE, "the endpoint ends")
        if not open_to_all and self._app.is_shut(call.scope("POST", _NOWHERE)):
            _refuse(await call.ask("POST", _NOWHERE))
        data = await self._data(call)
        async with self._gate if len(data) >= THREAD_BYTES else nullcontext():
            return await _answer(name, call, await _message(MESSAGES[f"{name}Request"], data))

    async def _data(self, call: _Call) -> bytes:
        """The message of a call as it comes."""
        try:
            async with asyncio.timeout(self._seconds):
                data: bytes = await call.context.read()
        except TimeoutError:
            seconds = f"{self._seconds:g} seconds (EVERFIT_BODY_SECONDS)"
            raise _EndError(StatusCode.DEADLINE_EXCEEDED, f"the message: expected all of it within {seconds}") from None
        if data is grpc.aio.EOF:
            raise _EndError(StatusCode.INVALID_ARGUMENT, "the message: expected one, got none")
        return data


async def _message(kind: Any, data: bytes) -> Any:
    """The message of a call, read."""
    try:
        return await aside(len(data) >= THREAD_BYTES, kind.FromString, data)
    except DecodeError:
        raise _EndError(StatusCode.INVALID_ARGUMENT, f"the message: expected a {kind.DESCRIPTOR.name}") from None


_NOWHERE = "/v2/models//infer"
"""What is asked where the path does not matter: the answer is a refusal."""


Body: TypeAlias = Callable[[Scope], Coroutine[Any, Any, bytes]]
"""Gives the body of a request when it is read."""


async def _nothing(_scope: Scope) -> bytes:
    return b""


class _Call:
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


def _refuse(said: Answered) -> NoReturn:
    """End a call with what a route said was wrong."""
    try:
        detail = str(orjson.loads(said.body)["error"])
    except (ValueError, KeyError, TypeError):
        detail = FAULT
    names = (b"retry-after", HEADER)
    told = [(name.decode(), said.headers[name].decode()) for name in names if name in said.headers]
    raise _EndError(_CODES.get(said.status, StatusCode.INTERNAL), detail, told)


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


async def _state(call: _Call, path: str, response: Any) -> Any:
    """Whether something is so; what is not here is not ready."""
    said, field = await call.ask("GET", path), response.DESCRIPTOR.fields[0].name
    content = orjson.loads(said.body)
    if field not in content and said.status != 404:
        _refuse(said)
    return response(**{field: content.get(field, False)})


async def _facts(call: _Call, path: str, response: Any) -> Any:
    """What is told of server or model."""
    said = await call.ask("GET", path)
    if said.status != 200:
        _refuse(said)
    return response(**orjson.loads(said.body))


async def _infer(call: _Call, path: str, message: Any) -> Any:
    """The answer to rows. They are written as HTTP has them when the route reads them, who tells of what is wrong."""

    async def body(scope: Scope) -> bytes:
        found, head = await aside(message.ByteSize() >= THREAD_BYTES, body_of, message, call.most)
        scope["headers"].append((LENGTH_HEADER, b"%d" % head))
        return found

    said = await call.ask("POST", path, body)
    if said.status != 200:
        _refuse(said)
    return await aside(len(said.body) >= THREAD_BYTES, _response, said, not message.raw_input_contents)


def _response(said: Answered, typed: bool) -> Any:
    return response_of(said.body, int(said.headers[LENGTH_HEADER]), typed=typed)


def _model(name: str, version: str) -> str:
    """A model's path; no name makes another one of it."""
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


_PATHS: dict[str, Callable[[Any], str]] = {
    "ServerLive": lambda _: "/v2/health/live",
    "ServerReady": lambda _: "/v2/health/ready",
    "ServerMetadata": lambda _: "/v2",
    "ModelReady": lambda message: f"{_model(message.name, message.version)}/ready",
    "ModelMetadata": lambda message: _model(message.name, message.version),
    "ModelInfer": lambda message: f"{_model(message.model_name, message.model_version)}/infer",
}
"""The methods, and what is asked for each."""


async def _answer(name: str, call: _Call, message: Any) -> bytes:
    """The answer of a method, as bytes."""
    path, response = _PATHS[name](message), MESSAGES[f"{name}Response"]
    if name == "ModelInfer":
        found = await _infer(call, path, message)
    elif name.endswith("Metadata"):
        found = await _facts(call, path, response)
    else:
        found = await _state(call, path, response)
    call.echo()
    written: bytes = found.SerializeToString()
    return written
