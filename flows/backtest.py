"""What policies would have done on a task's own history: the same rows through the same monitoring, remedies and gates.

The rows before a moment teach the first champion, once for all. The rows after it are replayed for each policy, in a
home of its own and a process of its own, without HTTP (`offline.py`): predictions and labels come when they came, the
flow `lifecycle` judges every window, and what it asks for is really done. A back-test that was killed goes on where it
stopped. What is read off in the end is in `frontier.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ValidationError

from flows.changes import differing, told
from flows.door import spare_collector
from flows.judging import flow_judge
from flows.replay import Judged, Pace, Progress, replay
from flows.services import child_environment, everfit_environment
from flows.stream import Stream, open_stream, steps
from flows.workplace import Workplace, register_task
from registry.conforming import as_datetimes
from registry.durations import Duration
from registry.errors import DataError, InputError, OutsideError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.mistakes import explain
from registry.parquet import read_parquet
from registry.plurals import counted
from registry.policies import NeverPolicy, PerformancePolicy, PolicySpec
from registry.schema import Frozen
from registry.settings import Settings
from registry.sources import read
from registry.task import FileSource, TaskSpec
from serving.workers import end_with

if TYPE_CHECKING:
    from registry.bundle import ModelBundle
    from retrain.search.progress import Progress as SearchProgress

FIRST = 0.4
"""Share of the rows that teach the first champion, unless a moment is given."""

LEAST_WINDOWS = 4
BATCH = 2_000
_STREAM = "backtest"
_PLAN, _HISTORY, _ROWS, _FIRST = "plan.json", "history.parquet", "stream.parquet", "first"

Tell = Callable[[str, Judged], None]


class Plan(Frozen):
    """A back-test: the task over its first rows, how late labels come, and the policies by name. The task's own policy
    is none of it: a recommendation may be written there."""

    task: TaskSpec
    delay: Duration
    policies: dict[str, PolicySpec]


def policies_of(texts: Sequence[str], task: TaskSpec) -> dict[str, PolicySpec]:
    """Policies by name, from `never`, `periodic:every=8`, `performance:tolerate=0.01,ladder=fine_tune+research`, or
    `task`: its own. Without any: never, every four windows, on drift, and the task's own (or on performance).

    Raises `InputError` for one that no policy understands.
    """
    if not texts:
        own = task.policy if isinstance(task.policy, PerformancePolicy) else PerformancePolicy()
        return {**policies_of(["never", "periodic", "drift"], task), "performance": own}
    return {_name(text): task.policy if text == "task" else _policy(text) for text in texts}


def _name(text: str) -> str:
    return text.replace(":", " ").replace(",", " ")


class _Choice(Frozen):
    """A policy as a task's file holds it: mistakes are told as they are there."""

    policy: PolicySpec


def _policy(text: str) -> PolicySpec:
    kind, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    try:
        return _Choice.model_validate({"policy": {"kind": kind, **fields}}).policy
    except ValidationError as error:
        said = explain(error, _Choice)
        raise InputError(
            f"--policy {text}:\n{said}\nsuch as never, periodic:every=4, performance:tolerate=0.01, or task: its own"
        ) from error


def prepare(
    folder: Path, task: TaskSpec, policies: Mapping[str, PolicySpec], *, start: datetime | None, delay: timedelta
) -> Plan:
    """Cut the task's rows in two and write everything down in a folder; what is there already must be the same.

    Within `refusable`. Raises `DataError` when there is no time to cut by, or too few windows after `start`,
    `StateError` when the folder holds another back-test.
    """
    frame = read(task.source)
    times = moments(frame, task)
    start = start or times.sort_values().iloc[int(FIRST * len(times))].to_pydatetime()
    return lay_out(folder, frame, times, task, policies, start=start, delay=delay)


def moments(frame: pd.DataFrame, task: TaskSpec) -> pd.Series[Any]:
    """The moment of each row. Raises `DataError` where the task has no column for it."""
    if task.time is None or task.time not in frame.columns:
        raise DataError(f"task {task.name!r}: a back-test needs the column with the moment of each row (`time`)")
    return as_datetimes(frame[task.time], task.time)


