"""The server of one task or of several: its parts put together at the door, and the routes that are not hot.

    POST /models/TASK/predict    POST /models/TASK/feedback    GET /models/TASK    GET /models
    POST /predict                POST /feedback                GET /model          of the only task
    POST /v2/models/TASK/infer   ... (serving/v2.py)           POST /models/TASK/invocations   (serving/invocations.py)
    GET /health/live             GET /health/ready             GET /metrics        GET /docs        GET /

Requests have ids (`serving/context.py`); who watches requests (`serving/watching.py`) is given at the door.

Neither MLflow nor a database driver is imported here: the scout process asks the registry, the keeper process writes
the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, cast

import orjson
from fastapi import FastAPI, Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from registry.errors import EverfitError, InputError
from registry.settings import Settings
from serving.body import AT_ONCE, VERDICT, send_problem
from serving.catalogue import Sample
from serving.champion import VersionSource
from serving.context import SCOPE
from serving.dialects import in_words_of
from serving.docs import STATIC, add_docs
from serving.express import Express
from serving.guard import OPEN, Guard, Verdict
from serving.hosts import Hosts
from serving.hot import FAULT
from serving.metrics import CONTENT_TYPE, Exposition, Seen
from serving.mlflow_routes import add_mlflow
from serving.openapi import describe
from serving.presence import workers_folder
from serving.problems import Problem, problem, problem_of
from serving.rates import Rates
from serving.roster import Roster
from serving.scout import Scout
from serving.siblings import Siblings
from serving.signpost import add_index, astray
from serving.v2 import add_v2
from serving.watching import Watch, Watcher
from serving.webhook import add_webhook

_LOG = logging.getLogger("uvicorn.error")
_QUIET = [(b"cache-control", b"no-store"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")]


_REASONS = {401: "no key", 403: "forbidden", 429: "rate", 503: "crowding"}


def create_app(
    settings: Settings,
    *tasks: str,
    versions: VersionSource | None = None,
    watchers: Sequence[Watcher] = (),
    own: str | None = None,
) -> FastAPI:
    """The server of tasks, following their champions in `versions` (default: MLflow at the settings' URL); `watchers`
    are told of every request, and closed at the end; `own` is the key of this machine's own programs.

    Raises `TaskError` for a name that no task can have, and what `Guard` raises of keys.
    """
    scout = Scout(settings)
    hosts = Hosts(settings, tasks, scout if versions is None else versions)
    together = workers_folder(settings) if settings.workers > 1 else None
    rates = None if together is None else _shared(together)
    guard = Guard(settings, hosts.whose, rates, own)
    app = Endpoint(hosts, guard, Watch(watchers), most=settings.max_concurrent, after=scout.close)
    add_index(app, hosts)
    _add_health(app, hosts)
    _add_state(app, hosts)
    _add_metrics(app, hosts, together)
    roster = Roster(workers_folder(settings), hosts, None if together is None else settings.poll_seconds)
    app.beside.append(roster.follow)
    add_v2(app, hosts, roster, lambda: app.draining, max_rows=settings.max_rows)
    add_mlflow(app, hosts)
    if settings.grpc_port is not None:
        app.doors.append(_grpc(app, settings))
    if settings.webhook_secret is not None:
        add_webhook(app, hosts, settings.webhook_secret.get_secret_value())
    app.add_exception_handler(EverfitError, _deliberate)
    app.add_exception_handler(HTTPException, _astray(hosts))
    app.add_exception_handler(Exception, _bug)
    return app


def _grpc(app: Endpoint, settings: Settings) -> AbstractAsyncContextManager[None]:
    """The door of gRPC, whose packages nobody else needs. Raises `InputError` where they are missing."""
    try:
        from serving.grpc_door import listening
    except ImportError as error:
        raise InputError(f"EVERFIT_GRPC_PORT: pip install 'everfit[grpc]' ({error})") from error
    return listening(app, settings)


def _shared(folder: Path) -> Rates:
    """The rates that workers share; where the disk fails, each worker's own."""
    try:
        return Rates(folder / "rates")
    except OSError as error:
        _LOG.warning("every worker counts the rates of keys by itself: %s", error)
        return Rates()


class Endpoint(FastAPI):
    """FastAPI with three additions: hot routes that are plain ASGI and skip its layers, which cost more than a
    prediction does; a guard before all routes; and an OpenAPI document that knows the served versions' columns."""

    def __init__(self, hosts: Hosts, guard: Guard, watch: Watch, *, most: int, after: Callable[[], None]) -> None:
        """`guard` stands before every route; `most` requests are in work at once; who is in `watch` sees them all;
        `after` is called at the end."""
        title = "Everfit" if hosts.short is None else f"Everfit: {hosts.short.task}"
        super().__init__(title=title, lifespan=_lifespan(hosts, watch, after), docs_url=None, redoc_url=None)
        add_docs(self)
        self._hosts = hosts
        self._guard, self._watch, self._most, self._inside = guard, watch, most, 0
        self._refused: Counter[str] = Counter(dict.fromkeys(_REASONS.values(), 0))
        self.express = None if watch else Express(guard, lambda: hosts.singles, lambda: self.inside > most)
        """The short way, for connections; who watches is told of requests that go the long way alone."""
        self.beside: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """What runs beside the answering, until the end."""
        self.doors: list[AbstractAsyncContextManager[None]] = []
        """By which others than HTTP's come in, open as long as it runs."""
        self.draining = False
        """Whether it is about to end: then it is not ready, but answers still."""
        for path in ("/predict", "/feedback", "/invocations"):
            for prefix in ("", "/models/{task}"):
                self.router.routes.append(Route(prefix + path, self._unrouted, methods=["POST"]))

    @property
    def inside(self) -> int:
        """How many requests are in work."""
        return self._inside + (0 if self.express is None else self.express.inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if self._watch and "notes" not in scope:
            await self._watch.over(self, scope, receive, send, self._guard.name_of(scope))
            return
        SCOPE.set(scope)
        if (refusal := self._refusal(scope) or self._crowd(scope)) is not None:
            self._refused[_REASONS[refusal.status]] += 1
            await send_problem(receive, send, in_words_of(scope["path"], refusal))
        else:
            self._inside += 1
            try:
                hot = self._hosts.routes.get(scope["path"]) if scope["method"] == "POST" else None
                await (self._quiet if hot is None else hot)(scope, receive, send)
            finally:
                self._inside -= 1

    def _refusal(self, scope: Scope) -> Problem | None:
        """The answer to a request that may not pass."""
        verdict: Verdict | None = scope.pop(VERDICT, None)
        found = self._guard.refusal(scope) if verdict is None else verdict.refusal
        return None if found is None else problem(found.status, found.detail, retry=found.retry)

    def is_shut(self, scope: Scope) -> bool:
        """Whether a request would be refused whatever its path is: its key is none, or too many are inside."""
        return not self._guard.knows(scope) or self._crowd(scope) is not None

    def may_read(self, scope: Scope, task: str) -> bool:
        """Whether what is told of a task is for who sent a request."""
        return self._guard.may_read(scope, task)

    def samples(self) -> Iterator[Sample]:
        """The metrics that are not of one task."""
        yield Sample("everfit_server_requests_in_progress", self.inside)
        yield Sample("everfit_server_requests_limit", self._most)
        yield Sample("everfit_build_info", 1, (version_of("everfit"),))
        yield Sample("everfit_access_log_dropped_total", self._watch.dropped)
        for reason, number in self._refused.items():
            yield Sample("everfit_refused_requests_total", number, (reason,))

    def _crowd(self, scope: Scope) -> Problem | None:
        """The answer to a request that would be one too many: at once, so that clients wait and not the server."""
        if self.inside < self._most or scope["path"] in OPEN:
            return None
        return problem(503, f"{self.inside} requests are in work (EVERFIT_MAX_CONCURRENT): try again")

    async def _quiet(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A route of FastAPI's. What it tells is for now and for who asked: nobody is to keep or to frame it."""

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start" and not scope["path"].startswith(STATIC):
                message["headers"] = [*message["headers"], *_QUIET]
            await send(message)

        scope.pop(AT_ONCE, None)  # it would pass by `careful`
        if scope["method"] == "HEAD":  # as a GET, whose body the server leaves out: probes ask so
            scope = {**scope, "method": "GET"}
        await super().__call__(scope, receive, careful)

    def openapi(self) -> dict[str, Any]:
        """The document of this moment."""
        self.openapi_schema = None
        document = super().openapi()
        slots = {host.task: host.slot.current for host in self._hosts}
        served = {task: None if current is None else current.manifest for task, current in slots.items()}
        secured = self._guard.closed
        short = None if self._hosts.short is None else self._hosts.short.task
        document["paths"] = describe(document["paths"], served, short=short, secured=secured)
        if secured:
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document

    async def _unrouted(self, request: Request) -> Response:
        """A hot path that is not one now: its task is not served, or it is a short form that is nobody's."""
        self._hosts.named(request.path_params.get("task", ""))
        raise HTTPException(404)  # it began to be served between two instructions of ours


def _lifespan(hosts: Hosts, watch: Watch, after: Callable[[], None]) -> Any:
    @asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[None]:
        await hosts.open()
        beside = [asyncio.create_task(one()) for one in cast(Endpoint, app).beside]
        async with AsyncExitStack() as doors:
            for door in cast(Endpoint, app).doors:
                await doors.enter_async_context(door)
            yield
        for one in beside:
            one.cancel()
        await hosts.close()
        await asyncio.to_thread(watch.close)
        after()

    return run


def _add_health(app: Endpoint, hosts: Hosts) -> None:
    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/health/ready", summary="Can it predict? 503 while a task has no model", description=_READY)
    async def ready(request: Request) -> Response:
        good = all(host.slot.current is not None for host in hosts) and not app.draining
        found = {host.task: host.readiness() for host in hosts if app.may_read(request.scope, host.task)}
        content = found.get(next(iter(hosts)).task, {}) if len(hosts) == 1 else {"tasks": found} if found else {}
        return _json({**content, "ready": good}, 200 if good else 503)


_READY = """Asks for no key, as probes have none. Where the others do, who sends none that may read is told `ready`
alone: names of tasks, versions and what ails them are in the answer to a key."""

_STATE = """`shadow` says how a challenger fares that predicts beside the champion: the rows it answered, failed at and
`agreed` on, which are those of the champion's class, or of a regression those where its number is inside of the
champion's interval."""


def _add_state(app: FastAPI, hosts: Hosts) -> None:
    @app.get("/models", summary="The tasks that are served")
    async def models() -> Response:
        return _json({"models": [{"task": host.task, **host.readiness()} for host in hosts]})

    @app.get("/models/{task}", summary="A task's served version, and how serving it fares", description=_STATE)
    async def model_of(task: str) -> Response:
        return _json(hosts.named(task).state())

    @app.get("/model", summary="The same of the task with the short forms")
    async def model() -> Response:
        return _json((hosts.short or hosts.named("")).state())


def _add_metrics(app: Endpoint, hosts: Hosts, together: Path | None) -> None:
    """`together` is the folder in which the workers of one port tell one another of their metrics."""

    def seen() -> Iterator[Seen]:
        for host in hosts:
            yield Seen(host.task, list(host.samples()), host.histograms())
        yield Seen("", app.samples())

    text = Exposition(seen).text
    if together is not None:
        siblings = Siblings(together, text)
        app.beside.append(siblings.follow)
        text = siblings.text

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(text(), media_type=CONTENT_TYPE)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, EverfitError)
    return _response(request, problem_of(error))


def _astray(hosts: Hosts) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _response(request, astray(request, error, hosts))

    return answer


async def _bug(request: Request, _error: Exception) -> Response:
    return _response(request, problem(500, FAULT))


def _response(request: Request, answer: Problem) -> Response:
    answer = in_words_of(request.url.path, answer)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)
