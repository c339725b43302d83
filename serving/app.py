"""The endpoint of one task: its parts put together at the door, and the routes that are not hot.

    POST /predict    POST /feedback    GET /health/live    GET /health/ready    GET /model    GET /metrics    GET /docs

Importing this module imports no MLflow and no database driver; the follower's thread opens the registry, the keeper
process the database.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from fastapi import FastAPI, Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.errors import TaskError
from registry.settings import Settings
from serving.body import Guard
from serving.challenger import Understudy
from serving.champion import Follower, Slot, VersionSource
from serving.docs import add_docs
from serving.feedback import TakeFeedback
from serving.logbook import Logbook, LogSettings
from serving.metrics import CONTENT_TYPE, Counts, Exposition
from serving.openapi import describe
from serving.prediction import Predict
from serving.problems import Problem, problem

_LOG = logging.getLogger("uvicorn.error")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def create_app(settings: Settings, task: str, versions: VersionSource | None = None) -> FastAPI:
    """The endpoint of a task, following its champion in `versions` (default: MLflow at the settings' URL).

    Raises `TaskError` for a name that no task can have.
    """
    if _NAME.fullmatch(task) is None:
        raise TaskError(f"task: expected lower-case letters, digits and hyphens, got {task!r}")
    slot, counts = Slot(task), Counts()
    logbook = Logbook(_log_settings(settings, task))
    source = _mlflow(settings) if versions is None else lambda: versions
    follower = Follower(
        slot,
        source,
        settings.folder / "served" / f"{task}.json",
        seconds=settings.poll_seconds,
        report=_LOG.log,
    )
    understudy = Understudy(slot, follower.attempt, _LOG.log, logbook.cast if settings.shadow else None)
    follower.beside.append(understudy.look)
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    bounds = {"max_bytes": settings.max_body_bytes, "max_rows": settings.max_rows}
    app = Endpoint(slot, key=key, lifespan=_lifespan(logbook, follower))
    app.answer("/predict", Predict(slot, logbook, counts, **bounds))
    app.answer("/feedback", TakeFeedback(slot, logbook, counts, **bounds))
    _add_health(app, slot, logbook)
    _add_state(app, slot, logbook, counts)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _bug)
    return app


class Endpoint(FastAPI):
    """FastAPI with two additions: POST routes that are plain ASGI and skip its layers, which cost more than a
    prediction does; and an OpenAPI document that knows the served version's columns."""

    def __init__(self, slot: Slot, *, key: str | None, lifespan: Any) -> None:
        """`key`, if there is one, guards every route but health."""
        super().__init__(title=f"Everfit: {slot.task}", lifespan=lifespan, docs_url=None, redoc_url=None)
        add_docs(self)
        self._slot, self._key = slot, key
        self._direct: dict[str, ASGIApp] = {}
        if key is not None:
            self.add_middleware(Guard, key=key)

    def answer(self, path: str, route: ASGIApp) -> None:
        """Have `route` answer POST requests to `path`."""
        self._direct[path] = route if self._key is None else Guard(route, self._key)
        self.router.routes.append(Route(path, route, methods=["POST"]))  # other methods get a 405

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        direct = self._direct.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if direct is None:
            await super().__call__(scope, receive, send)
        else:
            await direct(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document of this moment."""
        self.openapi_schema = None
        document = super().openapi()
        current = self._slot.current
        manifest = current.manifest if current is not None else None
        document["paths"] = describe(document["paths"], manifest, secured=self._key is not None)
        if self._key is not None:
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document


def _log_settings(settings: Settings, task: str) -> LogSettings:
    return LogSettings(
        task=task,
        folder=settings.folder / "journal",
        store=settings.store,
        synced=settings.log_sync == "disk",
        max_bytes=settings.max_backlog_bytes,
        images=settings.images(task),
        max_image_bytes=settings.max_image_bytes,
    )


def _mlflow(settings: Settings) -> Callable[[], VersionSource]:
    def open_versions() -> VersionSource:
        from registry.versions import Versions  # in the follower's thread: MLflow takes seconds to import

        return Versions(settings.tracking, settings.artifacts, settings.folder / "bundles")

    return open_versions


def _lifespan(logbook: Logbook, follower: Follower) -> Any:
    @asynccontextmanager
    async def run(_app: Starlette) -> AsyncIterator[None]:
        await logbook.open()
        await follower.remember()
        following = asyncio.create_task(follower.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        follower.close()
        await logbook.close()

    return run


def _add_health(app: FastAPI, slot: Slot, logbook: Logbook) -> None:
    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/health/ready", summary="Can it predict? 503 while there is no model")
    async def ready() -> Response:
        current = slot.current
        content = {
            "ready": current is not None,
            "version": current.version if current is not None else None,
            "registry": _word(slot.registry_error) if slot.registry_seen or slot.registry_error else "not asked yet",
            "log": _word(logbook.fault),
            "last_error": slot.last_error,
        }
        return _json(content, 200 if current is not None else 503)


def _add_state(app: FastAPI, slot: Slot, logbook: Logbook, counts: Counts) -> None:
    exposition = Exposition(slot.task, counts, lambda: _gauges(slot, logbook, counts))

    @app.get("/model", summary="The served version, and how the endpoint fares")
    async def model() -> Response:
        return _json(_state(slot, logbook))

    @app.get("/metrics", summary="Metrics for Prometheus")
    async def metrics() -> Response:
        return Response(exposition.text(), media_type=CONTENT_TYPE)


def _state(slot: Slot, logbook: Logbook) -> dict[str, Any]:
    current = slot.current
    state: dict[str, Any] = {
        "task": slot.task,
        "version": current.version if current is not None else None,
        "since": current.since if current is not None else None,
        "swaps": slot.swaps,
        "last_error": slot.last_error,
        "registry": _word(slot.registry_error),
        "log": _word(logbook.fault),
        "log_backlog": logbook.backlog,
        "images": _word(logbook.images),
        "shadow": logbook.shadow or None,
        "canary": None if slot.canary is None else {"version": slot.canary[0].version, "share": slot.canary[1]},
    }
    if current is None:
        return state
    manifest = current.manifest
    return state | {
        "problem": manifest.task.problem,
        "metric": manifest.task.metric,
        "reference": manifest.reference.model_dump(),
        "metrics": manifest.metrics,
        "coverage": manifest.task.coverage,
        "target": {"column": manifest.task.target, **manifest.target.model_dump()},
        "schema": manifest.data_schema.model_dump(),
        "lineage": manifest.lineage.model_dump(),
    }


def _gauges(slot: Slot, logbook: Logbook, counts: Counts) -> dict[str, float]:
    waiting = logbook.journal.waiting
    return {
        "everfit_ready": slot.current is not None,
        "everfit_registry_up": slot.registry_error is None,
        "everfit_log_up": logbook.fault is None,
        "everfit_images_up": logbook.images is None,
        "everfit_log_backlog_records": logbook.backlog,
        "everfit_log_backlog_bytes": waiting.size,
        "everfit_swaps_total": slot.swaps,
        "everfit_ignored_values_total": counts.ignored_values,
        "everfit_outside_range_total": counts.outside_range,
        "everfit_refused_images_total": counts.refused_images,
        "everfit_refused_versions_total": slot.refusals,
        "everfit_shadow_rows_total": logbook.shadow.get("rows", 0),
        "everfit_shadow_failed_total": logbook.shadow.get("failed", 0),
        "everfit_shadow_agreed_total": logbook.shadow.get("agreed", 0),
        "everfit_shadow_seconds_total": logbook.shadow.get("seconds", 0.0),
    }


def _word(fault: str | None) -> str:
    return "ok" if fault is None else fault


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _http_problem(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    return _response(problem(status, str(detail)))


async def _bug(_request: Request, _error: Exception) -> Response:
    return _response(problem(500, "the endpoint failed; its log has the details"))


def _response(answer: Problem) -> Response:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)
