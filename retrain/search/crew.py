"""The worker processes of a study: started, watched, and replaced when they die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import retrain
from registry.errors import OutsideError

LOGS = "workers"
MODULE = "retrain.search.worker"
SPARE = 3
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Crew:
    """Worker processes of one study's folder, one thread each. They may start before the study is ready, and end by
    themselves when its budget is spent or this process is gone."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.spare = SPARE
        self.started = 0
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        self.processes = [self._start() for _ in range(size)]

    @property
    def working(self) -> bool:
        """Whether any process is alive."""
        return any(process.poll() is None for process in self.processes)

    def bury(self) -> list[int]:
        """The ids of processes that died of something else than the end of their work, since the last call."""
        dead = [process for process in self.processes if process.poll() not in (None, 0)]
        self.processes = [process for process in self.processes if process.poll() is None]
        return [process.pid for process in dead]

    def replace(self, count: int) -> None:
        """Start others in their place. Raises `OutsideError` with the last words of one when too many have died."""
        if count > self.spare:
            raise OutsideError(
                f"search workers keep dying ({SPARE + count} so far), the last one said: {self._words()}"
            )
        self.spare -= count
        self.processes += [self._start() for _ in range(count)]

    def stop(self, grace: float = 0.0) -> None:
        """End all processes, after up to `grace` seconds in which they may end by themselves."""
        end = time.monotonic() + grace
        for process in self.processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        number = self.started
        self.started += 1
        root = str(Path(retrain.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with (self.folder / LOGS / f"{number}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", MODULE, str(self.folder), str(number), str(os.getpid())],
                env={**os.environ, **THREADS, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _words(self) -> str:
        logs = sorted((self.folder / LOGS).glob("*.log"), key=lambda path: path.stat().st_mtime)
        lines = [line for path in logs for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "nothing; were they killed?"
