"""Where to go: what `GET /` tells, and what is told of a path or a method that is not here."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from importlib.metadata import version as version_of
from itertools import islice
from typing import Any

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from registry.errors import did_you_mean
from serving.context import SCOPE
from serving.docs import PAGE
from serving.hosts import Hosts
from serving.problems import Problem, problem
from serving.quoting import shown

INDEX = "/"
_MOST = 64
"""So many paths, and characters of the one that was asked for, are compared: a millisecond."""

_SERVER = {
    "docs": PAGE,
    "openapi": "/openapi.json",
    "live": "/health/live",
    "ready": "/health/ready",
    "metrics": "/metrics",
    "models": "/models",
    "v2": "/v2",
}
_SHORT = {"model": "/model", "predict": "/predict", "feedback": "/feedback", "invocations": "/invocations"}


def add_index(app: FastAPI, hosts: Hosts) -> None:
    """`GET /`: the paths that there are."""

    @app.get(INDEX, summary="The paths that there are")
    async def index(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        content = {"name": "everfit", "version": version_of("everfit"), **_under(root, places(hosts))}
        return Response(orjson.dumps(content), media_type="application/json")


def places(hosts: Hosts) -> dict[str, Any]:
    """The paths of the server, those of each task, and the short forms where one task has them."""
    short = {} if hosts.short is None else {"short": {"task": hosts.short.task, **_SHORT}}
    return {**_SERVER, **short, "tasks": {host.task: _of_task(host.task) for host in hosts}}


def _of_task(task: str) -> dict[str, str]:
    own = {name: f"/models/{task}{'' if name == 'model' else path}" for name, path in _SHORT.items()}
    return {**own, "v2": f"/v2/models/{task}"}


def _under(root: str, found: Any) -> Any:
    """The same behind a proxy that adds `root` to each path."""
    if isinstance(found, dict):
        return {name: _under(root, value) for name, value in found.items()}
    return root + found if found.startswith("/") else found


def _paths(found: dict[str, Any]) -> Iterator[str]:
    for value in found.values():
        if isinstance(value, dict):
            yield from _paths(value)
        elif value.startswith("/"):
            yield value


def astray(request: Request, error: HTTPException, hosts: Hosts) -> Problem:
    """The answer to a request that no route takes: what is near, or which methods there are."""
    path, allowed = request.scope["path"], (error.headers or {}).get("Allow", "")
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        near = did_you_mean(path[:_MOST], islice(_paths(places(hosts)), _MOST))
        detail = f"no path {shown(path)} here{near}; GET / lists them"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        asked = SCOPE.get() or request.scope  # a HEAD, which is answered as a GET, is one still
        detail = f"{shown(path)} is not for {asked['method']}: expected {allowed}"
    found = problem(error.status_code, detail)
    if allowed:
        found.headers.append((b"allow", allowed.encode()))
    return found
