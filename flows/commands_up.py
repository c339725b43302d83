"""Commands on the services of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from flows.door import read_settings
from registry.errors import NoModelError, RegistryError

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
    from flows.silence import unwatched
    from flows.workplace import find_task, task_names

    settings = read_settings()
    if why := unwatched(settings):
        click.echo(f"warning: {why}", err=True)
    if tasks:
        names = [find_task(settings, task).name for task in tasks]
        _require_champions(settings, names)
    else:
        names = _with_champion(settings, task_names(settings))
    for one in start(settings, *dict.fromkeys(names), say=click.echo):
        click.echo(f"{one.name:<12} {one.url or 'running'}  (pid {one.pid})")


def _require_champions(settings: Settings, tasks: Sequence[str]) -> None:
    """Raise `NoModelError` for a task that cannot be served. Where the registry is away, what was served last is."""
    with suppress(RegistryError):
        for task in _without_champion(settings, tasks):
            raise NoModelError(f"{task} has no champion yet; begin with: everfit search {task}")


def _with_champion(settings: Settings, tasks: Sequence[str]) -> list[str]:
    """Those that can be served; who cannot is told of."""
    without = _without_champion(settings, tasks) if tasks else []
    for task in without:
        click.echo(f"{task}: has no champion yet, and is not served; begin with: everfit search {task}")
    return [task for task in tasks if task not in without]


def _without_champion(settings: Settings, tasks: Sequence[str]) -> list[str]:
    from flows.workplace import open_versions
    from registry.moves import CHAMPION

    versions = open_versions(settings)
    return [task for task in tasks if versions.get(task, CHAMPION) is None]


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
