"""The deployments, served by one process (`python -m flows.deployments TASK ...`).

`watch` runs on a schedule, `improve` on its event, `search` and `lifecycle` by hand. `deployment/prefect.yaml` has the
same for a work pool. Flows are named by module path (`flows.watch:watch`): a file path would put `flows/` first on the
module path, where its files could hide packages.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.runner import Runner
from prefect.schedules import Interval
from prefect.types.entrypoint import EntrypointType

from flows.improve import improve, limit_name
from flows.lifecycle import lifecycle
from flows.processes import Desk
from flows.search import search
from flows.watch import EVENT, watch
from registry.settings import Settings

RUNS_AT_ONCE = 4


def deployments(settings: Settings, tasks: Sequence[str]) -> list[RunnerDeployment]:
    """All deployments: one `watch` a task, the others for any task."""
    every = timedelta(minutes=settings.watch_minutes)
    # A pass that is still at work makes the next one needless: it must not queue up before an improvement.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    watches = [
        _named(watch, task, {"task": task}, schedules=[Interval(every)], concurrency_limit=alone) for task in tasks
    ]
    return [
        *watches,
        _named(improve, "improve", triggers=[on_degradation()]),
        _named(search, "search"),
        _named(lifecycle, "lifecycle"),
    ]


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


def make_limits(tasks: Sequence[str]) -> None:
    """One improvement at a time a task: without the limit a strict holder is refused, so it comes first."""
    with get_client(sync_client=True) as client:
        for task in tasks:
            client.upsert_global_concurrency_limit_by_name(limit_name(task), 1)


async def serve(settings: Settings, tasks: Sequence[str]) -> None:
    """Register the deployments, say so, and run what is due until a signal ends it."""
    runner = Runner(name="everfit", pause_on_shutdown=False, limit=RUNS_AT_ONCE)
    for deployment in deployments(settings, tasks):
        await runner.aadd_deployment(deployment)
    ready = Desk(settings.folder).ready("deployments")
    ready.parent.mkdir(parents=True, exist_ok=True)
    ready.write_text(str(os.getpid()), encoding="utf-8")
    await runner.start()


def main() -> None:
    """The process's door."""
    tasks = sys.argv[1:]
    make_limits(tasks)
    asyncio.run(serve(Settings(), tasks))


if __name__ == "__main__":
    main()
