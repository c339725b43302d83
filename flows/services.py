"""Everfit's services on one machine: Prefect's server, MLflow's server, the deployments, the endpoint, the status page.

`up` starts what does not run and waits until it answers; a second `up` finds what runs. `down` stops all of it. Every
service listens on loopback only (the endpoint where `EVERFIT_HOST` says), keeps its log in `HOME/logs` and its record
in `HOME/run`. A setting that names another server (`EVERFIT_TRACKING_URL`, `PREFECT_API_URL`) takes the place of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import SecretStr

from flows.processes import Desk, Service, is_ready, require_free
from flows.traffic import Endpoint
from registry.errors import InputError, OutsideError, StateError, unknown
from registry.locks import exclusive
from registry.quiet import QUIET
from registry.settings import Settings
from serving.presence import secret_for, served_by, workers_folder
from serving.tls import check_tls, trusted

NAMES = ("prefect", "mlflow", "status", "deployments", "endpoint")
"""The services in the order in which they are started."""

_TASKS = 3
"""Where the tasks begin in the command of the endpoint, `python -m serving TASK ...`."""
_FIRST = ("prefect", "mlflow", "status")
_GRACE_SECONDS = 10.0
_DAY = 86_400


@dataclass(frozen=True)
class Running:
    """A service that answers: where, as which process, and whether this call started it."""

    name: str
    what: str
    url: str
    pid: int
    started: bool


def up(
    settings: Settings,
    *tasks: str,
    only: Collection[str] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Running, ...]:
    """Start the services that do not run, and wait until all answer.

    The endpoint is of `tasks`; without them there is none. One that runs is asked to serve those of them too that
    it was not begun with, while it answers the others. One that crashed comes back with all that it had served; begun
    with one task, it is begun with that one again, so that the short paths stay that task's. `only` names the services
    wanted, all by default. Raises `BusyError` when another `up` or `down` is at work, `StateError` when a port is taken
    by somebody else, `InputError` for a certificate that cannot serve and for what the endpoint refuses,
    `OutsideError` when a service does not come up or the endpoint cannot serve a task.
    """
    if tasks:
        check_tls(settings)
    desk = Desk(settings.folder)
    with exclusive(_lock(settings), "`everfit up` or `everfit down`"):
        if lost := _lost(settings, desk, tasks):
            also = ", ".join(lost)
            say(f"endpoint: it was killed while it served {also} too, and will again (`everfit down` first: without)")
        first_tasks = _begun_with(desk, (*tasks, *lost))
        wanted = [one for one in services(settings, *first_tasks) if only is None or one.name in _checked(only)]
        there = {one.name for one in wanted} | {one.name for one in running(settings)}
        environment = child_environment(settings, there)
        first = [one for one in wanted if one.name in _FIRST]
        rest = [one for one in wanted if one.name not in _FIRST]
        found = (*_start_all(desk, first, environment, say), *_start_all(desk, rest, environment, say))
        endpoint = next((one for one in found if one.name == "endpoint"), None)
        if endpoint is None:
            return found
        for task in tasks:
            _serve_too(settings, task, desk, say)
        for task in lost:
            try:
                _serve_too(settings, task, desk, say)
            except (InputError, OutsideError) as error:  # nobody asked for it now
                say(f"endpoint: {error}")
        if endpoint.started and len(first_tasks) > 1:
            say("endpoint: begun with several tasks: each answers at /models/TASK/..., and /predict is nobody's")
        return found


def down(settings: Settings, *, say: Callable[[str], None] = print) -> tuple[str, ...]:
    """Stop every service of this home, whoever started it; the names of those that ran. Raises `BusyError`."""
    desk = Desk(settings.folder)
    with exclusive(_lock(settings), "`everfit up` or `everfit down`"):
        # Prefect's server goes last: the deployments still talk to it while they end.
        stopped = desk.stop("deployments", "endpoint", "status", grace=_GRACE_SECONDS)
        stopped += desk.stop("mlflow", "prefect", grace=_GRACE_SECONDS)
    for name in stopped:
        say(f"{name}: stopped")
    return stopped


def running(settings: Settings) -> tuple[Running, ...]:
    """The services of this home that run and answer now."""
    desk = Desk(settings.folder)
    found = ((one, desk.find(one.name)) for one in services(settings, "-"))
    return tuple(_running(one, process.pid, False) for one, process in found if process and is_ready(one, process))


def connected(settings: Settings) -> Settings:
    """The settings with the running services' URLs in them, for a process that works beside `up`.

    Call it before Prefect is imported: flows read the settings at their own door, so they are put into this process's
    environment, with `PREFECT_API_URL` where a server runs, and third parties' reporting off.
    """
    names = {one.name for one in running(settings)}
    seen = settings.model_copy(update={"home": settings.folder, "tracking_url": _tracking_url(settings, names)})
    os.environ.update(QUIET | everfit_environment(seen))
    if "prefect" in names:
        os.environ.update(prefect_environment(settings))
    return seen


def prefect_api() -> str | None:
    """The URL of the Prefect API that this process talks to, or None: then flows run without Prefect."""
    return os.environ.get("PREFECT_API_URL")


def services(settings: Settings, *tasks: str) -> tuple[Service, ...]:
    """The services that these settings ask for, in the order of `NAMES`; an endpoint where there are tasks for it."""
    return tuple(_services(settings, tasks, Desk(settings.folder)))


def _services(settings: Settings, tasks: Sequence[str], desk: Desk) -> Iterator[Service]:
    if not _foreign_prefect(settings):
        yield _prefect(settings)
    if settings.tracking_url in ("", _mlflow_url(settings)):
        yield _mlflow(settings.model_copy(update={"tracking_url": ""}))
    yield _local("status", "the status page", settings.status_port, "status_port", ("flows.status_page",))
    deployments = _python("flows.deployments")
    yield Service("deployments", "what is scheduled", deployments, health=desk.ready("deployments"))
    if tasks:
        yield endpoint_of(settings, tasks)


def _prefect(settings: Settings) -> Service:
    port = str(settings.prefect_port)
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    return _local("prefect", "Prefect's server", settings.prefect_port, "prefect_port", command, health="/api/health")


def _mlflow(settings: Settings) -> Service:
    """MLflow's server writes artifacts where the embedded registry does: either reads what the other wrote."""
    listens = ("--host", "127.0.0.1", "--port", str(settings.mlflow_port), "--workers", "1")
    stores = ("--backend-store-uri", settings.tracking, "--default-artifact-root", settings.artifacts.as_uri())
    command = ("mlflow", "server", *listens, *stores, "--no-serve-artifacts")
    return _local("mlflow", "MLflow's server", settings.mlflow_port, "mlflow_port", command)


