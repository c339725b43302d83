"""The methods of gRPC, and what each asks of the HTTP routes.

    ServerLive      GET /v2/health/live      ServerReady     GET /v2/health/ready    ServerMetadata   GET /v2
    ModelReady      GET /v2/models/NAME[/versions/VERSION]/ready
    ModelMetadata   GET /v2/models/NAME[/versions/VERSION]
    ModelConfig     GET /v2/models/NAME[/versions/VERSION]/config
    ModelInfer      POST /v2/models/NAME[/versions/VERSION]/infer
    RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload      POST /v2/repository/...

and `Check` of grpc.health.v1, which orchestrators ask: `ServerReady` in other words. `ModelConfig` and the repository
are Triton's additions to the protocol, as its clients ask for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import orjson
from google.protobuf.json_format import ParseDict
from starlette.types import Scope

from serving.grpc_call import Answered, Call, refuse
from serving.grpc_messages import MESSAGES, PACKAGE
from serving.grpc_tensors import body_of, response_of
from serving.hot import THREAD_BYTES, aside
from serving.infer import LENGTH_HEADER

SERVICE = f"/{PACKAGE}.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"

_READY = "/v2/health/ready"
_REPOSITORY = "/v2/repository"
_SERVING, _NOT_SERVING = 1, 2  # of grpc.health.v1

Path: TypeAlias = Callable[[Any], str]
"""The route that is asked for a message."""

Ask: TypeAlias = Callable[[Call, Any, Any], Awaitable[Any]]
"""The response to a call and its message, made by the class that is given."""


class Method(NamedTuple):
    """What a method takes, gives and does; `open_to_all` without a key."""

    request: Any
    response: Any
    ask: Ask
    open_to_all: bool = False

    async def answer(self, call: Call, message: Any) -> bytes:
        """The response, as bytes."""
        found = await self.ask(call, message, self.response)
        call.echo()
        written: bytes = found.SerializeToString()
        return written


def _state(path: Path) -> Ask:
    """Whether something is so; what is not here is not ready."""

    async def ask(call: Call, message: Any, response: Any) -> Any:
        said, field = await call.ask("GET", path(message)), response.DESCRIPTOR.fields[0].name
        content = orjson.loads(said.body)
        if field not in content and said.status != 404:
            refuse(said)
        return response(**{field: content.get(field, False)})

    return ask


def _facts(path: Path, field: str | None = None) -> Ask:
    """What is told of server or model, all of it or as one field."""

    async def ask(call: Call, message: Any, response: Any) -> Any:
        content = orjson.loads(_good(await call.ask("GET", path(message))).body)
        return ParseDict(content if field is None else {field: content}, response())

    return ask


async def _infer(call: Call, message: Any, _response: Any) -> Any:
    """The answer to rows. They are written as HTTP has them when the route reads them, who tells of what is wrong."""

    async def body(scope: Scope) -> bytes:
        found, head = await aside(message.ByteSize() >= THREAD_BYTES, body_of, message, call.most)
        scope["headers"].append((LENGTH_HEADER, b"%d" % head))
        return found

    path = f"{_model(message.model_name, message.model_version)}/infer"
    said = _good(await call.ask("POST", path, body))
    return await aside(len(said.body) >= THREAD_BYTES, _tensors, said, not message.raw_input_contents)


def _tensors(said: Answered, typed: bool) -> Any:
    return response_of(said.body, int(said.headers[LENGTH_HEADER]), typed=typed)


async def _index(call: Call, message: Any, response: Any) -> Any:
    said = await _ordered(call, f"{_REPOSITORY}/index", {"ready": message.ready})
    return response(models=orjson.loads(said.body))


async def _load(call: Call, message: Any, response: Any) -> Any:
    path = f"{_REPOSITORY}/models/{quote(message.model_name, safe='')}/load"
    await _ordered(call, path, {"parameters": sorted(message.parameters)})
    return response()


async def _unload(call: Call, message: Any, response: Any) -> Any:
    await _ordered(call, f"{_REPOSITORY}/models/{quote(message.model_name, safe='')}/unload", {})
    return response()


async def _health(call: Call, message: Any, response: Any) -> Any:
    """Of the server, whatever service of it is named."""
    said = await call.ask("GET", _READY)
    return response(status=_SERVING if said.status == 200 else _NOT_SERVING)


async def _ordered(call: Call, path: str, order: dict[str, Any]) -> Answered:
    async def body(_scope: Scope) -> bytes:
        return orjson.dumps(order)

    return _good(await call.ask("POST", path, body))


def _good(said: Answered) -> Answered:
    if said.status != 200:
        refuse(said)
    return said


def _model(name: str, version: str) -> str:
    """A model's path; no name makes another one of it."""
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _of_model(suffix: str = "") -> Path:
    return lambda message: f"{_model(message.name, message.version)}{suffix}"


def _always(path: str) -> Path:
    return lambda _: path


_METHODS: dict[str, tuple[Ask, bool]] = {
    "ServerLive": (_state(_always("/v2/health/live")), True),
    "ServerReady": (_state(_always(_READY)), True),
    "ServerMetadata": (_facts(_always("/v2")), False),
    "ModelReady": (_state(_of_model("/ready")), False),
    "ModelMetadata": (_facts(_of_model()), False),
    "ModelConfig": (_facts(_of_model("/config"), "config"), False),
    "ModelInfer": (_infer, False),
    "RepositoryIndex": (_index, False),
    "RepositoryModelLoad": (_load, False),
    "RepositoryModelUnload": (_unload, False),
}
METHODS = {
    f"{SERVICE}{name}": Method(MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"], *how)
    for name, how in _METHODS.items()
} | {f"{HEALTH}Check": Method(MESSAGES["HealthCheckRequest"], MESSAGES["HealthCheckResponse"], _health, True)}
"""The methods by the paths that gRPC has for them."""


def unknown(path: str) -> str:
    """What is told of a method that is not here."""
    return f"{path.rpartition('/')[2]}: not answered here; what is: {', '.join(_METHODS)}"
