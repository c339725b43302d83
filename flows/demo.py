"""The demo: a model is found, served, drifts under real flights, is repaired and swapped, all in a fresh folder.

`run` plays any `Plan`; only `flights_plan` knows of flights. Everything is started for the demo on free ports of the
loopback, and stopped at its end, however it ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from flows.results import Results, describe, gather, write
from flows.waiting import waiting
from registry.errors import EverfitError, InputError
from registry.schema import Frozen
from registry.settings import Settings
from registry.task import FileSource, TaskSpec

MARKER = ".everfit-demo"
_LIBRARIES = ("retrain.search.session", "retrain.following", "monitor.watching", "scipy.stats", "sklearn.ensemble")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a demo plays: data (history and stream, in a folder), the task's particulars, the headline's period."""

    name: str
    title: str
    data: Callable[[Path], tuple[Path, Path]]
    target: str
    time: str
    changes: Mapping[str, Any]
    period: tuple[datetime, datetime]
    delay: timedelta = timedelta(days=1)
    batch: int = 1000


class DemoResult(Frozen):
    """What a demo gives: the replay's results, seconds by stage, and the peak memory of all processes in bytes."""

    seed: int
    results: Results
    stages: dict[str, float]
    seconds: float
    peak_bytes: int
    at_peak: dict[str, int]
    picture: str


def flights_plan(seed: int = 0) -> Plan:
    """January and February to learn from; March to August, a week a window, labels a day late."""
    return Plan(
        name="flights",
        title="Flights from New York, 2013: kept fit against left alone",
        data=_flights,
        target="late",
        time="time_hour",
        changes={
            "search": {"trials": 24, "seconds": 60.0, "workers": 2, "seed": seed},
            "research": {
                "trials": 8,
                "seconds": 16.0,
                "history": "12w",
                "max_fresh_rows": 6_000,
                "splits": {"validation": 0.06, "calibration": 0.05, "test": 0.03, "spread": 4},  # the newest rows teach
            },
            "splits": {"validation": 0.1, "calibration": 0.05, "test": 0.06},
            "monitor": {"windows": {"kind": "time", "every": "7d"}, "report": "never"},
            "gate": {"calibration_tolerance": 0.1},  # the share of late flights differs by more from week to week
            "policy": {  # a re-search is cheap
                "kind": "performance",
                "tolerate": 0.005,
                "false_alarms": "1 per 26w",
                "refresh": 4,
            },
        },
        period=(datetime(2013, 5, 1), datetime(2013, 9, 1)),
    )


def _flights(folder: Path) -> tuple[Path, Path]:
    from flows.flights import write_flights

    files = write_flights(folder)
    return files.history, files.stream


