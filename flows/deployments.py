"""The deployments, served by one process (`python -m flows.deployments`).

`watch` runs on a schedule, one for each registered task, also those that are registered later; `improve` on its event,
`search` and `lifecycle` by hand. `deployment/prefect.yaml` has the
same for a work pool. Flows are named by module path (`flows.watch:watch`): a file path would put `flows/` first on the
module path, where its files could hide packages.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Interval
from prefect.types.entrypoint import EntrypointType

from flows.improve import improve, limit_name
from flows.lifecycle import lifecycle
from flows.processes import Desk
from flows.search import search
from flows.watch import EVENT, watch
from flows.workplace import task_names
from registry.settings import Settings

RUNS_AT_ONCE = 4
FOLLOW_SECONDS = 2.0
"""How often is looked for tasks that are registered since."""

_LOG = logging.getLogger("everfit")


def of_any_task() -> list[RunnerDeployment]:
    """The deployments that serve every task."""
    return [
        _named(improve, "improve", triggers=[on_degradation()]),
        _named(search, "search"),
        _named(lifecycle, "lifecycle"),
    ]


def watch_of(task: str, settings: Settings) -> RunnerDeployment:
    """The scheduled watch of a task."""
    every = timedelta(minutes=settings.watch_minutes)
    # A pass that is still at work makes the next one needless: it must not queue up before an improvement.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    return _named(watch, task, {"task": task}, schedules=[Interval(every)], concurrency_limit=alone)


def _named(flow: Flow[..., Any], name: str, parameters: dict[str, Any] | None = None, **more: Any) -> RunnerDeployment:
    return RunnerDeployment.from_flow(
        flow, name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH, **more
    )


def on_degradation() -> DeploymentEventTrigger:
    """What starts `improve`: the event of any task, which says which task, as of when, why, and how."""
    return DeploymentEventTrigger(
        name="everfit: improve what is degraded",
        match={"prefect.resource.id": "everfit.task.*"},
        expect={EVENT},
        parameters={
            "task": "{{ event.resource.task }}",
            "as_of": "{{ event.payload.as_of }}",
            "reason": "{{ event.payload.reason }}",
            "remedies": "{{ event.payload.remedies }}",
        },
    )


class Watches:
    """The tasks' watches, each added to a runner once."""

    def __init__(self, runner: Runner, settings: Settings) -> None:
        self._runner, self._settings, self._known = runner, settings, set[str]()

    async def add(self) -> None:
        """Add those of tasks that have none yet. Raises what Prefect's client raises."""
        for task in task_names(self._settings):
            if task not in self._known:
                # One improvement at a time a task: without the limit a strict holder is refused, so it comes first.
                async with get_client() as client:
                    await client.upsert_global_concurrency_limit_by_name(limit_name(task), 1)
                await self._runner.aadd_deployment(watch_of(task, self._settings))
                self._known.add(task)

    async def follow(self) -> None:
        """Add what comes, until cancelled. What fails is tried again."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.add()
            except (httpx.HTTPError, PrefectException) as error:
                _LOG.warning("a new task is not watched yet: %s", error)


async def serve(settings: Settings) -> None:
    """Register the deployments, say so, and run what is due until a signal ends it."""
    runner = Runner(name="everfit", pause_on_shutdown=False, limit=RUNS_AT_ONCE)
    watches = Watches(runner, settings)
    await watches.add()
    for deployment in of_any_task():
        await runner.aadd_deployment(deployment)
    ready = Desk(settings.folder).ready("deployments")
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.write_text(str(os.getpid()), encoding="utf-8")
    following = asyncio.create_task(watches.follow())
    try:
        await runner.start()
    finally:
        following.cancel()


def main() -> None:
    """The process's door."""
    asyncio.run(serve(Settings()))


if __name__ == "__main__":
    main()
