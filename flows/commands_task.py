"""Commands that begin a task: from data to its file, its edits, its endpoint."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.changes import differing, told
from flows.door import read_settings
from flows.waiting import waiting
from registry.errors import InputError, SourceError, StateError, TaskError
from registry.plurals import counted

if TYPE_CHECKING:
    from registry.settings import Settings
    from registry.task import TaskSpec

_MADE_FOR = ("target", "time", "problem", "metric", "coverage", "columns")
"""Keys of a task that a model is made for."""


@click.command()
@click.argument("data")
@click.option("--target", required=True, help="Column to predict.")
@click.option("--time", "time_column", help="Column with the time of each row.")
@click.option("--name", help="Name of the task; default: from the file's name.")
@click.option("--query", help="SQL query, run read-only; DATA is then a SQLAlchemy URL.")
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
    if query is None and "://" in data:
        raise SourceError("a database URL needs --query with the SQL that gives the rows")
    with waiting("loading the libraries"):
        from registry.inference import infer_kinds
        from registry.proposal import propose, write
        from registry.sources import read
        from registry.task import FileSource, SqlSource
        from retrain.checks import examine, require
        from retrain.image_checks import load_images

        source = FileSource(path=data) if query is None else SqlSource(url=data, query=query)
    with waiting("reading the rows" if query else f"reading {data}"):
        frame = read(source)
        task = propose(frame, source, target=target, time=time_column, name=name)
        frame, found = load_images(frame, task)
    require(found)
    with waiting(f"looking at {len(frame):,} rows"):
        findings = [*found, *examine(frame, task)]
    fatal = [one for one in findings if one.level == "fatal"]
    if any("`columns." not in one.remedy for one in fatal):
        require(findings)
    path = output or Path(f"{task.name}.yaml")
    if query is None:
        task = task.model_copy(update={"source": FileSource(path=_seen_from(path, data))})
    kinds = infer_kinds(frame, task.columns, target=target, time=time_column)
    write(task, path, kinds=kinds)
    click.echo(f"{len(frame):,} rows, {task.problem} problem, metric {task.metric}")
    moments = [column for column, kind in kinds.kinds.items() if kind == "datetime"]
    if time_column is None and moments:
        click.echo(
            "note: no column was named as the rows' time: nobody can tell newer rows from older ones, and a champion "
            f"is never trained on; where {' or '.join(map(repr, moments[:3]))} is that time, delete {path} and say "
            f"`--time {moments[0]}`",
            err=True,
        )
    for finding in findings:
        if finding not in fatal:
            click.echo(f"warning: {finding}", err=True)
    click.echo(f"wrote {path}; {'correct' if fatal else 'look at'} it, then: everfit search {path}")
    require(fatal)


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
    problem, metric, coverage, columns) asks for a search. Of a task that no search has registered, FILE and all its
    rows are checked, and nothing else is done; the exit code is 3 where no mistake is found.

    \b
    Example:
      everfit apply flights.yaml
    """
    from flows.workplace import changing, load_task
    from registry.mistakes import pointing

    settings = read_settings()
    new = load_task(Path(file))
    with waiting("loading the libraries"):
        from retrain.search.session import require_means
    with pointing(Path(file)):
        require_means(new)  # what is wrong would end the next search, perhaps at night
    if not settings.task_file(new.name).is_file():
        raise StateError(f"{_sound(file, new)}; task {new.name!r} is not registered yet, next: everfit search {file}")
    with changing(settings, new.name):
        changed = _apply(settings, file, new)
    click.echo(f"{new.name}: {', '.join(changed) or 'nothing'} changed")


def _sound(file: str, new: TaskSpec) -> str:
    """That a task that is not registered is sound. Raises `DataError` or `TaskError` for what its rows show."""
    from registry.mistakes import pointing

    with pointing(Path(file)), waiting("looking at the rows"):
        from flows.search import require_data

        return f"{file}: no mistake is found in it, with its {counted(require_data(new), 'row')}"


def _apply(settings: Settings, file: str, new: TaskSpec) -> list[str]:
    """Register it; the keys that are others than before, with their values where these are short."""
    from flows.workplace import find_task, register_task, require_columns
    from registry.mistakes import pointing

    old = find_task(settings, new.name)
    changed = dict(differing(old.model_dump(mode="json"), new.model_dump(mode="json")))
    asking = [key for key in changed if key.split(".")[0] in _MADE_FOR]
    if asking or new.source != old.source:
        from flows.search import require_rows

        with pointing(Path(file)):
            require_rows(new)
    if asking:
        raise InputError(f"{file}: {', '.join(asking)} changed: a model must be found for that: everfit search {file}")
    if (new.log, new.monitor.segments) != (old.log, old.monitor.segments):
        with pointing(Path(file)):
            require_columns(settings, new)
    register_task(settings, new)
    return [told(key, *values) for key, values in changed.items()]


@click.command()
@click.argument("tasks", metavar="TASK...", nargs=-1, required=True)
def serve(tasks: tuple[str, ...]) -> None:
    """Serve the champions of one TASK or of several over HTTP until interrupted.

    The endpoint follows each champion: a promotion is swapped in between two requests. Several tasks are answered under
    /models/TASK/. Where TASK is a file, its `log` takes the place of the registered one. A task that this home does not
    know is served if the registry of EVERFIT_TRACKING_URL has a champion of it: so are replicas.

    \b
    Example:
      everfit serve flights
      curl -s localhost:8000/model
    """
    from flows.processes import require_free
    from flows.services import child_environment, endpoint_of, running

    settings = read_settings()
    names = [_served_name(settings, task) for task in tasks]
    require_free(endpoint_of(settings, names))
    environment = child_environment(settings, {one.name for one in running(settings)})
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    click.echo(f"serving {', '.join(names)}: {scheme}://{host}:{settings.port}/docs (Ctrl+C ends it)", err=True)
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the endpoint can end in silence: see its `main`
    os.execve(sys.executable, [sys.executable, "-m", "serving", *names], environment)


def _served_name(settings: Settings, task: str) -> str:
    """The name under which a task is served; a file's `log` is taken over."""
    from flows.workplace import find_task, open_versions, take_over_log
    from registry.moves import CHAMPION

    try:
        spec = find_task(settings, task)
    except TaskError:
        elsewhere = settings.tracking_url and os.sep not in task and not Path(task).suffix
        if not elsewhere or open_versions(settings).get(task, CHAMPION) is None:
            raise
        return task
    if task != spec.name:
        take_over_log(settings, spec)
    return spec.name
