"""One at a time: a lock that the system gives back when its holder dies, however it dies.

>>> from tempfile import mkdtemp
>>> place = Path(mkdtemp()) / "search.lock"
>>> with exclusive(place, "a search of task flights"):
...     try:
...         with exclusive(place, "a search of task flights"):
...             pass
...     except BusyError as error:
...         str(error).startswith(f"a search of task flights cannot begin: process {os.getpid()} is busy with the same")
True
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from registry.errors import BusyError, StoreError

_LOOK_SECONDS = 0.1


@contextmanager
def exclusive(path: Path, what: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file for the length of a block. `what` is what is done under it, as messages say it.

    Raises `BusyError`, naming the process that holds it, what for, since when, and what to do, if another process or
    thread does, and still does after `patience` seconds; `StoreError` if the file cannot be written. The file stays
    behind, unlocked: it may be deleted when nothing runs.
    """
    file, end = _open(path), time.monotonic() + patience
    try:
        while not _taken(file):
            if time.monotonic() >= end:
                raise BusyError(f"{what} cannot begin: {_in_the_way(file, what)}; the lock is {path}")
            time.sleep(_LOOK_SECONDS)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n{what}\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: the lock cannot be opened ({error.strerror})") from error


def holder(path: Path) -> str | None:
    """Who holds the lock of a file now, and what for; None where nobody does, or one may not look. To look, the lock is
    shared for a moment, with others who look: who takes one that is looked at should have some patience."""
    try:
        file = os.open(path, os.O_RDONLY)  # in a home that one may only read, too
    except OSError:
        return None
    try:
        return None if _taken(file, fcntl.LOCK_SH) else _holder(file)
    finally:
        os.close(file)


def _taken(file: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> str:
    """Who wrote the lock's file last."""
    pid, what, _ = _written(file)
    return f"process {pid}: {what}" if pid.isdigit() else "another process"


def _in_the_way(file: int, what: str) -> str:
    """Who holds the lock, for what and since when, and what to do about it. Who only looks has not written in it, and
    of a process in another container the number says nothing here."""
    pid, its, since = _written(file)
    begun = f" since {since}" if since else ""
    if not pid.isdigit() or not _is_there(int(pid)):
        return "another process has the lock: try again later"
    work = "the same" if its == what else its
    return f"process {pid} is busy with {work}{begun}: wait until it ends, or end it (kill {pid})"


def _written(file: int) -> tuple[str, str, str]:
    """The process, what it does and since when; the last is empty in a file of an older Everfit."""
    pid, what, since = (*os.pread(file, 1000, 0).decode(errors="replace").split("\n"), "", "", "")[:3]
    return pid, what.strip(), since.strip()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