def lay_out(
    folder: Path,
    frame: pd.DataFrame,
    times: pd.Series[Any],
    task: TaskSpec,
    policies: Mapping[str, PolicySpec],
    *,
    start: datetime,
    delay: timedelta,
) -> Plan:
    """`prepare` of rows that were read, each with its moment."""
    before, after = frame[(times < start).to_numpy()], frame[(times >= start).to_numpy()]
    unread = task.monitor.model_copy(update={"report": "never"})  # nobody opens reports of a past that was not
    changed = {"source": FileSource(path=str(folder / _HISTORY)), "policy": NeverPolicy(), "monitor": unread}
    known = task.model_copy(update=changed)
    if before.empty or after.empty:
        span = f"{times.min()} to {times.max()}"
        raise DataError(f"no rows {'before' if before.empty else 'after'} {start}: the history is of {span}")
    plan, path = Plan(task=known, delay=delay, policies=dict(policies)), folder / _PLAN
    if path.is_file():
        if other := _other(folder, plan, before, after):
            raise StateError(f"{folder} holds another back-test ({other}): remove it, or choose another with --folder")
        return plan
    folder.mkdir(parents=True, exist_ok=True)
    before.to_parquet(folder / _HISTORY, index=False)
    after.to_parquet(folder / _ROWS, index=False)
    partial = path.with_suffix(".partial")
    partial.write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(path)  # whole, or none: half a plan would be taken for another back-test
    return plan


def _other(folder: Path, plan: Plan, before: pd.DataFrame, after: pd.DataFrame) -> str:
    """In what the back-test of a folder is another one than this plan over these rows; empty where it is the same."""
    from pyarrow.parquet import read_metadata

    held = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    differs = [told(key, *values) for key, values in differing(held, plan.model_dump(mode="json"))]
    for what, name, rows in (("first rows", _HISTORY, before), ("rows", _ROWS, after)):
        if (found := read_metadata(folder / name).num_rows) != len(rows):
            differs.append(f"{what} ({found} -> {len(rows)})")
    return ", ".join(differs)


@contextmanager
def refusable(folder: Path) -> Iterator[None]:
    """A block that begins a back-test: of one that is refused (`InputError`) nothing is left in its folder."""
    stood = folder.is_dir()
    former = set(folder.iterdir()) if stood else set()
    try:
        yield
    except InputError:
        for path in set(folder.iterdir()) - former if folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not stood and folder.is_dir():
            folder.rmdir()
        raise


def _rows(folder: Path) -> pd.DataFrame:
    return read_parquet(folder / _ROWS)


def stream_of(folder: Path, task: TaskSpec) -> Stream:
    """The rows that are replayed. Raises `DataError` when they are of too few windows to tell policies apart."""
    stream = open_stream(_rows(folder), task, name=_STREAM)
    if (found := len(steps(stream.times, task.monitor.windows))) < LEAST_WINDOWS:
        raise DataError(
            f"only {counted(found, 'window')} after the first rows, {LEAST_WINDOWS} are needed: begin earlier (--start)"
        )
    return stream


def has_first(folder: Path) -> bool:
    """Whether the model that all policies begin with is there."""
    from flows.publishing import finished

    return finished(folder / _FIRST / "bundle") is not None


def first_champion(
    folder: Path, plan: Plan, progress: Callable[[SearchProgress], None], *, seconds: float | None = None
) -> ModelBundle:
    """The model that all policies begin with; searched once, in the task's own seconds or those given."""
    from flows.publishing import finished
    from retrain.search.session import search

    home, budget = folder / _FIRST, plan.task.search
    if (found := finished(home / "bundle")) is not None:
        return found
    return search(
        plan.task,
        read(plan.task.source),
        folder=home / "study",
        out=home / "bundle",
        trials=budget.trials,
        seconds=seconds or budget.seconds,
        seed=budget.seed,
        progress=progress,
    )


def settings_of(folder: Path, number: int) -> Settings:
    """The home of a policy: its own registry, log and ledger, nothing of the user's installation."""
    home = folder / "policies" / str(number)
    return Settings(home=home, tracking_url="", store_url="", host="127.0.0.1", api_key=None, alert_urls=None)


