"""Whose turn it is to judge a task: one pass at a time, and none of another's while a replay judges.

A replay stands at the time of the rows that it sends. A pass of the schedule, which stands at the newest rows logged,
would see its windows before their labels are sent, and judge them by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.stages import deployed, say
from flows.workplace import Workplace
from registry.errors import BusyError
from registry.locks import exclusive, holder

WAIT_SECONDS = 60.0
"""How long a pass waits for another one of the same task."""

_LOOK_SECONDS = 2.0
"""For so long somebody who only looks may hold a replay's lock."""


@contextmanager
def turn(place: Workplace) -> Iterator[None]:
    """Watch one at a time a task: two passes at once would measure the same windows. Raises `BusyError`."""
    with exclusive(_lock(place, "watch"), f"a watch pass over task {place.task.name}", patience=WAIT_SECONDS):
        yield


@contextmanager
def replaying(place: Workplace) -> Iterator[None]:
    """Replay a task, and be the only one that judges it. Raises `BusyError` while another replay of it runs."""
    with exclusive(_lock(place, "replay"), f"a replay for task {place.task.name}", patience=_LOOK_SECONDS):
        yield


def require_no_replay(place: Workplace) -> None:
    """Raise `BusyError` while a replay judges the task: who asked by hand is told whom to wait for."""
    if (who := holder(_lock(place, "replay"))) is not None:
        raise BusyError(
            f"a replay judges task {place.task.name} ({who}): wait for its end or interrupt it; "
            "`everfit monitor --as-of` judges as of a moment that you name"
        )


def left_alone(place: Workplace) -> str | None:
    """Why a pass "now" leaves the task alone: a replay judges it. None where it is free. Raises `BusyError` outside of
    a deployment: only the schedule comes again by itself."""
    try:
        require_no_replay(place)
    except BusyError as busy:
        if not deployed():
            raise
        say(f"nothing was looked at: {busy}")
        return str(busy)
    return None


def _lock(place: Workplace, what: str) -> Path:
    return place.lock.with_name(f"{what}-{place.task.name}.lock")
