"""The worker processes of a study: started, watched, and replaced when they die."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from registry.errors import OutsideError
from retrain.search.forkserver import FORKS, LOGS, Forked, ForkServer, environment, log_of, take
from retrain.search.journal import locked
from retrain.search.tally import WORKING

MODULE = "retrain.search.worker"
SPARE = 3


class Crew:
    """Worker processes of one study's folder, one thread each. They may start before the study is ready, and end by
    themselves when its budget is spent or this process is gone."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.spare = SPARE
        self.started = 0
        self._server: ForkServer | None = None
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        self.processes: list[Forked | subprocess.Popen[bytes]] = []
        self.grow(size)

    @property
    def working(self) -> bool:
        """Whether any process is alive."""
        return any(process.poll() is None for process in self.processes)

    def bury(self) -> list[int]:
        """The ids of processes that died of something else than the end of their work, since the last call."""
        dead = [process for process in self.processes if process.poll() not in (None, 0)]
        self.processes = [process for process in self.processes if process.poll() is None]
        if dead and self._server is not None and not self._server.alive:
            with locked(self.folder / WORKING):  # forks that have lost their server end within half a second
                pass
        return [process.pid or 0 for process in dead]

    def replace(self, count: int) -> None:
        """Start others in their place. Raises `OutsideError` with the last words of one when too many have died: those
        that their server has taken along count as one."""
        deaths = 1 if self._server is not None and not self._server.alive else count
        if deaths > self.spare:
            raise OutsideError(
                f"search workers keep dying ({SPARE - self.spare + deaths} times so far), the last one said: "
                f"{self._words()}"
            )
        self.spare -= deaths
        self.grow(count)

    def grow(self, count: int) -> None:
        """Start more."""
        self.processes += [self._start() for _ in range(count)]

    def stop(self) -> None:
        """End all processes."""
        if self._server is not None:
            self._server.close()
        for process in self.processes:
            if isinstance(process, subprocess.Popen):
                process.kill()
                process.wait()

    def _start(self) -> Forked | subprocess.Popen[bytes]:
        number = self.started
        self.started += 1
        if not FORKS:
            return spawn(self.folder, number)
        if self._server is None or not self._server.alive:
            self._server = take()
        return self._server.start(self.folder, number)

    def _words(self) -> str:
        logs = sorted((self.folder / LOGS).glob("*.log"), key=lambda path: path.stat().st_mtime)
        said = [path.read_text(errors="replace") for path in logs]
        said += [] if self._server is None else [self._server.words]
        lines = [line for one in said for line in one.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing; were they killed?"


def spawn(folder: Path, number: int) -> subprocess.Popen[bytes]:
    """A worker that imports everything itself."""
    with log_of(folder, number).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(folder), str(number), str(os.getpid())],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
