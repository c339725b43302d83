"""What a process and its descendants take: memory, watched while something runs, and CPU time."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil


class MemoryWatch:
    """Samples the memory of this process and its descendants in a thread; `peak` is in bytes.

    Proportional set size where the system tells it (Linux), else unique set size: shared pages count once.
    """

    def __init__(self, every: float = 1.0) -> None:
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0
        self.at_peak: dict[str, int] = {}

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            found = sample()
            if (total := sum(found.values())) > self.peak:
                self.peak, self.at_peak = total, found


def sample() -> dict[str, int]:
    """Bytes now, by process: `pid command`. A process that ends meanwhile is passed over."""
    found: dict[str, int] = {}
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            memory = process.memory_full_info()
            found[f"{process.pid} {_short(process.cmdline())}"] = getattr(memory, "pss", 0) or memory.uss
        except psutil.Error:
            continue
    return found


def _short(command: list[str]) -> str:
    return " ".join(part.rsplit("/", 1)[-1] for part in command[:4])[:60]
