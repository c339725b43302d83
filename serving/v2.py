"""The Open Inference Protocol (V2) over HTTP, as KServe's and Triton's clients speak it.

    POST /v2/models/TASK/infer                      GET  /v2    /v2/health/live    /v2/health/ready
    POST /v2/models/TASK/versions/VERSION/infer     GET  /v2/models/TASK[/versions/VERSION][/ready or /config]
    POST /v2/repository/index                       POST /v2/repository/models/TASK/load    .../unload

A model is a task; its versions are those that are loaded: the champion, a canary, the one before. Without a version
the champion answers, or the canary. `serving/infer.py` answers, `serving/tensors.py` reads and writes tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version as version_of
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from serving.body import GoneError, parse, read_body
from serving.champion import Served
from serving.host import Host
from serving.hosts import Hosts
from serving.quoting import shown
from serving.roster import Roster
from serving.signature import config, metadata
from serving.tensors import TensorError

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "model_repository(unload_dependents)")
MAX_ORDER_BYTES = 65_536
"""Largest body of a request about the repository."""


def add_v2(app: FastAPI, hosts: Hosts, roster: Roster, draining: Callable[[], bool], *, max_rows: int) -> None:
    """The routes of the protocol that are not hot, and the hot one where its path names a version; `draining` says
    whether the server is about to end."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol (V2)"])
    _add_server(router, hosts, draining)
    _add_models(router, hosts, max_rows)
    _add_repository(router, hosts, roster)
    app.include_router(router)
    versioned = _Versioned(hosts)
    for path in ("/v2/models/{task}/infer", "/v2/models/{task}/versions/{version}/infer"):
        app.router.routes.append(Route(path, versioned, methods=["POST"]))


class _Versioned:
    """Inference by a path that is not known beforehand, as an ASGI application."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises `UnknownTaskError`."""
        await self._hosts.named(scope["path_params"]["task"]).infer(scope, receive, send)


def _add_server(router: APIRouter, hosts: Hosts, draining: Callable[[], bool]) -> None:
    @router.get("", summary="The server and the extensions it has")
    async def server() -> Response:
        return _json({"name": "everfit", "version": version_of("everfit"), "extensions": EXTENSIONS})

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> Response:
        return _json({"live": True})

    @router.get("/health/ready", summary="Can every task predict? 503 if not")
    async def ready() -> Response:
        good = all(host.slot.current is not None for host in hosts) and not draining()
        return _json({"ready": good}, 200 if good else 503)


def _add_models(router: APIRouter, hosts: Hosts, max_rows: int) -> None:
    for path in ("/models/{task}", "/models/{task}/versions/{version}"):
        suffix = "" if path.endswith("task}") else " of a version"

        @router.get(path, summary=f"Inputs and outputs{suffix}")
        async def model(task: str, version: str | None = None) -> Response:
            host = hosts.named(task)
            return _json(metadata(task, host.slot.versions, _served(host, version).manifest))

        @router.get(f"{path}/ready", summary=f"Can it predict? 503 if not{suffix and ', 404 if it is not loaded'}")
        async def ready(task: str, version: str | None = None) -> Response:
            host = hosts.named(task)
            good = (host.slot.current if version is None else _served(host, version)) is not None
            return _json({"name": task, "ready": good}, 200 if good else 503)

        @router.get(f"{path}/config", summary=f"Inputs and outputs{suffix} as Triton's configuration")
        async def configuration(task: str, version: str | None = None) -> Response:
            return _json(config(task, _served(hosts.named(task), version), max_rows))


def _add_repository(router: APIRouter, hosts: Hosts, roster: Roster) -> None:
    @router.post("/repository/index", summary="The tasks and their versions that are loaded")
    async def index(request: Request) -> Response:
        only_ready = (await _order(request)).get("ready") is True
        found = [one for host in hosts for one in _states(host)]
        return _json([one for one in found if one["state"] == "READY" or not only_ready])

    @router.post("/repository/models/{task}/load", summary="Serve a task too, or look at the registry now")
    async def load(task: str, request: Request) -> Response:
        if refused := (await _order(request)).get("parameters"):
            raise TensorError(f"load: expected no parameters, got {shown(refused)}; models come from the registry")
        await roster.load(task)
        return _json({})

    @router.post("/repository/models/{task}/unload", summary="Serve a task no more")
    async def unload(task: str, request: Request) -> Response:
        await _order(request)
        await roster.unload(task)
        return _json({})


def _served(host: Host, version: str | None) -> Served:
    return host.slot.served() if version is None else host.infer.loaded(version)


def _states(host: Host) -> Iterator[dict[str, Any]]:
    if not host.slot.versions:
        yield {"name": host.task, "version": "", "state": "UNAVAILABLE", "reason": host.slot.last_error or ""}
    for version in host.slot.versions:
        yield {"name": host.task, "version": version, "state": "READY", "reason": ""}


async def _order(request: Request) -> dict[str, Any]:
    """The body of a request about the repository; none is an empty one. Raises `BodyError`, `TensorError`."""
    try:
        body = await read_body(request.scope, request.receive, MAX_ORDER_BYTES)
    except GoneError as error:
        raise TensorError("the client left before its request was whole") from error
    content = parse(body) if body.strip() else {}
    if not isinstance(content, dict):
        raise TensorError(f"expected an object, got {shown(content)}")
    return content


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
