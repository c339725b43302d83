"""How far a search has come: a line in the log, a progress artifact of the flow run, and whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, cast
from uuid import UUID

from flows.stages import in_run, say

if TYPE_CHECKING:
    from retrain.search.progress import Progress

_LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)
_ARTIFACT_SECONDS = 2.0


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Give every progress of the searches run inside to `listener`, instead of the log."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(progress: Progress) -> None:
    """Give a progress to the listener, or to the log where nobody listens."""
    listener = _LISTENER.get()
    if listener is None or progress.lasting:
        say(line(progress))
    if listener is not None:
        listener(progress)


def note(text: str) -> None:
    """A sentence on a search, for the log and for whoever listens."""
    from retrain.search.progress import Progress

    tell(Progress("search", 0, None, None, "", 0.0, text, lasting=True))


def line(progress: Progress) -> str:
    """A progress as one line. Of a stage without trials it is what goes on; it may take longer than the budget."""
    if progress.lasting:
        return progress.message
    if progress.total is None:
        parts = [": ".join([progress.stage, *([progress.message] if progress.message else [])])]
        return ", ".join([*parts, *([f"{progress.seconds_left:.0f} s left"] if progress.seconds_left >= 0.5 else [])])
    parts = [progress.stage, f"{progress.finished}/{progress.total}"]
    if progress.best is not None:
        parts.append(f"best {progress.metric} {progress.best:.4f}")
    parts.append(f"{progress.seconds_left:.0f} s left")
    return ", ".join([*parts, *([progress.message] if progress.message else [])])


class Reporter:
    """A search's progress callback: tells it, and keeps the flow run's progress artifact near it."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._artifact: UUID | None = None
        self._next = 0.0
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        if progress != self._last and (_LISTENER.get() is not None or _news(progress, self._last)):
            tell(progress)
            self._last = progress
        if in_run() and progress.total and time.monotonic() >= self._next:
            self._next = time.monotonic() + _ARTIFACT_SECONDS
            self.show(100.0 * min(progress.finished / progress.total, 1.0))

    def show(self, percent: float) -> None:
        """Make or move the progress artifact of the flow run."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            self._artifact = cast("UUID", create_progress_artifact(percent, key=self._key))  # no coroutine: sync code
        else:
            update_progress_artifact(self._artifact, progress=percent)


def _news(progress: Progress, last: Progress | None) -> bool:
    """Whether more than the time left has changed: a log needs no line for that."""
    return last is None or replace(progress, seconds_left=last.seconds_left) != last


@contextmanager
def reported(key: str) -> Iterator[Reporter]:
    """A reporter whose artifact is full at the end."""
    reporter = Reporter(key)
    yield reporter
    if in_run():
        reporter.show(100.0)
