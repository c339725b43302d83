"""How far a search has come: a line in the log, a progress artifact of the flow run, and whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

from flows.stages import in_run, say

if TYPE_CHECKING:
    from retrain.search.session import Progress

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
    if listener is None:
        say(line(progress))
    else:
        listener(progress)


def line(progress: Progress) -> str:
    """A progress as one line."""
    of = "" if progress.total is None else f"/{progress.total}"
    parts = [progress.stage, f"{progress.finished}{of}"]
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

    def __call__(self, progress: Progress) -> None:
        tell(progress)
        if in_run() and progress.total and time.monotonic() >= self._next:
            self._next = time.monotonic() + _ARTIFACT_SECONDS
            self._show(100.0 * min(progress.finished / progress.total, 1.0))

    def done(self) -> None:
        """Show the end."""
        if in_run() and self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            self._artifact = create_progress_artifact(percent, key=self._key)
        else:
            update_progress_artifact(self._artifact, progress=percent)
