"""Commands on the services of this machine."""

from __future__ import annotations

import click

from flows.door import read_settings


@click.command()
@click.argument("task", required=False)
def up(task: str | None) -> None:
    """Start the services of this machine.

    Prefect, MLflow, the deployments, TASK's endpoint and its status page. What runs already is left as it is. Without
    TASK, the only registered task is taken, if there is just one.

    \b
    Example:
      everfit up flights
    """
    from flows.services import up as start
    from flows.workplace import find_task, task_names

    settings = read_settings()
    names = task_names(settings)
    name = find_task(settings, task).name if task else names[0] if len(names) == 1 else None
    for one in start(settings, name, say=click.echo):
        click.echo(f"{one.name:<12} {one.url or 'running'}  (pid {one.pid})")


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
