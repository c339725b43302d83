"""The command `everfit backtest`."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.commands_data import DurationType
from flows.door import MOMENT, SECONDS, connect, resumable
from flows.waiting import waiting

if TYPE_CHECKING:
    from flows.backtest import Plan
    from flows.replay import Judged
    from registry.policies import PolicySpec
    from registry.task import TaskSpec

_AGAIN = "run it again, and it goes on where it stopped"


@click.command()
@click.argument("task")
@click.option("--policy", "policies", multiple=True, help="Such as never, periodic:every=8, task; may be repeated.")
@click.option("--start", type=MOMENT, help="The rows before teach. Default: two fifths of them.")
@click.option("--delay", type=DurationType(), default="1d", show_default=True, help="How late labels arrive.")
@click.option("--seconds", type=SECONDS, help="Of the first model's search. Default: the task's.")
@click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True, help="Policies at a time.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is kept. Default: in EVERFIT_HOME.")
@click.option(
    "--write", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Recommended policy to here."
)
def backtest(
    task: str,
    policies: tuple[str, ...],
    start: datetime | None,
    delay: timedelta,
    seconds: float | None,
    parallel: int,
    folder: Path | None,
    write: Path | None,
) -> None:
    """What each policy would have done on the task's own history.

    TASK is a registered task or a task's YAML. A first model learns from the rows before --start. The rows after it are
    replayed under each policy, window by window, with labels as late as they come: watched, re-searched, gated and
    promoted as in service, without HTTP. Killed, it goes on where it stopped. With --parallel above 1 searches share
    the cores, and a budget of seconds buys fewer trials.

    \b
    Example:
      everfit backtest flights.yaml --policy never --policy periodic:every=4 --policy task --write flights.yaml
    """
    settings = connect()
    from flows.workplace import find_task

    spec = find_task(settings, task)
    if write is not None:
        _check(write, spec)
    with waiting("loading the libraries"):
        from flows.backtest import first_champion, has_first, policies_of, prepare, refusable, run, stream_of
        from flows.frontier import describe, gather
        from flows.frontier_picture import draw
        from flows.replay import told
        from flows.stream import steps
        from flows.terminal import ProgressLine

    place = (folder or settings.folder / "backtests" / spec.name).expanduser().resolve()
    chosen = policies_of(policies, spec)
    with refusable(place):
        with waiting("reading the history"):
            plan = prepare(place, spec, chosen, start=start, delay=delay)
            stream = stream_of(place, plan.task)
        windows = len(steps(stream.times, plan.task.monitor.windows))
        most = None if has_first(place) else seconds or plan.task.search.seconds
        _announce(place, plan, rows=len(stream), windows=windows, most=most)
        with resumable(_AGAIN), ProgressLine() as line:
            first_champion(place, plan, line, seconds=seconds)
    width = max(map(len, plan.policies))

    def tell(name: str, step: Judged) -> None:
        click.echo(f"{name:<{width}}  {step.index + 1:>{len(str(windows))}}/{windows}  {told(step)}")

    with resumable(_AGAIN):
        run(place, plan, parallel=parallel, tell=tell)
    found = gather(place, plan)
    said = describe(found)
    (place / "backtest.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
    (place / "backtest.txt").write_text(f"{said}\n", encoding="utf-8")
    click.echo(f"\n{said}\npicture: {draw(found, place / 'backtest.png')}")
    if write is not None:
        _write(write, found.recommended, plan.policies[found.recommended])


def _write(file: Path, name: str, policy: PolicySpec) -> None:
    """Put the recommended policy into a task's file, unless it is there already."""
    from registry.proposal import replace_policy
    from registry.task import load

    if load(file).policy == policy:
        click.echo(f"{file}: its policy stays as it is")
        return
    replace_policy(file, policy)
    click.echo(f"{file}: its policy is {name} now")


def _check(file: Path, task: TaskSpec) -> None:
    """Whether the recommendation has a place there, before hours are spent on it. Raises `InputError`."""
    from registry.errors import InputError
    from registry.task import load

    if (name := load(file).name) != task.name:
        raise InputError(f"--write {file}: it is of task {name!r}, the back-test of {task.name!r}")


def _announce(place: Path, plan: Plan, *, rows: int, windows: int, most: float | None) -> None:
    """What is played, where it is kept, and how long a first model is searched for at most, where it is (seconds)."""
    from registry.plurals import counted

    click.echo(f"{counted(rows, 'row')} in {counted(windows, 'window')} under {', '.join(plan.policies)}")
    click.echo(f"kept in {place}, with each policy's log (policies/*/log.txt)")
    if most is not None:
        click.echo(f"searching for the model that all begin with: {most:,.0f} s at most (--seconds)")
