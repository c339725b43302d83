"""Workers that are forks of one process which has imported what they need: `python -m retrain.search.forkserver`.

What a worker imports takes seconds of CPU-time. The fork server takes them once, while the study is prepared; a fork of
it takes milliseconds, and shares its memory. It imports and nothing else: it has one thread, so that none holds a lock
at a fork, and it never computes, as autograd's threads do not survive one.

Packets of JSON go over a pair of sockets, which is the server's standard input too:

    {"start": 0, "folder": "..."}                             to it
    {"number": 0, "pid": 7}, {"number": 0, "code": -9}        from it

The server kills its workers and ends when the other end of the pair is closed, as that of a killed process is; a worker
ends when the server has gone. Linux only: on macOS the system's libraries are not made to be forked.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import retrain

MODULE = "retrain.search.forkserver"
LOGS = "workers"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PACKET = 65_536
FORKS = sys.platform == "linux"
"""Whether workers are forked from a process that has imported what they need. Elsewhere each imports it anew."""
END_SECONDS = 10.0
"""How long a server may take to end its workers before it is killed; they end by themselves then."""


_spare: list[ForkServer] = []


def begin() -> None:
    """Start a server for the next study of this process, which needs a while itself before it has one."""
    if FORKS and not _spare:
        _spare.append(ForkServer())


def take() -> ForkServer:
    """The server that was begun, or one that is started now."""
    found = _spare.pop() if _spare else None
    return found if found is not None and found.alive else ForkServer()


def environment() -> dict[str, str]:
    """A worker's: one thread, and this code first. `-m` would put the folder that the user is in before all of it."""
    root = str(Path(retrain.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **THREADS, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def log_of(folder: Path, number: int) -> Path:
    """Where a worker's output goes."""
    return folder / LOGS / f"{number}.log"


class Forked:
    """A worker that a server has forked, or will when it is ready; used like a `subprocess.Popen`."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, when it has ended."""
        self._server.hear()
        return self.returncode


class ForkServer:
    """The server's process, seen from the one that has started it. `words` are its last ones: nothing, unless it has
    failed."""

    def __init__(self) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server runs
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                env=environment(),
                stdin=other.fileno(),
                stdout=said,
                stderr=said,
            )
        self._workers: dict[int, Forked] = {}
        self.words = ""
        self._end = weakref.finalize(self, _end, process, self._socket, said)

    @property
    def alive(self) -> bool:
        """Whether it can be asked for workers."""
        self.hear()
        return self._end.alive

    def start(self, folder: Path, number: int) -> Forked:
        """Worker `number` of the study in `folder`."""
        worker = self._workers[number] = Forked(self)
        self._send({"start": number, "folder": str(folder)})
        return worker

    def hear(self) -> None:
        """Take in what it has told."""
        while self._end.alive:
            try:
                packet = self._socket.recv(PACKET, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self.close()
                return
            self._note(json.loads(packet))

    def close(self) -> None:
        """End it and all its workers."""
        self.words = self._end() or self.words
        for worker in self._workers.values():
            worker.returncode = -signal.SIGKILL if worker.returncode is None else worker.returncode

    def _note(self, told: dict[str, Any]) -> None:
        worker = self._workers[told["number"]]
        worker.pid = told.get("pid", worker.pid)
        worker.returncode = told.get("code")

    def _send(self, asked: dict[str, Any]) -> None:
        with suppress(OSError):  # it has gone, which the next look finds out
            self._socket.send(json.dumps(asked).encode())


def _end(process: subprocess.Popen[bytes], ours: socket.socket, said: BinaryIO) -> str:
    """End the server; what it has said."""
    ours.close()
    process.terminate()  # while it imports; later it minds the socket alone
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with said:
        said.seek(0)
        return said.read().decode(errors="replace")


class _Server:
    """The loop of the server's own process."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._numbers: dict[int, int] = {}
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Until the other end of the socket is closed."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that it is woken
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        try:
            while self._hear():
                self._reap()
        finally:
            for pid in self._numbers:
                os.kill(pid, signal.SIGKILL)
            for pid in self._numbers:
                os.waitpid(pid, 0)  # what it has computed is counted with this process

    def _hear(self) -> bool:
        watched: list[Any] = [self._socket, self._woken]
        ready, _, _ = select.select(watched, [], [])
        if self._woken in ready:
            os.read(self._woken, PACKET)
        if self._socket in ready:
            packet = self._socket.recv(PACKET)
            if not packet:
                return False
            asked = json.loads(packet)
            self._fork(Path(asked["folder"]), asked["start"])
        return True

    def _reap(self) -> None:
        for pid in list(self._numbers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"number": self._numbers.pop(pid), "code": code})

    def _fork(self, folder: Path, number: int) -> None:
        parent = os.getpid()
        if pid := os.fork():
            self._numbers[pid] = number
            self._tell({"number": number, "pid": pid})
            return
        code = 1
        try:
            self._leave(log_of(folder, number))
            from retrain.search import worker

            worker.main(folder, number, parent)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)  # nothing of the server's may run here, and taking torch down takes seconds

    def _leave(self, log: Path) -> None:
        """What is the server's own is not its worker's."""
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self._socket.close()
        os.close(self._woken)
        os.close(self._wakes)
        nothing, said = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for old, new in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(old, new)

    def _tell(self, told: dict[str, Any]) -> None:
        self._socket.send(json.dumps(told).encode())


def serve() -> None:
    """Import what workers need, and fork them as they are asked for."""
    gc.disable()  # what is imported stays: looking through it again and again takes a seventh of the time
    from retrain.fabric import make_fabric
    from retrain.search import worker

    del worker
    make_fabric()
    gc.collect()
    gc.freeze()  # a collector that looked at what forks share would copy it
    gc.enable()
    with suppress(KeyboardInterrupt, ConnectionError):
        _Server(socket.socket(fileno=os.dup(0))).run()
    os._exit(0)


if __name__ == "__main__":
    serve()
