"""What goes on while nothing is printed: a line that counts seconds on a terminal; elsewhere one line, once it lasts.

Only the standard library is imported here: what takes long may be an import.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

LONG_SECONDS = 5.0
"""After so long it is told where there is no terminal."""

_SHORT_SECONDS = 0.5


@contextmanager
def waiting(what: str, stream: TextIO | None = None, *, long: float = LONG_SECONDS) -> Iterator[None]:
    """Say on a stream, stderr by default, what is waited for while the body, which prints nothing, runs. On a terminal
    nothing is left of it at the end."""
    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(what, stream or sys.stderr, long, done), name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(what: str, stream: TextIO, long: float, done: threading.Event) -> None:
    if not stream.isatty():
        if not done.wait(long):
            _write(stream, f"{what} ...\n")
        return
    began, width = time.monotonic(), 0
    while not done.wait(1.0 if width else _SHORT_SECONDS):
        text = f"{what}, {time.monotonic() - began:.0f} s"
        _write(stream, f"\r{text}")
        width = len(text)
    if width:
        _write(stream, f"\r{'':<{width}}\r")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
