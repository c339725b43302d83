"""Past rows through an endpoint as if they came now: requests in time order, labels when they arrive.

Each window of the task is one step: its rows go to `POST /predict` in batches; labels whose time has come go to
`POST /feedback`; when the window is over, the endpoint's log is waited for and the window is judged (watched, and
improved if the policy says so) as of the simulated time, while single-row traffic goes on. No label is sent before
it exists, and nothing in a step reads the clock of the wall.

A checkpoint is written after every request that was answered. Ids are functions of the rows, so what a killed replay
sends again is known to the log: nothing is lost and nothing counts twice.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, Field

from flows.deeds import deed
from flows.stream import Step, Stream, is_whole, steps
from flows.traffic import Counts, Server
from flows.waiting import waiting
from registry.decisions import ROLLBACK, Outcome
from registry.energy import cpu_seconds
from registry.errors import NoModelError, OutsideError, StateError
from registry.plurals import counted
from registry.task import TaskSpec

if TYPE_CHECKING:
    from registry.versions import Versions

Judge: TypeAlias = Callable[[datetime, datetime | None], Mapping[str, Any]]
"""Judges the windows that are over at a time. Where no rows follow, the second moment is the one up to which windows
are whole: later ones, cut off by the end of the rows, are not judged. Answers with what was decided."""

_BACKGROUND_ROWS = 50
_NOT_JUDGED = {"severity": "", "remedy": "", "not_run": "cut off by the end of the rows, not judged"}
_MOST_LABELS = 10_000  # an endpoint's default limit of a request


class Judged(BaseModel):
    """One step that is over: what served its rows, how it was judged (`severity`, empty where the rows end within it),
    what was decided and done after it (`by` which remedy or look, with which `outcome`; or why it was `not_run`;
    `stepped`: a champion that follows has learnt its labels; `no_step`: why it could not), and what that cost in
    seconds of wall-clock and CPU."""

    index: int
    begin: datetime
    end: datetime
    rows: int
    version: str
    severity: str = ""
    remedy: str = ""
    by: str = ""
    outcome: str = ""
    not_run: str = ""
    stepped: bool = False
    no_step: str = ""
    champion: str = ""
    serving: bool = True
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def promoted(self) -> bool:
        """Whether another version serves after it that is no mere step of a champion that follows."""
        moved = self.champion != self.version
        return moved and (not self.stepped or self.outcome in (Outcome.PROMOTE, ROLLBACK))


def told(step: Judged) -> str:
    """One line for a window that is over."""
    did = deed(step.remedy, step.by, step.outcome, not_run=step.not_run, stepped=step.stepped, no_step=step.no_step)
    lead = ", " if step.stepped and not step.promoted else "  "  # it is the step that serves
    swap = f"{lead}now serving version {step.champion}" if step.champion != step.version and step.serving else ""
    refused = "" if step.serving else f"  version {step.champion} is NOT served: see the endpoint's /model"
    return (
        f"{step.begin:%Y-%m-%d}  {step.rows:>7,} rows  version {step.version:<3} {step.severity:<9} "
        f"{step.seconds:5.1f} s  {did}{swap}{refused}"
    ).rstrip()


class Progress(BaseModel):
    """How far a replay is: the content of its checkpoint. `rows` and `labels` are positions in the stream; `judging` is
    the version that served the window that is judged right now: should that be cut off, another one may serve then."""

    key: str
    task: str
    first_version: str
    rows: int = 0
    labels: int = 0
    labels_sent: int = 0
    steps: list[Judged] = Field(default_factory=list)
    requests: Counts = Counts()
    background: Counts = Counts()
    seconds: float = 0.0
    judging: str = ""
    finished: bool = False


@dataclass(frozen=True)
class Pace:
    """How a replay sends: rows a request, label delay, most rows a second (None: as fast as answered), and how long
    in seconds the endpoint's log or a new version is waited for."""

    delay: timedelta = timedelta(days=1)
    batch: int = 200
    rate: float | None = None
    patience: float = 60.0


