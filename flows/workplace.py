"""The composition root: a task and the real stores it works with, wired in one place from the settings.

Tasks are registered as `HOME/tasks/NAME.yaml`, so that a schedule, a server or a status page finds them by name. A
registered task's file source is absolute: the process that reads it may stand in another folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from registry.database import utc_now
from registry.errors import EverfitError, OutsideError, TaskError, did_you_mean, unknown
from registry.locks import exclusive
from registry.mistakes import explain
from registry.settings import Settings
from registry.task import FileSource, TaskSpec, load

if TYPE_CHECKING:
    from monitor.shelf import Shelf
    from registry.inference_log import InferenceLog
    from registry.ledger import Ledger
    from registry.versions import Versions


_PATIENCE = 60.0
"""Seconds for which somebody who changes a task is waited for: the registry may be asked meanwhile."""


def task_names(settings: Settings) -> tuple[str, ...]:
    """The names of the registered tasks, sorted."""
    return tuple(sorted(path.stem for path in (settings.folder / "tasks").glob("*.yaml")))


def find_task(settings: Settings, name_or_path: str | Path) -> TaskSpec:
    """A registered task by name, or the task in a YAML file by path. Raises `TaskError`."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        return load_task(Path(text))
    registered = settings.task_file(text)
    if not registered.is_file():
        raise TaskError(_unknown(settings, text))
    return load(registered)


def load_task(path: Path) -> TaskSpec:
    """The task in a YAML file, a relative source path taken from that file's folder. Raises `TaskError`."""
    task = load(path)
    if not isinstance(task.source, FileSource):
        return task
    source = (path.expanduser().resolve().parent / Path(task.source.path).expanduser()).as_posix()
    return task.model_copy(update={"source": FileSource(path=source)})


