"""The routes beside `POST /invocations` that MLflow's scoring clients ask for."""

from __future__ import annotations

from importlib.metadata import version as version_of

from fastapi import FastAPI
from starlette.responses import Response

from serving.hosts import Hosts

JSON = "application/json"


def add_mlflow(app: FastAPI, hosts: Hosts) -> None:
    """`GET /ping` and `GET /version`, with the bodies that MLflow's server sends."""

    @app.get("/ping", summary="Can it predict? 503 while a task has no model", tags=["MLflow"])
    async def ping() -> Response:
        good = all(host.slot.current is not None for host in hosts)
        return Response("\n", 200 if good else 503, media_type=JSON)

    @app.get("/version", summary="The version of MLflow whose protocol is spoken", tags=["MLflow"])
    async def version() -> Response:
        return Response(version_of("mlflow"), media_type=JSON)