def replay(
    stream: Stream,
    task: TaskSpec,
    versions: Versions,
    *,
    server: Server,
    checkpoint: Path,
    judge: Judge,
    pace: Pace | None = None,
    tell: Callable[[Judged], None] | None = None,
) -> Progress:
    """Send the stream's rows and labels to a server, judging each window; what was done. The server is closed then.

    Goes on from `checkpoint` if it is there. Raises `StateError` when the endpoint serves another task or the
    checkpoint belongs to other rows, `OutsideError` when the endpoint stays away: run it again to go on.
    """
    try:
        pace = pace or Pace()
        with waiting("asking the endpoint which version it serves"):
            served = _served(server, task.name, pace.patience)
        progress = _resume(checkpoint, stream, task.name, served)
        run = _Run(stream, task, versions, server, checkpoint, judge, pace, progress)
        run.through(tell or (lambda judged: None))
        return run.progress
    finally:
        gc.unfreeze()
        server.close()


def known_before(checkpoint: Path) -> str | None:
    """How far a replay had come when it was last run, in words; None for a new one."""
    if not checkpoint.is_file():
        return None
    progress = Progress.model_validate_json(checkpoint.read_bytes())
    windows = counted(len(progress.steps), "window")
    if progress.finished:
        return f"all {windows} were replayed before; another --name sends the same rows anew"
    return f"it goes on where it stopped: {counted(progress.rows, 'row')} were sent, {windows} judged"