def place_of(folder: Path, plan: Plan, number: int) -> Workplace:
    """The workplace of a policy, by its place in the plan."""
    policy = list(plan.policies.values())[number]
    return Workplace.open(settings_of(folder, number), plan.task.model_copy(update={"policy": policy}))


def progress_of(folder: Path, number: int) -> Progress | None:
    """How far a policy is; None before its first request."""
    path = _checkpoint(folder, number)
    return Progress.model_validate_json(path.read_bytes()) if path.is_file() else None


def _checkpoint(folder: Path, number: int) -> Path:
    return settings_of(folder, number).folder / "progress.json"


def play(folder: Path, number: int, tell: Callable[[Judged], None]) -> None:
    """Replay the rows under one policy, in this process. Raises `BusyError` while another one does."""
    with exclusive(settings_of(folder, number).folder / "backtest.lock", f"a back-test in {folder}"):
        _play(folder, number, tell)


def _play(folder: Path, number: int, tell: Callable[[Judged], None]) -> None:
    from flows.offline import Offline
    from flows.publishing import finished, publish_once

    plan = Plan.model_validate_json((folder / _PLAN).read_bytes())
    place = place_of(folder, plan, number)
    register_task(place.settings, place.task)
    bundle = finished(folder / _FIRST / "bundle")
    if bundle is None:
        raise StateError(f"{folder}: the first champion is missing")
    version = publish_once(place, "first", bundle)
    if not place.ledger.read(kinds={"promotion"}, last=1):
        at = bundle.manifest.lineage.known_until or datetime.min
        place.versions.promote(place.task.name, version)
        place.ledger.write(Entry(task=place.task.name, kind="promotion", at=at, version=version, outcome="promoted"))
    replay(
        stream_of(folder, place.task),
        place.task,
        place.versions,
        server=Offline(place),
        checkpoint=_checkpoint(folder, number),
        judge=flow_judge(place.task.name),
        pace=Pace(delay=plan.delay, batch=BATCH),
        tell=tell,
    )


def run(folder: Path, plan: Plan, *, parallel: int, tell: Tell) -> None:
    """All policies that are not finished, so many at a time. Raises `OutsideError` when a process ends badly."""
    names = list(plan.policies)
    left = [number for number in range(len(names)) if not ((done := progress_of(folder, number)) and done.finished)]
    with ThreadPoolExecutor(parallel) as pool:
        for ended in [pool.submit(_process, folder, number, names[number], tell) for number in left]:
            ended.result()


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of a policy's process: of the user's installation nothing, least of all where alerts go."""
    kept = ("EVERFIT_DEBUG", "EVERFIT_DATA")
    mine = {name for name in os.environ if name.startswith(("EVERFIT_", "PREFECT_API_")) and name not in kept}
    made = {name: value for name, value in child_environment(settings, ()).items() if name not in mine}
    return made | everfit_environment(settings)


def _process(folder: Path, number: int, name: str, tell: Tell) -> None:
    settings = settings_of(folder, number)
    settings.folder.mkdir(parents=True, exist_ok=True)
    command, environment = [sys.executable, "-m", "flows.backtest", str(folder), str(number)], environment_of(settings)
    log = settings.folder / "log.txt"
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                tell(name, Judged.model_validate_json(line))
        finally:
            process.terminate() if sys.exc_info()[0] else process.wait()
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise OutsideError(f"policy {name!r} ended with {process.returncode}: {' '.join(said)} (see {log})")


def main(arguments: Sequence[str]) -> None:
    """The process of one policy: a line of JSON for each window that is over. It ends with whoever holds its stdin."""
    end_with(sys.stdin.fileno())
    spare_collector()
    folder, number = Path(arguments[0]), int(arguments[1])
    out = os.fdopen(os.dup(1), "w", buffering=1)  # its own: whatever a library prints goes elsewhere
    os.dup2(2, 1)
    play(folder, number, lambda judged: print(judged.model_dump_json(), file=out))


if __name__ == "__main__":
    main(sys.argv[1:])
