"""How a flow's functions run: as Prefect tasks inside a flow run, as plain functions elsewhere.

A stage is a plain function. Inside a flow run it becomes a task: seen in the user interface and, where the outside can
fail, retried on `OutsideError` alone. Called from anywhere else (`flow.fn()`, a test) it is the function itself.
Artifacts and events exist only inside a flow run; what matters is in the ledger. Prefect, which takes more than a
second of CPU-time to import, is imported where a flow is, and by nothing that runs outside of one.
"""

from __future__ import annotations

import base64
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flows.services import prefect_api
from registry.errors import OutsideError

if TYPE_CHECKING:
    from prefect import Flow, State, Task
    from prefect.client.schemas.objects import TaskRun

P = ParamSpec("P")
R = TypeVar("R")

RETRY_DELAYS = (1.0, 5.0, 20.0)
"""Seconds before each new attempt at a stage that the outside made fail."""

_LOGGER = logging.getLogger("everfit")
_MAX_PICTURE_BYTES = 300_000


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is a Prefect task inside a flow run, retried when the outside fails."""

    @cache
    def as_task() -> Task[P, R]:
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        return task(
            name=function.__name__.replace("_", " ").strip(),
            retries=len(RETRY_DELAYS),
            retry_delay_seconds=list(RETRY_DELAYS),
            retry_condition_fn=outside_failed,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return as_task()(*args, **kwargs) if in_run() else function(*args, **kwargs)

    return call


def outside_failed(_: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may be tried again: only what failed outside this process may."""
    return isinstance(state.result(raise_on_failure=False), OutsideError)


def in_run() -> bool:
    """Whether this code runs inside a flow run."""
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


def perform(flow: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a flow: with Prefect where a server is connected (`services.connected`), as a plain function elsewhere.

    The heartbeat is off: this process is the caller's own, who sees it end, and the heartbeat's thread would round each
    run up to a second.
    """
    if prefect_api() is None and not in_run():
        return flow.fn(*args, **kwargs)
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return flow(*args, **kwargs)


def say(text: str) -> None:
    """A log line: of the flow run where there is one, else of the logger `everfit`."""
    if not in_run():
        _LOGGER.info(text)
        return
    from prefect.logging import get_run_logger

    get_run_logger().info(text)


def show_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """A table artifact of the flow run."""
    if in_run() and rows:
        from prefect.artifacts import create_table_artifact

        create_table_artifact([dict(row) for row in rows], key=key, description=description)


def show_markdown(key: str, text: str, description: str = "") -> None:
    """A markdown artifact of the flow run."""
    if in_run():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(text, key=key, description=description or None)


def show_link(key: str, url: str, text: str) -> None:
    """A link artifact of the flow run."""
    if in_run() and url:
        from prefect.artifacts import create_link_artifact

        create_link_artifact(url, link_text=text, key=key)


def show_picture(key: str, path: Path, description: str) -> None:
    """A picture artifact of the flow run, the file's bytes inside it; a file too large for that is passed over."""
    if in_run() and path.is_file() and path.stat().st_size <= _MAX_PICTURE_BYTES:
        from prefect.artifacts import create_image_artifact

        data = base64.b64encode(path.read_bytes()).decode()
        create_image_artifact(f"data:image/png;base64,{data}", key=key, description=description)


def deployed() -> bool:
    """Whether this code runs inside a flow run of a deployment: nobody sits and waits for it."""
    if not in_run():
        return False
    from prefect.runtime import deployment

    return deployment.id is not None


def run_id() -> str | None:
    """The id of the flow run around this code; None outside of one."""
    if not in_run():
        return None
    from prefect.runtime import flow_run

    return str(flow_run.id) if flow_run.id else None