def _served(server: Server, task: str, patience: float) -> str:
    """The version served at the start. An endpoint that is not there is no reason to wait, one that loads its model
    is: `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        found = server.model(patient=False)
        if found["task"] != task:
            raise StateError(f"the endpoint serves task {found['task']!r}, expected {task!r}")
        if found["version"] is not None:
            return str(found["version"])
        if time.monotonic() > end:
            raise StateError(f"the endpoint has no model of task {task!r} yet: {found.get('last_error') or 'it loads'}")
        time.sleep(0.1)


def _resume(checkpoint: Path, stream: Stream, task: str, version: str) -> Progress:
    if not checkpoint.is_file():
        return Progress(key=stream.key, task=task, first_version=version)
    progress = Progress.model_validate_json(checkpoint.read_bytes())
    if progress.key != stream.key:
        raise StateError(f"{checkpoint} belongs to other rows: remove it, or give this replay another name")
    return progress


@dataclass
class _Run:
    """One run of a replay: its collaborators and its progress."""

    stream: Stream
    task: TaskSpec
    versions: Versions
    server: Server
    checkpoint: Path
    judge: Judge
    pace: Pace
    progress: Progress

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.progress.seconds
        self._former = self.progress.requests.model_copy()

    def through(self, tell: Callable[[Judged], None]) -> None:
        """All steps that are left, the labels that arrive after the last row, and the last judgement."""
        windows = steps(self.stream.times, self.task.monitor.windows)
        first = len(self.progress.steps)
        for step in windows[first:]:
            final = step.index == len(windows) - 1
            tell(self._step(step, final))
            if step.index == first:  # all that judges is loaded: thousands of rows set the collector off, which would
                gc.collect()  # walk all that was imported each time
                gc.freeze()
        self.progress.finished = True
        self._save()

    def _step(self, step: Step, final: bool) -> Judged:
        as_of = step.end + self.pace.delay if final else step.end
        whole = not final or is_whole(self.stream.times, step, self.task.monitor.windows)
        rows = counted(step.stop - step.start, "row")
        with waiting(f"{step.begin:%Y-%m-%d}: sending {rows} and the labels that have come"):
            self._send_rows(step)
            self._send_labels(as_of, whole=True)
            self._drain()
        version = self.progress.judging = self.progress.judging or str(self.server.model()["version"])
        self._save()
        began, cpu = time.monotonic(), cpu_seconds()
        judging = waiting(f"{step.begin:%Y-%m-%d}: judging the window, and doing what is due then")
        with judging, self.server.meanwhile(self._asked_before(step)) as counts:
            decided = self.judge(as_of, (step.end if whole else step.begin) if final else None)
            champion = self._champion()
            serving = self._await_version(champion)
        self.progress.background = self.progress.background.plus(counts)
        told = decided if whole else _NOT_JUDGED
        done = decided.get("improvement") or {}
        judged = Judged(
            index=step.index,
            begin=step.begin,
            end=step.end,
            rows=step.stop - step.start,
            version=version,
            champion=champion,
            serving=serving,
            seconds=time.monotonic() - began,
            cpu=cpu_seconds() - cpu,
            severity=told["severity"],
            remedy=told["remedy"],
            by=done.get("by") or "",
            outcome=done.get("outcome") or "",
            not_run=told.get("not_run", "") if told["remedy"] != "none" else "",
            stepped=decided.get("stepped", False),
            no_step=decided.get("no_step", ""),
        )
        self.progress.steps.append(judged)
        self.progress.judging = ""
        self._save()
        return judged

    def _send_rows(self, step: Step) -> None:
        batch = self.stream.at_once(self.pace.batch)
        for start in range(max(step.start, self.progress.rows), step.stop, batch):
            stop = min(start + batch, step.stop)
            self._send_labels(self.stream.times[start].astype("datetime64[us]").item())
            body = {"rows": self.stream.records(start, stop), "ids": self.stream.ids(start, stop)}
            began = time.monotonic()
            self.server.post("/predict", body)
            self.progress.rows = stop
            self._save()
            self._slow_down(stop - start, time.monotonic() - began)

    def _send_labels(self, now: datetime, *, whole: bool = False) -> None:
        """Deliver what has arrived by `now`; unless `whole`, only when a full batch of labels waits."""
        due = min(self.stream.due(now, self.pace.delay), self.progress.rows)
        while (waiting := due - self.progress.labels) > 0 and (whole or waiting >= self.pace.batch):
            stop = self.progress.labels + min(waiting, 5 * self.pace.batch, _MOST_LABELS)
            if labels := self.stream.feedback(self.progress.labels, stop, self.pace.delay):
                self.server.post("/feedback", {"labels": labels})
            self.progress.labels, self.progress.labels_sent = stop, self.progress.labels_sent + len(labels)
            self._save()

    def _drain(self) -> None:
        """Wait until everything acknowledged is in the inference log. Raises `OutsideError` when it never is."""
        if not self._until(lambda: int(self.server.model()["log_backlog"]) == 0):
            backlog = self.server.model()["log_backlog"]
            raise OutsideError(
                f"the endpoint: {counted(backlog, 'record')} still not in the log after {self.pace.patience:.0f} s"
            )

    def _champion(self) -> str:
        champion = self.versions.get(self.task.name, "champion")
        if champion is None:
            raise NoModelError(f"task {self.task.name!r} has no champion any more")
        return champion

    def _await_version(self, champion: str) -> bool:
        """Whether the endpoint came to serve the champion in time; a bundle that it refuses is never served."""
        return self._until(lambda: str(self.server.model()["version"]) == champion)

    def _until(self, reached: Callable[[], bool]) -> bool:
        end = time.monotonic() + self.pace.patience
        while not (done := reached()) and time.monotonic() < end:
            time.sleep(0.05)
        return done

    def _asked_before(self, step: Step) -> list[object]:
        """Single-row requests for rows already predicted, under their own ids: the log knows them and does not grow."""
        start = max(step.stop - _BACKGROUND_ROWS, 0)
        rows, ids = self.stream.records(start, step.stop), self.stream.ids(start, step.stop)
        return [{"rows": [row], "ids": [one]} for row, one in zip(rows, ids, strict=True)]

    def _slow_down(self, rows: int, took: float) -> None:
        if self.pace.rate is not None and (rest := rows / self.pace.rate - took) > 0:
            time.sleep(rest)

    def _save(self) -> None:
        self.progress.requests = self._former.plus(self.server.counts)
        self.progress.seconds = time.monotonic() - self._began
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        partial.write_text(self.progress.model_dump_json(indent=1), encoding="utf-8")
        partial.replace(self.checkpoint)
