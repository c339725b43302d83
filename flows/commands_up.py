"""Commands on the services of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from flows.door import read_settings

if TYPE_CHECKING:
    from registry.settings import Settings


@click.command()
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
def up(tasks: tuple[str, ...]) -> None:
    """Start the services of this machine.

    Prefect, MLflow, the deployments, the status page, and one endpoint of all TASKs. What runs already is left as it
    is; an endpoint that runs serves new TASKs too. Without TASK, it is of every registered task that has a champion.

    \b
    Example:
      everfit up flights
    """
    from flows.services import up as start
    from flows.workplace import find_task, task_names

    settings = read_settings()
    names = [find_task(settings, task).name for task in tasks] or _with_champion(settings, task_names(settings))
    for one in start(settings, *dict.fromkeys(names), say=click.echo):
        click.echo(f"{one.name:<12} {one.url or 'running'}  (pid {one.pid})")


def _with_champion(settings: Settings, tasks: Sequence[str]) -> list[str]:
    """Those that can be served; who cannot is told of."""
    if not tasks:
        return []
    from flows.workplace import open_versions
    from registry.moves import CHAMPION

    versions = open_versions(settings)
    champions = {task: versions.get(task, CHAMPION) for task in tasks}
    for task in (task for task, version in champions.items() if version is None):
        click.echo(f"{task}: has no champion yet, and is not served; begin with: everfit search {task}")
    return [task for task, version in champions.items() if version is not None]


@click.command()
def down() -> None:
    """Stop the services that `everfit up` started.

    \b
    Example:
      everfit down
    """
    from flows.services import down as stop

    if not stop(read_settings(), say=click.echo):
        click.echo("nothing was running")
