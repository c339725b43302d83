"""Commands that run data through the whole house: a replay of a file, and the demo."""

from __future__ import annotations

import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from flows.door import SEED, connect, resumable
from flows.waiting import waiting

if TYPE_CHECKING:
    from flows.stream import Stream
    from flows.traffic import Endpoint
    from flows.workplace import Workplace
    from registry.settings import Settings


class DurationType(click.ParamType[timedelta]):
    """A span of time such as 12h or 1d."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse it as the task's YAML does."""
        from registry.durations import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("file")
@click.option("--task", required=True, help="The task whose endpoint answers.")
@click.option("--delay", type=DurationType(), default="1d", show_default=True, help="How late labels arrive.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Rows a request.")
@click.option("--rate", type=click.FloatRange(min=0.1), help="Most rows a second; default: as fast as answered.")
@click.option("--name", help="Name of the replay; a new name sends the same rows anew. Default: from FILE.")
@click.option("--url", help="The endpoint; default: where `everfit serve` listens.")
@click.option("--watch-only", is_flag=True, help="Watch each window but repair nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of results; default: in EVERFIT_HOME.")
def replay(
    file: str,
    task: str,
    delay: timedelta,
    batch: int,
    rate: float | None,
    name: str | None,
    url: str | None,
    watch_only: bool,
    output: Path | None,
) -> None:
    """Send past rows as if they came now.

    The endpoint must be running. FILE (CSV or Parquet: a file, folder or glob) has the task's columns, its time column
    and its target. Rows go to /predict in time order, labels to /feedback when they would have arrived; each window is
    watched, and repaired if performance is degraded. A replay that was killed goes on where it stopped when it is run
    again.

    \b
    Example:
      everfit serve flights &
      everfit replay later.parquet --task flights --delay 1d
    """
    settings = connect()
    from flows.workplace import Workplace, find_task

    spec = find_task(settings, task)
    with waiting("loading the libraries"):
        from flows.judging import flow_judge
        from flows.replay import Pace, told
        from flows.replay import replay as run
        from flows.results import describe, gather, write
        from flows.stream import open_stream
        from flows.turns import replaying
        from registry.sources import read
        from registry.task import FileSource

        judge = flow_judge(spec.name, repair=not watch_only)
    with waiting(f"reading {file}"):
        place = Workplace.open(settings, spec)
        name = name or Path(file).stem.replace("*", "all")
        stream = open_stream(read(FileSource(path=file)), place.task, name=name)
    checkpoint = settings.folder / "replays" / f"{place.task.name}-{name}.json"
    click.echo(_begun(place, stream, delay, checkpoint))
    with replaying(place), resumable("run it again, and it goes on where it stopped"):
        progress = run(
            stream,
            place.task,
            place.versions,
            server=_endpoint(settings, place.task.name, url),
            checkpoint=checkpoint,
            judge=judge,
            pace=Pace(delay=delay, batch=batch, rate=rate),
            tell=lambda step: click.echo(told(step)),
        )
    with waiting("comparing with the first champion, frozen"):
        results = gather(stream, progress, place)
        picture = write(results, output or checkpoint.with_suffix(""))
    click.echo(f"\n{describe(results)}\n\npicture: {picture}")


def _begun(place: Workplace, stream: Stream, delay: timedelta, checkpoint: Path) -> str:
    """What is said before the first row: where it goes on, or what comes, and which of it the champion knows."""
    from flows.replay import known_before
    from flows.stream import announced, learnt
    from registry.moves import CHAMPION

    if (before := known_before(checkpoint)) is not None:
        return before
    said = announced(stream, place.task, delay)
    champion = next((one for one in place.versions.list(place.task.name) if CHAMPION in one.aliases), None)
    known = None if champion is None else champion.tags.get("known_until")
    told = (
        None if champion is None or known is None else learnt(stream, champion.version, datetime.fromisoformat(known))
    )
    return said if told is None else f"{said}\n{told}"


def _endpoint(settings: Settings, task: str, url: str | None) -> Endpoint:
    """The endpoint at an address; without one, where this installation's listens. One of this home is asked by its very
    certificate and the key that it made for such as us, any other by EVERFIT_API_KEY."""
    from flows.endpoints import own_at
    from flows.traffic import Endpoint
    from serving.presence import secret_for
    from serving.tls import trusted

    if not url:
        return Endpoint(settings.endpoint_url, task, key=secret_for(settings), verify=trusted(settings))
    if (here := own_at(settings, url)) is not None:
        # at the very address that it told: `localhost` may be ::1 first, where somebody else may listen
        return Endpoint(here.url, task, key=secret_for(settings, urlsplit(here.url).port), verify=trusted(settings))
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return Endpoint(url, task, key=key)


@click.command()
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the searches.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default="demo-output", show_default=True, help="Made anew each time."
)
def demo(seed: int, folder: Path) -> None:
    """Half a year of real flights in six minutes.

    A model is found and served, drifts, is repaired and swapped. Everything happens in a fresh folder, on free ports.

    \b
    Example:
      everfit demo --seed 1
    """
    with waiting("loading the libraries"):
        from flows.demo import flights_plan, run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it, its services are stopped
    run(flights_plan(seed), folder, say=click.echo)
