"""Commands on the reports that people read."""

from __future__ import annotations

import os
import secrets
import sys
from datetime import datetime
from typing import Any

import click

from flows.door import MOMENT, connect, read_settings
from flows.waiting import waiting
from registry.errors import StateError
from registry.quiet import QUIET


class WindowName(click.ParamType[datetime | int]):
    """What windows are called by: a moment, as all tables have it, or their number in the ledger."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | int:
        """A number is taken for one, all else for a moment."""
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return MOMENT.convert(value, param, ctx)


@click.command()
@click.argument("task")
@click.option("--window", type=WindowName(), help="When it begins, or a moment in it; default: the newest with rows.")
def report(task: str, window: datetime | int | None) -> None:
    """Make the report of a window, and print where it is.

    It shows TASK's rows in the window beside the reference of the version that answered them. `everfit reports` shows
    it among the others.

    \b
    Example:
      everfit report flights --window 2013-08-19
    """
    with waiting("loading the libraries"):
        settings = connect()
        from flows.publishing import fetch
        from flows.turns import turn
        from flows.workplace import Workplace, find_task
        from monitor.reporting import measured, report_on_demand

        place = Workplace.open(settings, find_task(settings, task))
        record = measured(place.ledger, window)
    with waiting("making the report, with Evidently"):
        bundle = fetch(place, record.version)
        with turn(place):
            path = report_on_demand(record, bundle, place.log, place.ledger, place.shelf, as_of=place.now())
    click.echo(path)


@click.command()
@click.argument("task", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=8010, show_default=True, help="Port on loopback.")
def reports(task: str | None, port: int) -> None:
    """Show the reports in Evidently's own pages until interrupted.

    They are of all tasks and read-only; of TASK, where one is named, the address is told.

    \b
    Example:
      everfit reports flights --port 8011
    """
    from flows.processes import Service, require_free
    from flows.workplace import find_task
    from monitor.shelf import pages_command, project_of

    settings = read_settings()
    workspace, name = settings.workspace, None if task is None else find_task(settings, task).name
    project = "*" if name is None else str(project_of(name))
    if not any(workspace.glob(f"{project}/snapshots/*.json")):
        raise StateError(f"no report{f' of {name}' * bool(name)} is in {workspace}; `everfit report TASK` makes one")
    command, url = pages_command(workspace, port), f"http://127.0.0.1:{port}"
    require_free(Service("reports", "Evidently's pages", command, url, url, port, "--port"))
    click.echo(f"reports: {url}{f'/projects/{project}' * bool(name)} (Ctrl-C ends it)")
    sys.stdout.flush()
    # Without a secret every page that a browser on this machine has open could change what is stored.
    environment = {**os.environ, **QUIET, "EVIDENTLY_SECRET": secrets.token_urlsafe()}
    os.execve(sys.executable, [sys.executable, *command], environment)