@dataclass
class Clock:
    """Seconds by stage, told as they pass."""

    say: Say
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Time a stage."""
        self.say(f"\n[{sum(self.stages.values()):4.0f} s] {what}")
        began = time.monotonic()
        yield
        self.stages[name] = time.monotonic() - began


def run(plan: Plan, folder: Path, *, say: Say = print) -> DemoResult:
    """Play a plan in a fresh folder. Raises `InputError` when the folder holds something that is not a demo."""
    from flows.memory import MemoryWatch

    folder = folder.expanduser().resolve()
    clock = Clock(say)
    with MemoryWatch() as memory, ExitStack() as stack:
        settings = _settings(folder)
        _clear(folder, settings)
        stack.enter_context(_environment())
        stack.callback(_stop_all, settings)
        stack.callback(_send_what_prefect_holds)
        results = _play(plan, folder, settings, clock)
    picture = write(results, folder, title=plan.title)
    result = DemoResult(
        seed=int(plan.changes["search"]["seed"]),
        results=results,
        stages=clock.stages,
        seconds=sum(clock.stages.values()),
        peak_bytes=memory.peak,
        at_peak=memory.at_peak,
        picture=str(picture),
    )
    (folder / "demo.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    say(f"\n{summary(result)}")
    return result


def summary(result: DemoResult) -> str:
    """The end of a demo in words."""
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result.stages.items())
    return "\n".join(
        [
            describe(result.results),
            f"wall-clock          {result.seconds:>7.0f} s  ({stages})",
            f"memory at most      {result.peak_bytes / 2**30:>5.2f} GiB  in all processes",
            f"picture             {result.picture}",
        ]
    )


def _play(plan: Plan, folder: Path, settings: Settings, clock: Clock) -> Results:
    from flows.services import connected, up

    with clock.stage("data", f"writing the data of {plan.name!r} and a task that is proposed from them"):
        with waiting("making the data"):
            history, stream = plan.data(folder / "data")
        task = _task(plan, history, settings, clock.say)
    with clock.stage("services", "starting Prefect's server"), _meanwhile(partial(_load, settings, task.name)):
        up(settings, only={"prefect"}, say=clock.say)
        settings = connected(settings)
    with clock.stage("search", f"searching for a model ({task.search.seconds:.0f} s)"):
        _search(task, clock.say)
    with clock.stage("serve", "serving it"):
        up(settings, task.name, only={"endpoint"}, say=clock.say)
    with clock.stage("replay", "replaying what came later, window by window"):
        return _replay(plan, task, settings, stream, clock.say)


@contextmanager
def _meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do some work in a thread beside the block, and have it done at the end."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load(settings: Settings, task: str) -> None:
    """Load what searches, judges and registers, and make the registry: seconds, in which Prefect's server starts.
    Prefect itself comes later: it has to find its server."""
    from flows.workplace import open_versions
    from retrain.fabric import make_fabric

    for name in _LIBRARIES:
        import_module(name)
    make_fabric()
    with suppress(EverfitError):  # it is told where it is first needed
        open_versions(settings).get(task, "champion")


def _task(plan: Plan, history: Path, settings: Settings, say: Say) -> TaskSpec:
    from flows.workplace import register_task
    from registry.proposal import propose
    from registry.sources import read

    source = FileSource(path=str(history))
    frame = read(source)
    proposed = propose(frame, source, target=plan.target, time=plan.time, name=plan.name)
    task = TaskSpec.model_validate({**proposed.model_dump(mode="json"), **plan.changes})
    register_task(settings, task)
    say(f"  {len(frame):,} rows, {task.problem} problem, metric {task.metric}, target {task.target!r}")
    return task


def _search(task: TaskSpec, say: Say) -> None:
    with waiting("loading the libraries"):
        from flows.progress import listening
        from flows.search import search
        from flows.stages import perform
        from flows.terminal import ProgressLine

    with ProgressLine() as line, listening(line):
        version = perform(search, task.name)
    say(f"  version {version} is the first champion")


def _replay(plan: Plan, task: TaskSpec, settings: Settings, file: Path, say: Say) -> Results:
    with waiting("reading the rows"):
        from flows.judging import flow_judge
        from flows.replay import Pace, replay, told
        from flows.stream import announced, open_stream
        from flows.traffic import Endpoint
        from flows.workplace import Workplace
        from registry.sources import read
        from serving.tls import trusted

        place = Workplace.open(settings, task)
        stream = open_stream(read(FileSource(path=str(file))), task, name="demo")
        judge = flow_judge(task.name)
    say(f"  {announced(stream, task, plan.delay)}")
    progress = replay(
        stream,
        task,
        place.versions,
        server=Endpoint(settings.endpoint_url, verify=trusted(settings)),
        checkpoint=settings.folder / "replays" / "demo.json",
        judge=judge,
        pace=Pace(delay=plan.delay, batch=plan.batch),
        tell=lambda step: say(told(step)),
    )
    with waiting("comparing with the first champion, frozen"):
        return gather(stream, progress, place, period=plan.period)


def _settings(folder: Path) -> Settings:
    """The demo's own settings: nothing of the user's installation is touched."""
    port, prefect, mlflow, status = _free_ports(4)
    return Settings(
        home=folder / "home",
        tracking_url="",
        store_url="",
        host="127.0.0.1",
        api_key=None,
        port=port,
        grpc_port=None,
        prefect_port=prefect,
        mlflow_port=mlflow,
        status_port=status,
        poll_seconds=0.5,
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _clear(folder: Path, settings: Settings) -> None:
    """Make the folder anew: what an earlier demo left there is stopped and removed, anything else is refused."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise InputError(f"{folder} is not empty and not a demo's folder: choose another with --folder")
        _stop_all(settings)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("This folder is removed and made anew by `everfit demo`.\n", encoding="utf-8")


def _stop_all(settings: Settings) -> None:
    from flows.services import down

    down(settings, say=lambda _: None)


def _send_what_prefect_holds() -> None:
    """Prefect's client sends logs and events in threads: they must be gone before its server is."""
    if "prefect.flows" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=5)
        EventsWorker.drain_all(timeout=5)


@contextmanager
def _environment() -> Iterator[None]:
    """Put this process's environment back afterwards, and free it now of what belongs to another installation."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("EVERFIT_", "PREFECT_API_"))]:
        if name not in ("EVERFIT_DEBUG", "EVERFIT_DATA"):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
