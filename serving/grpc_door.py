"""The Open Inference Protocol over gRPC, where `EVERFIT_GRPC_PORT` names a port: each call is put to the HTTP routes
(`serving/grpc_methods.py` says which).

So keys, rates, bounds, log, metrics, access log and traces are those of HTTP, and so is what is wrong with a request.
A key comes as metadata, `authorization: Bearer KEY` or `x-api-key: KEY`; what HTTP calls its headers are metadata too.
Messages are read by the call itself, as if the client streamed them, so that nobody without a key has one read, and
so that they have to come in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode
from starlette.types import Scope

from registry.settings import Settings
from serving.grpc_call import Call, EndError, refuse
from serving.grpc_methods import METHODS, SERVICE, Method, unknown
from serving.hot import LARGE_AT_ONCE, THREAD_BYTES, aside

GRACE_SECONDS = 10.0
LAST_SECONDS = 0.3
"""How long calls are told to go elsewhere before the port is closed: gRPC cancels those that come in that moment, which
clients do not try again."""

MOST_DETAIL = 2_000
"""Characters of an error: gRPC sends it in a header, and bounds those."""


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
        """The handler of a method; None for one of another service."""
        method = METHODS.get(details.method)
        if method is None:
            return _unknown(details.method) if details.method.startswith(SERVICE) else None

        async def handle(_requests: Any, context: Any) -> bytes:
            call = Call(self._app, context, self._most)
            try:
                return await self._handled(method, call)
            except EndError as error:
                how = error.code, error.detail[:MOST_DETAIL], (*call.echoed(error.told), *error.told)
            # Here, not where it was raised: gRPC keeps the error of `abort` and so the frames that it went through,
            # with the messages in them, until the collector comes.
            await context.abort(*how)
            raise AssertionError("gRPC has ended the call")

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _handled(self, method: Method, call: Call) -> bytes:
        if self.ending:
            raise EndError(StatusCode.UNAVAILABLE, "the endpoint ends")
        if not method.open_to_all and self._app.is_shut(call.scope("POST", _NOWHERE)):
            refuse(await call.ask("POST", _NOWHERE))
        data = await self._data(call)
        async with self._gate if len(data) >= THREAD_BYTES else nullcontext():
            return await method.answer(call, await _message(method.request, data))

    async def _data(self, call: Call) -> bytes:
        """The message of a call as it comes."""
        try:
            async with asyncio.timeout(self._seconds):
                data: bytes = await call.context.read()
        except TimeoutError:
            seconds = f"{self._seconds:g} seconds (EVERFIT_BODY_SECONDS)"
            raise EndError(StatusCode.DEADLINE_EXCEEDED, f"the message: expected all of it within {seconds}") from None
        if data is grpc.aio.EOF:
            raise EndError(StatusCode.INVALID_ARGUMENT, "the message: expected one, got none")
        return data


async def _message(kind: Any, data: bytes) -> Any:
    """The message of a call, read."""
    try:
        return await aside(len(data) >= THREAD_BYTES, kind.FromString, data)
    except DecodeError:
        raise EndError(StatusCode.INVALID_ARGUMENT, f"the message: expected a {kind.DESCRIPTOR.name}") from None


def _unknown(path: str) -> Any:
    """The handler of a method of the service that is not here: Triton's clients offer more than there is."""

    async def handle(_requests: Any, context: Any) -> bytes:
        await context.abort(StatusCode.UNIMPLEMENTED, unknown(path)[:MOST_DETAIL])
        raise AssertionError("gRPC has ended the call")

    return grpc.stream_unary_rpc_method_handler(handle)


_NOWHERE = "/v2/models//infer"
"""What is asked where the path does not matter: the answer is a refusal."""
