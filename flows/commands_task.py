"""Commands on one task: from data to a task, from a task to a model, and what becomes of it."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.door import DEGRADED, connect, read_settings
from registry.errors import InputError, OutsideError, SourceError, StateError

if TYPE_CHECKING:
    from flows.workplace import Workplace
    from registry.versions import Promotion

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])


@click.command()
@click.argument("data")
@click.option("--target", required=True, help="Column to predict.")
@click.option("--time", "time_column", help="Column with the time of each row.")
@click.option("--name", help="Name of the task; default: from the file's name.")
@click.option("--query", help="SQL query; DATA is then a SQLAlchemy URL.")
@click.option("--output", type=click.Path(path_type=Path), help="YAML file to write; default: NAME.yaml.")
def init(
    data: str, target: str, time_column: str | None, name: str | None, query: str | None, output: Path | None
) -> None:
    """Look at DATA and write a task.

    DATA is a CSV or Parquet file, a folder of them, a glob, a folder of images with one sub-folder a class (its target
    is `label`), or (with --query) a SQLAlchemy URL. Nothing is trained: the YAML explains every key and is meant to be
    edited.

    \b
    Example:
      everfit init flights.csv --target late --time time_hour
      everfit init scans --target label
      everfit init postgresql://me@db/shop --query "select * from orders" --target returned
    """
    from registry.inference import infer_kinds
    from registry.proposal import propose, write
    from registry.sources import read
    from registry.task import FileSource, SqlSource
    from retrain.checks import examine, require
    from retrain.image_checks import load_images

    if query is None and "://" in data:
        raise SourceError("a database URL needs --query with the SQL that gives the rows")
    source = FileSource(path=data) if query is None else SqlSource(url=data, query=query)
    frame = read(source)
    task = propose(frame, source, target=target, time=time_column, name=name)
    frame, found = load_images(frame, task)
    require(found)
    findings = [*found, *examine(frame, task)]
    require(findings)
    path = output or Path(f"{task.name}.yaml")
    if query is None:
        task = task.model_copy(update={"source": FileSource(path=_seen_from(path, data))})
    write(task, path, kinds=infer_kinds(frame, task.columns, target=target, time=time_column))
    click.echo(f"{len(frame):,} rows, {task.problem} problem, metric {task.metric}")
    for finding in findings:
        click.echo(f"warning: {finding}", err=True)
    click.echo(f"wrote {path}; look at it, then: everfit search {path}")


def _seen_from(path: Path, data: str) -> str:
    """The data's path as the task's file must hold it: relative paths start at that file's folder."""
    if os.path.isabs(os.path.expanduser(data)):
        return data
    return Path(os.path.relpath(data, path.parent)).as_posix()


@click.command()
@click.argument("file")
def apply(file: str) -> None:
    """Let the edited task in FILE take the place of the registered one, without a search.

    Policy, gate, monitoring, budgets and the like hold from the next pass on. What a model was made for (target, time,
    problem, metric, coverage, columns) asks for a search.

    \b
    Example:
      everfit apply flights.yaml
    """
    from flows.workplace import find_task, load_task, register_task, take_over_log

    settings = read_settings()
    new = load_task(Path(file))
    old = find_task(settings, new.name)
    made_for = ("target", "time", "problem", "metric", "coverage", "columns")
    if changed := [name for name in made_for if getattr(new, name) != getattr(old, name)]:
        raise InputError(f"{file}: {', '.join(changed)} changed: a model must be found for that: everfit search {file}")
    take_over_log(settings, new)  # first: it refuses columns that cannot be hidden
    register_task(settings, new)
    differing = [name for name in type(new).model_fields if getattr(new, name) != getattr(old, name)]
    click.echo(f"{new.name}: {', '.join(differing) or 'nothing'} changed")


@click.command()
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
def serve(tasks: tuple[str, ...]) -> None:
    """Serve the champions of one TASK or of several over HTTP until interrupted.

    The endpoint follows each champion: a promotion is swapped in between two requests. Several tasks are answered under
    /models/TASK/. Where TASK is a file, its `log` takes the place of the registered one.

    \b
    Example:
      everfit serve flights
      curl -s localhost:8000/model
    """
    from flows.services import child_environment, running
    from flows.workplace import find_task, take_over_log

    settings = read_settings()
    specs = {task: find_task(settings, task) for task in tasks}
    for task, spec in specs.items():
        if task != spec.name:
            take_over_log(settings, spec)
    names = [spec.name for spec in specs.values()]
    environment = child_environment(settings, {one.name for one in running(settings)})
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    click.echo(f"serving {', '.join(names)}: {scheme}://{host}:{settings.port}/docs (Ctrl+C ends it)", err=True)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "serving", *names], environment)


@click.command()
@click.argument("task")
@click.option("--as-of", type=_MOMENT, help="Judge as of this moment (UTC); default: now.")
def monitor(task: str, as_of: datetime | None) -> None:
    """Measure and judge TASK's windows that are over.

    The exit code is 10 when performance is degraded. Nothing is repaired: `everfit improve` or the deployments of
    `everfit up` do that.

    \b
    Example:
      everfit monitor flights || echo "needs a look"
    """
    settings = connect()
    from flows.stages import perform
    from flows.watch import watch
    from flows.workplace import find_task

    found = perform(watch, find_task(settings, task).name, as_of=as_of, repair=False)
    click.echo(f"{task}: {found['severity']}, remedy: {found['remedy']}, {found['windows']} windows measured")
    for reason in found["reasons"]:
        click.echo(f"  {reason}")
    if found["severity"] == "degraded":
        sys.exit(DEGRADED)


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
    from flows.overview import service_lines, task_lines
    from flows.services import running
    from flows.workplace import Workplace, find_task, task_names

    names = [find_task(settings, task).name] if task else list(task_names(settings))
    if not names:
        click.echo(f"no task yet in {settings.folder}; begin with: everfit init DATA --target COL")
    for name in names:
        click.echo("\n".join(task_lines(Workplace.open(settings, find_task(settings, name)))))
    click.echo("\n".join(service_lines(running(settings))))


