"""What monitoring found, for `/metrics`: the ledger's newest windows and decision, read in the background.

A scrape never waits for the store. Every so many seconds a thread asks for what is new in the ledger; while the store
is away the last values stay, and `everfit_monitoring_age_seconds` says how old they are. What becomes of a window is
decided by `monitor/`; here its numbers are only picked out of the entries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from registry.decisions import DISTANCE, Severity
from registry.errors import words_of
from serving.catalogue import Sample

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from registry.ledger import Entry

WINDOWS = 24
"""Windows that are read at the start, and remembered: among them is the newest one with labels, if labels are late."""

MOST_COLUMNS = 100
"""Columns that are shown each; of more the furthest."""

SURE = 0.01
"""The p-value up to which a column that moved counts as shifted. What monitoring names needs evidence over windows
beside it."""

_SEVERITIES: tuple[str, ...] = get_args(Severity)
_LOG = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Window:
    """The numbers of one window. `written` is when it was measured last, in seconds since 1970."""

    written: float
    samples: tuple[Sample, ...]
    performance: tuple[Sample, ...]
    """And coverage; nothing while no label has arrived."""


@dataclass
class Findings:
    """What is known of one task."""

    last: int = 0
    windows: dict[float, Window] = field(default_factory=dict)
    """By the end of the window, in event time."""
    decision: Entry | None = None
    """On the newest window; what a replay of an older time decides is none."""
    decided: float = 0.0
    """When the last decision was written."""
    read_at: float | None = None
    up: bool = False

    def take(self, entries: Iterable[Entry]) -> None:
        """Take in entries, oldest first."""
        for entry in entries:
            written = _seconds(entry.written or entry.at)
            if entry.kind == "decision":
                self.decided = written
                if self.decision is None or _order(entry) >= _order(self.decision):
                    self.decision = entry
            else:
                self.windows[_seconds(entry.at)] = _window(entry, written)
            self.last = max(self.last, entry.id or 0)
        for end in sorted(self.windows)[:-WINDOWS]:
            del self.windows[end]

    def samples(self, now: float, clock: float) -> Iterator[Sample]:
        """The metrics; `now` is the wall clock, `clock` the monotonic one."""
        yield Sample("everfit_monitoring_up", self.up)
        if self.read_at is not None:
            yield Sample("everfit_monitoring_age_seconds", clock - self.read_at)
        if self.decision is not None:
            yield Sample("everfit_decision_timestamp_seconds", self.decided)
            if _is_judged(self.decision):  # else `ok` is no good news
                for one in _SEVERITIES:
                    yield Sample("everfit_severity", one == self.decision.severity, (one,))
        if not self.windows:
            return
        newest = max(self.windows)
        yield Sample("everfit_window_end_timestamp_seconds", newest)
        yield Sample("everfit_window_age_seconds", max(0.0, now - self.windows[newest].written))
        yield from self.windows[newest].samples
        labelled = max((end for end, window in self.windows.items() if window.performance), default=None)
        if labelled is not None:
            yield Sample("everfit_performance_age_seconds", max(0.0, now - self.windows[labelled].written))
            yield from self.windows[labelled].performance


class Monitored:
    """Belongs to one event loop; reads in one thread."""

    def __init__(self, store: str, seconds: float, tasks: Callable[[], Iterable[str]]) -> None:
        """`store` is its URL; it is asked every so many `seconds` for what is new of the `tasks`."""
        self._store, self._seconds, self._tasks = store, seconds, tasks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._engine: Engine | None = None
        self._known: dict[str, Findings] = {}

    async def follow(self) -> None:
        """Read again and again, until cancelled."""
        while True:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._look, list(self._tasks()))
            await asyncio.sleep(self._seconds)

    async def close(self, following: asyncio.Task[None]) -> None:
        """Read no more. A read that waits for a store which is away is not waited for here."""
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        self._pool.submit(self._dispose)
        self._pool.shutdown(wait=False)

    def samples(self, task: str) -> Iterator[Sample]:
        """A task's metrics."""
        return self._known.get(task, Findings()).samples(time.time(), time.monotonic())

    def _look(self, tasks: list[str]) -> None:
        """One look. No fault of the store, of whatever kind, may end the looking."""
        known = {task: self._known.get(task) or Findings() for task in tasks}
        self._known = known
        for task, found in known.items():
            try:
                self._read(task, found)
            except Exception as error:  # noqa: BLE001 - an entry that cannot be read is the operator's business too
                self._fail(task, found, words_of(error))

    def _read(self, task: str, found: Findings) -> None:
        from registry.database import open_engine  # here, not at the start: SQLAlchemy takes a while to import
        from registry.ledger import Ledger

        if self._engine is None:
            self._engine = open_engine(self._store)
        ledger = Ledger(self._engine, task)
        if found.last:
            entries = ledger.read(kinds=("window", "decision"), since=found.last)
        else:
            entries = ledger.read(kinds=("window",), last=WINDOWS) + ledger.read(kinds=("decision",), last=1)
        found.take(entries)
        found.read_at, found.up = time.monotonic(), True

    def _fail(self, task: str, found: Findings, why: str) -> None:
        if found.up or found.read_at is None:
            _LOG.warning("task %r: the ledger cannot be read for /metrics: %s", task, why)
            found.read_at = found.read_at or time.monotonic()
        found.up = False

    def _dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()