def endpoint_of(settings: Settings, tasks: Sequence[str]) -> Service:
    """The endpoint of these tasks."""
    return Service(
        name="endpoint",
        what=f"the endpoint of {', '.join(tasks)}",
        command=_python("serving", *tasks),
        health=f"{settings.endpoint_url}/health/ready",
        url=settings.endpoint_url,
        port=settings.port,
        setting="EVERFIT_PORT",
        verify=trusted(settings),
        host=settings.host,
        grpc_port=settings.grpc_port,
    )


def _local(
    name: str, what: str, port: int, setting: str, command: tuple[str, ...], *, health: str = "/health"
) -> Service:
    url = f"http://127.0.0.1:{port}"
    return Service(name, what, _python(*command), f"{url}{health}", url, port, f"EVERFIT_{setting.upper()}")


def _python(*module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *module)


def _start_all(
    desk: Desk, wanted: list[Service], environment: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Running, ...]:
    """Start together, then wait for each: they come up side by side."""
    begun = [(service, *_found_or_started(desk, service, environment, say)) for service in wanted]
    ready = []
    for service, process, started in begun:
        desk.wait(service, process)
        ready.append(_running(service, process.pid, started))
        say(f"{service.name}: {f'{service.what} is up' if started else 'was running'} {service.url}".rstrip())
    return tuple(ready)


def _found_or_started(
    desk: Desk, service: Service, environment: Mapping[str, str], say: Callable[[str], None]
) -> tuple[psutil.Process, bool]:
    process = desk.find(service.name)
    if process is not None:
        _require_same(service, process.cmdline())
        return process, False
    require_free(service)
    say(f"{service.name}: starting {service.what}")
    return desk.start(service, environment), True


