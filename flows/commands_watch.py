"""Commands that look at a task: monitoring by hand, its state, its alerts."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click

from flows.door import DEGRADED, MOMENT, UNASKED, connect
from flows.waiting import waiting
from registry.errors import InputError, OutsideError
from registry.plurals import counted

if TYPE_CHECKING:
    from flows.workplace import Workplace
    from registry.settings import Settings
    from registry.task import TaskSpec


@click.command()
@click.argument("task")
@click.option("--as-of", type=MOMENT, help=f"Judge as of this moment (UTC); {UNASKED}.")
def monitor(task: str, as_of: datetime | None) -> None:
    """Measure and judge TASK's windows that are over.

    The exit code is 10 when performance is degraded. Nothing is repaired: `everfit improve` or the deployments of
    `everfit up` do that.

    \b
    Example:
      everfit monitor flights || echo "needs a look"
    """
    with waiting("loading the libraries"):
        settings = connect()
        from flows.stages import perform
        from flows.watch import watch
        from flows.workplace import find_task

        spec = find_task(settings, task)
        name = spec.name
    with waiting("measuring what is new"):
        found = perform(watch, name, as_of=as_of, repair=False)
    judged = f"{found['severity']}, remedy: {found['remedy']}" if found["judged"] else "nothing is judged yet"
    click.echo(f"{name}: {judged}, {counted(found['windows'], 'window')} measured")
    for reason in found["reasons"]:
        click.echo(f"  {reason}")
    if not found["judged"] and not found["windows"]:
        click.echo(f"  {when_judged(spec)}")
    if found["severity"] == "degraded":
        sys.exit(DEGRADED)


def when_judged(task: TaskSpec) -> str:
    """When a window of the task will be judged, for those who wait for the first."""
    from registry.durations import format_duration
    from registry.task import TimeWindows

    windows, after = task.monitor.windows, "a row from after it has come"
    if isinstance(windows, TimeWindows):
        long, over = f"lasts {format_duration(windows.every)}", after if task.time is not None else "its time is past"
    else:
        long, over = f"is of {windows.rows:,} rows", "they have come"
    labels = counted(task.monitor.min_labels, "label")
    return (
        f"a window {long}: it is measured once {over}, and judged once {labels} of it are there (`monitor` in the task)"
    )


@click.command()
@click.argument("task", required=False)
def status(task: str | None) -> None:
    """Show versions, decisions and services.

    Of TASK, or of every task.

    \b
    Example:
      everfit status
    """
    settings = connect()
    from flows.endpoints import endpoint_lines
    from flows.overview import service_lines, task_lines
    from flows.services import running
    from flows.workplace import Workplace, find_task, task_names

    names = [find_task(settings, task).name] if task else list(task_names(settings))
    if not names:
        click.echo(_no_task(settings))
    for name in names:
        with waiting(f"asking registry and log of {name}"):
            lines = task_lines(Workplace.open(settings, find_task(settings, name)))
        click.echo("\n".join(lines))
    services = running(settings)
    click.echo("\n".join(service_lines(services, endpoint_lines(settings))))


@click.command()
@click.argument("task", required=False)
@click.option("--test", "trial", is_flag=True, help="Send a test message to every channel and say whether it arrived.")
def alerts(task: str | None, trial: bool) -> None:
    """Show alerts, or test the channels.

    Those of TASK, or of every task.
    The alert that is open, the last ones, the last notices, and which channel has heard of each. The channels are in
    EVERFIT_ALERT_URLS.
    With --test, which needs a TASK, the exit code is 4 when a channel did not take the message.

    \b
    Example:
      everfit alerts
      everfit alerts flights --test
    """
    if trial and task is None:
        raise click.UsageError("Missing argument 'TASK', whose name the test message bears.")
    settings = connect()
    from flows.alerting import written
    from flows.overview import alert_lines, notice_lines
    from flows.workplace import Workplace, find_task, task_names
    from registry.deliveries import NOTICE

    names = task_names(settings) if task is None else (task,)
    if not names:
        click.echo(_no_task(settings))
    for name in names:
        place = Workplace.open(settings, find_task(settings, name))
        if trial:
            _try_channels(place)
        else:
            lines = alert_lines(place.task.name, *written(place.ledger))
            click.echo("\n".join([*lines, *notice_lines(*written(place.ledger, (NOTICE,)))]))


def _no_task(settings: Settings) -> str:
    return f"no task yet in {settings.folder}; begin with: everfit init DATA --target COL"


def _try_channels(place: Workplace) -> None:
    from flows.alerting import trial

    found = trial(place, place.now())
    if not found:
        raise InputError("there is no channel: set EVERFIT_ALERT_URLS, such as https://hooks.example.com/everfit")
    for name, failed in found:
        click.echo(f"{name}: {failed or 'arrived'}")
    if failures := [name for name, failed in found if failed]:
        raise OutsideError(f"{len(failures)} of {len(found)} channels did not take the message")