def register_task(settings: Settings, task: TaskSpec) -> Path:
    """Write the task under its name, replacing what stood there in one step; the path written.

    Raises `TaskError` for a relative file source, which no other process could find.
    """
    if isinstance(task.source, FileSource) and not Path(task.source.path).is_absolute():
        raise TaskError(f"task {task.name!r}: source.path must be absolute to be registered, got {task.source.path!r}")
    path = settings.task_file(task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    partial.replace(path)
    return path


@contextmanager
def changing(settings: Settings, name: str) -> Iterator[None]:
    """Whoever reads a registered task and writes what follows from it holds this lock: of two, none is lost between."""
    lock = settings.folder / "locks" / f"task-{name}.lock"
    with exclusive(lock, f"a change of task {name}", patience=_PATIENCE):
        yield


@contextmanager
def registered_for_search(settings: Settings, task: TaskSpec) -> Iterator[None]:
    """Register a task for the search inside. Where that is refused, what stood before is put back, unless somebody has
    registered the task since, in the same words or others; where it is killed, or the outside fails, the task stays,
    and the search can be gone on with. Raises `BusyError` while another search of the task has registered its file:
    what stood before that would be lost, were both refused."""
    file = settings.task_file(task.name)
    with exclusive(settings.folder / "locks" / f"file-{task.name}.lock", f"a search of task {task.name} by its file"):
        with changing(settings, task.name):
            before = file.read_bytes() if file.is_file() else None
            mine = _mark(register_task(settings, task))
        try:
            yield
        except OutsideError:
            raise
        except EverfitError:
            with changing(settings, task.name):
                if _mark(file) == mine:
                    _put_back(file, before)
            raise


def _mark(file: Path) -> tuple[int, int] | None:
    """Which writing of a file this is, whatever it says: each makes a new one."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _put_back(file: Path, before: bytes | None) -> None:
    if before is None:
        file.unlink()
        return
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(before)
    partial.replace(file)


def take_over_log(settings: Settings, task: TaskSpec) -> None:
    """Register what a task's file says of its log where the registered task says something else.

    Raises `TaskError` for columns that neither the champion nor the data it learnt from have, or that cannot be hidden.
    """
    file = settings.task_file(task.name)
    with changing(settings, task.name):
        if file.is_file() and (registered := load(file)).log != task.log:
            register_task(settings, _with_log(settings, registered, task))


def _with_log(settings: Settings, registered: TaskSpec, task: TaskSpec) -> TaskSpec:
    changed = {**registered.model_dump(mode="json"), "log": task.log.model_dump()}
    try:
        spec = TaskSpec.model_validate(changed)
    except ValidationError as error:
        raise TaskError(f"task {task.name!r}:\n{explain(error, TaskSpec)}") from error
    require_columns(settings, spec)
    return spec


def require_columns(settings: Settings, task: TaskSpec) -> None:
    """Raise `TaskError` where a task hides columns that its champion does not know or that cannot be hidden, or watches
    one apart that is no category of it."""
    from registry.inference import SEGMENTS, no_segments
    from registry.privacy import hides_image

    versions = open_versions(settings)
    if (champion := versions.get(task.name, "champion")) is None:
        return
    schema = versions.fetch(task.name, champion).manifest.data_schema
    known = [*schema.names, *(one.name for one in schema.left_out)]
    for name in task.log.names:
        if name not in known:
            raise TaskError(unknown("column in `log`", name, known))
    kinds = {one.name: one.kind for one in schema.columns}
    for wrong, reason in no_segments(kinds, task.monitor.segments):
        raise TaskError(f"{SEGMENTS}: {wrong!r}: {reason}")
    if (why := hides_image(task, None if schema.image is None else schema.image.name)) is not None:
        raise TaskError(f"log: {why}")


def _unknown(settings: Settings, name: str) -> str:
    """What to say of a word that is neither a task's name nor, by its ending, a task's file."""
    if Path(name).is_file():
        return f"{name}: a task's file ends in .yaml; of data, `everfit init {name} --target COLUMN` proposes one"
    names = task_names(settings)
    none = f"no task is registered in {settings.folder} (run `everfit search TASK.yaml` first)"
    known = f"expected one of {', '.join(names)}" if names else none
    what = f"there is neither a file nor a task {name!r}" if Path(name).suffix else f"unknown task {name!r}"
    return f"{what}: {known}{did_you_mean(name, [*names, *(one.name for one in Path().glob('*.y*ml'))])}"


_FEW = 0.05
"""Share of the newest rows up to which those that lie ahead are taken for mistakes."""

_RECENT = 16
"""Windows of the ledger that are looked at: one that was measured again is written anew."""


@dataclass(frozen=True)
class Workplace:
    """A task and all that its flows work with."""

    settings: Settings
    task: TaskSpec
    log: InferenceLog
    ledger: Ledger
    versions: Versions

    @classmethod
    def open(cls, settings: Settings, task: TaskSpec) -> Workplace:
        """Open the stores of a task. Raises `StoreError`; the registry is first reached when it is first asked."""
        from registry.database import open_engine
        from registry.inference_log import InferenceLog
        from registry.ledger import Ledger
        from registry.privacy import Privacy, Vault

        engine, key = open_engine(settings.store), settings.log_key
        vault = Vault(None if key is None else key.get_secret_value(), settings.log_key_file)
        log = InferenceLog(engine, task.name, Privacy(task.log, vault))
        return cls(settings, task, log, Ledger(engine, task.name), open_versions(settings))

    def now(self) -> datetime:
        """The moment that watching stands at where none is asked for: how far the rows go, by the task's own time; the
        clock where the task has no time column: its rows lie at their arrival, and labels arrive after them."""
        return self.seen() if self.task.time is not None else utc_now()

    def seen(self) -> datetime:
        """How far the rows go: the newest event logged, and not before the end of a window that was measured. Rows that
        lie after the clock, or have no moment, where the task has a time column, are passed over (`astray`) unless
        there are no others.

        A window is over when an event from after it, or close before its end, has been seen: rows that are logged late,
        or replayed from an older time, are never mistaken for a window with few rows.
        """
        from monitor.windows import seen

        clock = utc_now()
        span, (newest, _) = self.log.span(), self.log.newest(clock, timed=self.task.time is not None)
        ends = [entry.at for entry in self.ledger.read(kinds={"window"}, last=_RECENT)]
        return min(max([seen(self.task.monitor.windows, newest or span[1]), *ends]), clock) if span else clock

    def astray(self) -> str | None:
        """What is said of rows that do not move the clock, None where there are none, or no others. Where many lie
        ahead, the task foretells, and nothing is said of them."""
        clock = utc_now()
        newest, found = self.log.newest(clock, timed=self.task.time is not None)
        said = []
        if found.untimed:
            said.append(f"without a moment in {self.task.time!r}, which count as of their arrival: {found.untimed:,}")
        if found.furthest is not None and found.ahead <= _FEW * found.rows:
            said.append(f"after the clock, up to {found.furthest:%Y-%m-%d %H:%M}: {found.ahead:,}")
        return f"rows that the task's time passes over: {'; '.join(said)}" if said and newest is not None else None

    def moment(self, as_of: datetime | None) -> datetime:
        """`as_of` as event times are written, UTC without a zone; `now` where none is given."""
        if as_of is None:
            return self.now()
        return as_of if as_of.tzinfo is None else as_of.astimezone(UTC).replace(tzinfo=None)

    @property
    def study(self) -> Path:
        """Folder of the task's searches."""
        return self.settings.study(self.task.name)

    @property
    def reports(self) -> Path:
        """Folder of the task's reports as HTML."""
        return self.settings.folder / "reports" / self.task.name

    @property
    def page(self) -> str:
        """The URL of the task's page on the status page, on this machine."""
        return f"http://127.0.0.1:{self.settings.status_port}/tasks/{self.task.name}"

    @property
    def shelf(self) -> Shelf:
        """Where the task's reports are kept, and how long."""
        from monitor.shelf import Shelf

        return Shelf(self.task.name, self.reports, self.settings.workspace, self.settings.report_days)

    @property
    def lock(self) -> Path:
        """The file that whoever improves the task holds: one at a time a task on this machine."""
        return self.settings.folder / "locks" / f"improve-{self.task.name}.lock"


def enter(task: str) -> Workplace:
    """The door of a flow: the workplace of a registered task, with the settings of the environment."""
    settings = Settings()
    return Workplace.open(settings, find_task(settings, task))


def open_versions(settings: Settings) -> Versions:
    """The model registry of the settings; nothing is reached yet."""
    from registry.versions import Versions

    return Versions(settings.tracking, settings.artifacts, settings.folder / "bundles")