def _lost(settings: Settings, desk: Desk, tasks: Sequence[str]) -> tuple[str, ...]:
    """What an endpoint that was killed had served beside these tasks; nothing where it runs, or was stopped."""
    before = desk.command("endpoint")[_TASKS:]
    if not tasks or not before or desk.find("endpoint") is not None:
        return ()
    served = served_by(workers_folder(settings), desk.pid("endpoint")) or before
    return tuple(one for one in served if one not in tasks)


def _begun_with(desk: Desk, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks that an endpoint is to be begun with: of those wanted the one that it was begun with alone, if so."""
    before = desk.command("endpoint")[_TASKS:]
    return before if len(before) == 1 and before[0] in tasks else tasks


def _serve_too(settings: Settings, task: str, desk: Desk, say: Callable[[str], None]) -> None:
    """Have the endpoint that runs serve a task that it was not begun with; one that it has loaded since stays."""
    process = desk.find("endpoint")
    if process is not None and task in process.cmdline()[_TASKS:]:
        return
    key = secret_for(settings)
    with closing(Endpoint(settings.endpoint_url, key=key, verify=trusted(settings), retries=0)) as endpoint:
        try:
            endpoint.post(f"/v2/repository/models/{task}/load", {})
        except InputError as error:
            raise InputError(f"the endpoint that runs does not take on {task}: {error}") from error
    say(f"endpoint: serves {task} too")


def _require_same(service: Service, command: list[str]) -> None:
    words = slice(1, _TASKS) if service.name == "endpoint" else slice(1, None)
    if command[words] == list(service.command[words]):
        return
    raise StateError(
        f"{service.what}: runs with other settings (`{' '.join(command[1:])}`, wanted "
        f"`{' '.join(service.command[1:])}`); run `everfit down` first"
    )


def _running(service: Service, pid: int, started: bool) -> Running:
    return Running(service.name, service.what, service.url, pid, started)


def child_environment(settings: Settings, there: Collection[str]) -> dict[str, str]:
    """The environment of every service: the settings, the URLs of the services that are `there`, no telemetry. What the
    settings leave unset, as a demo's do, is not taken from this process's environment either."""
    seen = settings.model_copy(update={"home": settings.folder, "tracking_url": _tracking_url(settings, there)})
    unset = {f"EVERFIT_{name.upper()}" for name, value in settings if value is None}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    environment = {**inherited, **QUIET, **everfit_environment(seen), "PYTHONUNBUFFERED": "1"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # else four workers, seven consumers, 1.3 GB
    return environment | (prefect_environment(settings) if "prefect" in there else {})


def everfit_environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment variables that give them again."""
    return {f"EVERFIT_{name.upper()}": _text(value) for name, value in settings if value is not None}


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def prefect_environment(settings: Settings) -> dict[str, str]:
    """What Prefect's server, its clients and its runner must agree on."""
    home = settings.folder / "prefect"
    return {
        "PREFECT_HOME": str(home),
        # Prefect's own default, said aloud: ours deletes old runs, never those of a database that the user's is set to.
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
        "PREFECT_API_URL": _prefect_url(settings),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),  # its pages call this port
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # In memory, the default, a lease outlives a killed holder for ever once the server was restarted.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        # By itself it keeps flow runs for ever: passes every five minutes are 100,000 a year, each with its artifacts.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(settings.run_days * _DAY),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",  # automations hear an event as it comes
    }


def _foreign_prefect(settings: Settings) -> bool:
    return prefect_api() not in (None, "", _prefect_url(settings))


def _prefect_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.prefect_port}/api"


def _tracking_url(settings: Settings, there: Collection[str]) -> str:
    return _mlflow_url(settings) if "mlflow" in there and not settings.tracking_url else settings.tracking_url


def _mlflow_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.mlflow_port}"


def _checked(names: Collection[str]) -> Collection[str]:
    for name in names:
        if name not in NAMES:
            raise StateError(unknown("service", name, NAMES))
    return names


def _lock(settings: Settings) -> Path:
    return settings.folder / "locks" / "services.lock"
