"""The routes beside `POST /invocations` that MLflow's scoring clients ask for."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response

from serving.hosts import Hosts


def add_mlflow(app: FastAPI, hosts: Hosts) -> None:
    """`GET /ping` and `GET /version`, with the bodies that MLflow's server sends, as plain text."""
    plain: dict[str, Any] = {"tags": ["MLflow"], "response_class": PlainTextResponse}

    @app.get("/ping", summary="Can it predict? 503 while a task has no model", **plain)
    async def ping() -> Response:
        good = all(host.slot.current is not None for host in hosts)
        return PlainTextResponse("\n", 200 if good else 503)

    @app.get("/version", summary="The version of MLflow whose protocol is spoken", **plain)
    async def version() -> Response:
        return PlainTextResponse(version_of("mlflow"))
