"""A process that answers without pandas: 80 MB less for each worker, and a start that is a third of a second shorter.

Nothing on the path of a request has a frame. But pyarrow, where it is loaded, tries to import pandas when it first
makes an array, and would do so in the middle of somebody's request.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import NamedTuple

QUIET_SECONDS = 1.0

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-xp .* (/.*)\n").match


class _Hidden:
    """Says that pandas is not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise for pandas; leave all else to others."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is hidden", name=name)


def return_memory() -> None:
    """Have Arrow, which is not loaded yet, take its memory from the system's allocator: its own keeps what large
    requests took, 18 MB of them."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"


def hide_pandas() -> None:
    """Have this process do without pandas from now on, unless it is loaded already."""
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _Hidden())


class Tidy:
    """Has the allocator give back what large requests took, 7 MB, when none of them has come for a moment, and the
    system forget the libraries' code that is mapped: most of it ran once, when the process began."""

    def __init__(self, seconds: float = QUIET_SECONDS) -> None:
        self._seconds, self._code = seconds, set(mapped_code())
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        self._due: asyncio.TimerHandle | None = None

    def later(self) -> None:
        """A large request was answered. Belongs to the event loop, which does not wait for it: some milliseconds, and
        .3 for each MB."""
        if self._due is not None:
            self._due.cancel()
        loop = asyncio.get_running_loop()
        self._due = loop.call_later(self._seconds, loop.run_in_executor, None, self._tidy)

    def _tidy(self) -> None:
        if self._trim is not None:
            self._trim(0)
        known, self._code = self._code, set(mapped_code())
        forget(known & self._code)  # what came since may be half loaded, by another thread


@cache
def tidy() -> Tidy:
    """The process's own."""
    return Tidy()


class Code(NamedTuple):
    """A file's code in this process's memory: from where to where, and the file."""

    begin: int
    end: int
    file: str


def forget(code: Iterable[Code]) -> None:
    """Take code out of this process's memory; whatever is called again comes back from the system's cache of files, 64
    KB in some microseconds. Harmless, since only what is as the file has it is taken: see `mapped_code`."""
    if (advise := getattr(ctypes.CDLL(None), "madvise", None)) is not None:
        for one in code:
            advise(ctypes.c_void_p(one.begin), ctypes.c_size_t(one.end - one.begin), mmap.MADV_DONTNEED)


def mapped_code() -> Iterator[Code]:
    """What is mapped to be run, cannot be written, and has no page of its own: Linux alone tells. Others find none."""
    with suppress(OSError), open("/proc/self/smaps", errors="replace") as file:  # paths are bytes
        found: Code | None = None
        for line in file:
            if (head := _MAPPING(line)) is not None:
                begin, end, path = head.groups()
                found = Code(int(begin, 16), int(end, 16), path)
            elif line.startswith(("Anonymous:", "Swap:")) and line.split()[1] != "0":
                found = None
            elif found is not None and line.startswith("Swap:"):  # the later of the two
                yield found
                found = None
