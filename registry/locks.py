"""One at a time: a lock that the system gives back when its holder dies, however it dies.

>>> from tempfile import mkdtemp
>>> place = Path(mkdtemp()) / "search.lock"
>>> with exclusive(place, "a search of task flights"):
...     try:
...         with exclusive(place, "a search of task flights"):
...             pass
...     except BusyError as error:
...         str(error).startswith("a search of task flights is already running (process ")
True
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import BusyError, StoreError


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a file for the length of a block. `what` is what is done under it, as messages say it.

    Raises `BusyError` at once, naming the process that holds it, if another process or thread does; `StoreError` if the
    file cannot be written. The file stays behind, unlocked: it may be deleted when nothing runs.
    """
    file = _open(path)
    try:
        _take(file, path, what)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n{what}\n".encode(), 0)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: the lock cannot be opened ({error.strerror})") from error


def _take(file: int, path: Path, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"{what} is already running ({_holder(file)}); its lock is {path}") from error


def _holder(file: int) -> str:
    """Who wrote the lock's file last."""
    pid, _, what = os.pread(file, 1000, 0).decode(errors="replace").partition("\n")
    return f"process {pid}: {what.strip()}" if pid.isdigit() else "another process"