@click.command()
@click.argument("task")
@click.option("--test", "trial", is_flag=True, help="Send a test message to every channel and say whether it arrived.")
def alerts(task: str, trial: bool) -> None:
    """Show TASK's alerts, or test the channels.

    The alert that is open, the last ones, and which channel has heard of each. The channels are in EVERFIT_ALERT_URLS.
    With --test the exit code is 4 when a channel did not take the message.

    \b
    Example:
      everfit alerts flights
      everfit alerts flights --test
    """
    settings = connect()
    from flows.alerting import written
    from flows.overview import alert_lines
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    if trial:
        _try_channels(place)
    else:
        click.echo("\n".join(alert_lines(place.task.name, *written(place.ledger))))


def _try_channels(place: Workplace) -> None:
    from flows.alerting import trial

    found = trial(place, place.now())
    if not found:
        raise InputError("there is no channel: set EVERFIT_ALERT_URLS, such as https://hooks.example.com/everfit")
    for name, failed in found:
        click.echo(f"{name}: {failed or 'arrived'}")
    if failures := [name for name, failed in found if failed]:
        raise OutsideError(f"{len(failures)} of {len(found)} channels did not take the message")


@click.command()
@click.argument("task")
@click.argument("version")
def promote(task: str, version: str) -> None:
    """Make VERSION the champion of TASK without a gate. The former champion becomes `previous`.

    \b
    Example:
      everfit promote flights 3
    """
    settings = connect()
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    done = place.versions.promote(place.task.name, version)
    _record(place, "promotion", "promoted", done)
    click.echo(f"{place.task.name}: version {done.version} is the champion (previous: {done.previous or 'none'})")


@click.command()
@click.argument("task")
@click.argument("share", type=click.FloatRange(0, 1))
def canary(task: str, share: float) -> None:
    """Let the challenger of TASK answer SHARE of the live requests; 0 ends it.

    Requests with the same X-Everfit-Key header meet the same version. The share ends when the challenger is promoted or
    let go.

    \b
    Example:
      everfit canary flights 0.1
    """
    settings = connect()
    from flows.publishing import alias_of
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    version = alias_of(place, "challenger")
    if version is None:
        raise StateError(f"task {place.task.name!r} has no challenger")
    place.versions.set_canary(place.task.name, version, share)
    said = f"answers {share:.0%} of the requests" if share else "answers no request any more"
    click.echo(f"{place.task.name}: challenger {version} {said}")


@click.command()
@click.argument("task")
def rollback(task: str) -> None:
    """Make the previous champion of TASK the champion again.

    \b
    Example:
      everfit rollback flights
    """
    settings = connect()
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    done = place.versions.rollback(place.task.name)
    _record(place, "rollback", "rolled back", done)
    click.echo(f"{place.task.name}: version {done.version} is the champion again (instead of {done.previous})")


@click.command()
@click.argument("task")
@click.option("--refuse", is_flag=True, help="Let the challenger go instead.")
def approve(task: str, refuse: bool) -> None:
    """Promote the proved challenger that waits for you.

    With `mode: approve` in TASK's file, what the gate proves is promoted by a person. A flow run that waits in
    Prefect's UI goes on.

    \b
    Example:
      everfit approve flights
      everfit approve flights --refuse
    """
    settings = connect()
    from flows.approval import answer, pending, release
    from flows.workplace import Workplace, find_task

    place = Workplace.open(settings, find_task(settings, task))
    asked = pending(place)
    done = answer(place, promote=not refuse, at=place.now(), by="by hand")
    if asked is not None:
        release(asked, promote=not refuse)
    said = "was let go" if refuse else f"is the champion (previous: {done.details['champion']})"
    click.echo(f"{place.task.name}: version {done.version} {said}")


def _record(place: Workplace, kind: str, outcome: str, done: Promotion) -> None:
    """Write in the ledger what a person did to the aliases: policies count their warm-up from it."""
    from registry.ledger import Entry

    details = {"previous": done.previous}
    entry = Entry(task=place.task.name, kind=kind, at=place.now(), version=done.version, outcome=outcome)
    place.ledger.write(entry.model_copy(update={"reasons": ("by hand",), "details": details}))


@click.command()
@click.argument("task")
@click.option("--as-of", type=_MOMENT, help="Use only what was known at this moment (UTC); default: now.")
@click.option("--reason", default="asked for by hand", show_default=True, help="Why, for the ledger.")
@click.option(
    "--remedies",
    default="research",
    show_default=True,
    help="What to try until one is promoted: recalibrate, follow, fine_tune, research, search.",
)
def improve(task: str, as_of: datetime | None, reason: str, remedies: str) -> None:
    """Make a better model, prove it, promote it.

    All remedies but a (cold) search start from what TASK's champion knows. A challenger is promoted only if it is
    better than the champion on fresh rows that neither has seen.

    \b
    Example:
      everfit improve flights --reason "new aircraft" --remedies fine_tune,research
    """
    settings = connect()
    from flows.improve import improve as flow
    from flows.stages import perform
    from flows.workplace import find_task

    done = perform(flow, find_task(settings, task).name, as_of=as_of, reason=reason, remedies=remedies)
    click.echo(f"{task}: {done['outcome']} (version {done['version'] or '-'})")
    for line in done["reasons"]:
        click.echo(f"  {line}")