def _is_judged(decision: Entry) -> bool:
    """Whether there was a window to decide on."""
    return decision.details.get("window", True) is not None


def _order(decision: Entry) -> tuple[bool, datetime]:
    """A decision on a window counts before all that found none."""
    return _is_judged(decision), decision.at


def _window(entry: Entry, written: float) -> Window:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in entry.details.get("measurements", ()):
        by_name.setdefault(one["name"], []).append(one)
    labels = (entry.version or "", str(entry.details.get("metric", "")))
    samples = (*_volume(entry.details, by_name), *_shift(by_name), *_expected(by_name, labels))
    return Window(written, tuple(samples), tuple(_performance(by_name, labels)))


def _volume(details: Mapping[str, Any], by_name: Mapping[str, list[dict[str, Any]]]) -> Iterator[Sample]:
    counts = {one.get("subject"): one.get("value") for one in by_name.get("volume", ())}
    yield Sample("everfit_window_rows", details["window"]["rows"])
    yield Sample("everfit_window_labelled_rows", counts.get("labelled") or 0.0)


def _shift(by_name: Mapping[str, list[dict[str, Any]]]) -> Iterator[Sample]:
    found = [one for one in by_name.get("shift", ()) if one.get("value") is not None]
    moved = [one for one in found if one["value"] >= DISTANCE and one.get("p_value", 1.0) < SURE]
    yield Sample("everfit_window_columns", len(found))
    yield Sample("everfit_window_shifted_columns", len(moved))
    for one in sorted(found, key=lambda one: -one["value"])[:MOST_COLUMNS]:
        yield Sample("everfit_window_column_shift", one["value"], (str(one.get("subject")),))
    for one in by_name.get("domain_shift", ()):
        if one.get("value") is not None:
            yield Sample("everfit_window_domain_shift", one["value"])


def _expected(by_name: Mapping[str, list[dict[str, Any]]], labels: tuple[str, ...]) -> Iterator[Sample]:
    for one in by_name.get("estimated", ())[:1]:
        if one.get("value") is not None:
            yield Sample("everfit_performance_estimated", one["value"], labels)


def _performance(by_name: Mapping[str, list[dict[str, Any]]], labels: tuple[str, ...]) -> Iterator[Sample]:
    found = next((one for one in by_name.get("performance", ()) if one.get("value") is not None), None)
    if found is None:
        return
    parts = {"value": "", "error": "_error", "reference": "_reference"}
    for key, suffix in parts.items():
        if found.get(key) is not None:
            yield Sample(f"everfit_performance{suffix}", found[key], labels)
    names = {"value": "everfit_window_coverage", "reference": "everfit_window_coverage_promised"}
    for one in by_name.get("coverage", ())[:1]:
        yield from (Sample(name, one[key]) for key, name in names.items() if one.get(key) is not None)


def _seconds(moment: datetime) -> float:
    """Seconds since 1970 of a moment in UTC without zone."""
    return moment.replace(tzinfo=UTC).timestamp()
