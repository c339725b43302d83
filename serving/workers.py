"""Several workers behind one port: processes that share its socket, each with a journal and a keeper of its own.

    python -m serving TASK ...                      opens the port, starts the workers, and minds them
      `- python -m serving --worker PORT,LIFE TASK ...    one worker; PORT and LIFE are handles of the parent's

Requests go to whichever worker takes them first. All write into one inference log: records have ids, and each worker's
journal is its own, so that nothing is written twice or by two at once. A worker that ends unexpectedly is replaced;
when the parent goes, however it goes, LIFE ends and the workers with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from registry.errors import StateError
from registry.settings import Settings
from serving.presence import begin, present, workers_folder
from serving.server import INTERRUPTED

BACKLOG = 4096
AGAIN_SECONDS = 1.0
TICK_SECONDS = 0.1
WRONG_INPUT = 2


class PortError(StateError):
    """The port cannot be listened on."""


def open_port(settings: Settings, number: int | None = None) -> socket.socket:
    """The endpoint's port, or another one of its address, bound: workers share it. Raises `PortError`."""
    number = number or settings.port
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    port = socket.socket(family, socket.SOCK_STREAM)
    try:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((settings.host, number))
        port.listen(BACKLOG)
    except OSError as error:
        port.close()
        raise PortError(f"{settings.host}:{number} cannot be listened on: {error.strerror}") from error
    return port


def serve_together(settings: Settings, tasks: Sequence[str]) -> int:
    """Start the workers and mind them until told to stop; the exit code. Raises `PortError`, and `OutsideError` where
    they cannot tell one another what they serve."""
    with open_port(settings) as port, present(settings, tasks):
        begin(workers_folder(settings), tasks)  # once more: here nothing can be done without it
        ours, theirs = os.pipe()
        handles = port.fileno(), ours
        command = [sys.executable, "-m", "serving", "--worker", f"{handles[0]},{handles[1]}", *tasks]
        minder = Minder(lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=handles), settings.workers)
        for one, code in ((signal.SIGTERM, 0), (signal.SIGINT, INTERRUPTED)):
            signal.signal(one, lambda *_, code=code: minder.stop(code))
        try:
            return minder.run()
        finally:
            os.close(theirs)
            os.close(ours)


class Minder:
    """Keeps so many workers running, until told to stop."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]], count: int) -> None:
        self._start, self._stopping, self._code = start, False, 0
        self._workers = [start() for _ in range(count)]

    def run(self) -> int:
        """Return when all have ended: the code that `stop` gave, 2 when they say that what they were given is wrong."""
        while any(worker.poll() is None for worker in self._workers):
            time.sleep(TICK_SECONDS)
            for place, worker in enumerate(self._workers):
                if (code := worker.poll()) == WRONG_INPUT:
                    self.stop()
                elif code is not None and not self._stopping:
                    print(f"worker {worker.pid} ended unexpectedly ({code}): another one starts", file=sys.stderr)
                    time.sleep(AGAIN_SECONDS)
                    self._workers[place] = self._start()
        return WRONG_INPUT if any(worker.poll() == WRONG_INPUT for worker in self._workers) else self._code

    def stop(self, code: int = 0) -> None:
        """Tell the workers to stop; `code` is what `run` returns then."""
        self._stopping, self._code = True, code
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)


def end_with(life: int) -> None:
    """Have this process end, as if told to, when the other end of a pipe is closed."""

    def wait() -> None:
        with suppress(OSError):
            os.read(life, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="life", daemon=True).start()
