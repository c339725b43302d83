"""The command `everfit quiet`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from flows.commands_data import DurationType
from flows.door import SECONDS, connect, resumable
from flows.waiting import waiting

_AGAIN = "run it again, and it goes on where it stopped"


@click.command()
@click.argument("task")
@click.option("--orders", type=click.IntRange(1, 100), default=2, show_default=True, help="In which nothing drifts.")
@click.option("--windows", type=click.IntRange(4), default=100, show_default=True, help="Of each order at most.")
@click.option("--block", type=DurationType(), help="What stays together. Default: a window, in whole weeks or days.")
@click.option("--delay", type=DurationType(), default="1d", show_default=True, help="How late labels arrive.")
@click.option("--seconds", type=SECONDS, default=60, show_default=True, help="Of each first search.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is kept. Default: in EVERFIT_HOME.")
def quiet(
    task: str,
    orders: int,
    windows: int,
    block: timedelta | None,
    delay: timedelta,
    seconds: float,
    folder: Path | None,
) -> None:
    """How often monitoring would alarm on the task's own history with nothing changed.

    TASK is a registered task or a task's YAML. Blocks of its rows change places at random, so that nothing drifts from
    one to the next; a first model learns from the first two fifths of them, and the rest is replayed and judged window
    by window, with nothing done about it. The alarms are counted beside the budget that the policy states
    (false_alarms), and beside those of the real order. Killed, it goes on where it stopped.

    \b
    Example:
      everfit quiet flights.yaml --orders 3
    """
    settings = connect()
    from flows.workplace import find_task

    spec = find_task(settings, task)
    with waiting("loading the libraries"):
        from flows.backtest import first_champion, refusable, run, stream_of
        from flows.quiet import describe, gather, prepare
        from flows.replay import Judged, told
        from flows.stream import steps
        from flows.terminal import ProgressLine
        from registry.durations import format_duration

    place = (folder or settings.folder / "quiet" / spec.name).expanduser().resolve()
    with refusable(place):
        with waiting("reading the history"):
            size, made = prepare(place, spec, orders=orders, windows=windows, block=block, delay=delay)
            found = {
                one.name: len(steps(stream_of(one.folder, one.plan.task).times, spec.monitor.windows)) for one in made
            }
        click.echo(f"blocks of {format_duration(size)}; {', '.join(f'{n}: {w} windows' for n, w in found.items())}")
        click.echo(
            f"kept in {place}; of each order a model is searched for first, {seconds:,.0f} s at most (--seconds)"
        )
        with resumable(_AGAIN), ProgressLine() as line:
            for one in made:
                first_champion(one.folder, one.plan, line, seconds=seconds)
    for one in made:

        def tell(_: str, step: Judged, name: str = one.name) -> None:
            click.echo(f"{name:<8}  {step.index + 1:>3}/{found[name]}  {told(step)}")

        with resumable(_AGAIN):
            run(one.folder, one.plan, parallel=1, tell=tell)
    result = gather(spec, size, made)
    said = describe(result)
    (place / "quiet.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    (place / "quiet.txt").write_text(f"{said}\n", encoding="utf-8")
    click.echo(f"\n{said}")
