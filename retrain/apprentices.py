"""Processes that train networks beside this one: forks of a process that has imported what they need.

`apprentices` gives what trains a step's networks, each on one thread and from its own seed, so that it is the same
whoever trains it. This process trains too; whoever is free takes the next one, the longest first. Rows and weights go
over as files in memory that have no name (`memfd_create`): a kill leaves nothing behind, and rows are there once for
all. What an apprentice that dies has not given back is trained here.

The process that is forked (`search/forkserver.py`) takes seconds to import. It is begun once trainings have taken this
process `WORTH`, is kept for its next steps, and ends with it, however that ends. Linux only.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

import torch
from safetensors import SafetensorError
from torch import nn

from registry.cores import cores
from registry.energy import count
from retrain.exercises import Exercise, rows_as_bytes, rows_of_file, weights_of
from retrain.search.forkserver import FORKS, ForkServer

_LOG = logging.getLogger("everfit")

WORTH = 9.0
"""CPU-seconds of trainings, past ones of this process and those at hand, from which on apprentices are begun: one of
two processes is spared more by then than the three that the imports take."""
SMALL = 0.25
"""A step of fewer CPU-seconds is trained here: rows, weights and forks cost some hundredths."""
MOST_BYTES = 2**28
"""Rows of a step that are copied for apprentices at most."""
SERVERS = 3
"""So often the process that is forked is begun anew at most: one that keeps dying is not waited for."""
LOOK_SECONDS, END_SECONDS = 0.02, 2.0
LOST = "it was killed, or has failed"

_numbers = itertools.count()


class _Past:
    """What this process has trained so far: CPU-seconds, and how much work that was."""

    def __init__(self) -> None:
        self.seconds = self.work = 0.0

    def expected(self, exercises: Sequence[Exercise]) -> float:
        """CPU-seconds that these will take; 0 while nothing is known."""
        return self.seconds / self.work * sum(one.work for one in exercises) if self.work else 0.0

    def train(self, exercise: Exercise) -> nn.Module | None:
        """Train here, and remember how long it took."""
        begun = time.thread_time()
        network = exercise.done()
        self.seconds += time.thread_time() - begun
        self.work += exercise.work
        return network


class _Kept:
    """The process that is forked, if there is one that this process has begun."""

    def __init__(self) -> None:
        self._found: ForkServer | None = None
        self._owner, self._left = os.getpid(), SERVERS

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return self._found is not None and self._owner == os.getpid() and self._found.alive

    @property
    def possible(self) -> bool:
        """Whether it is there, or may be begun."""
        return self.alive or (self._owner == os.getpid() and self._left > 0)

    def get(self) -> ForkServer:
        """It, begun where it is not there."""
        if self._found is None or not self._found.alive:
            self._left -= 1
            self._found = ForkServer()
            count(self._found.pid)
        return self._found


_past, _kept, _taken = _Past(), _Kept(), threading.Lock()


@contextmanager
def apprentices(most: int) -> Iterator[Crew]:
    """So many processes at most, this one among them, and no more than cores, for as long as the block lasts. One block
    of a process has others at a time."""
    mine = FORKS and _taken.acquire(blocking=False)
    crew = Crew(min(most, cores()) - 1 if mine else 0)
    try:
        yield crew
    finally:
        crew.close()
        if mine:
            _taken.release()


class Crew:
    """This process, and as many apprentices at most, of which there is none before it pays."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._apprentices: list[Apprentice] = []

    def train(self, exercises: Sequence[Exercise]) -> list[nn.Module | None]:
        """Each exercise's network after it, None where it has diverged."""
        found = self._together(exercises) if self._pays(exercises) else {}
        return [found[place] if place in found else _past.train(one) for place, one in enumerate(exercises)]

    def close(self) -> None:
        """Let the apprentices go; what they took is counted then."""
        for one in self._apprentices:
            one.close()
        end = time.monotonic() + END_SECONDS
        while not all(one.gone for one in self._apprentices) and time.monotonic() < end:
            time.sleep(0.002)
        self._apprentices = []

    def _pays(self, exercises: Sequence[Exercise]) -> bool:
        if self._most < 1 or len(exercises) < 2 or not _kept.possible:
            return False
        expected = _past.expected(exercises)
        if expected < SMALL or _bytes_of(exercises) > MOST_BYTES:
            return False
        return _kept.alive or _past.seconds + expected >= WORTH

    def _together(self, exercises: Sequence[Exercise]) -> dict[int, nn.Module | None]:
        """By place; without what an apprentice has died of."""
        self._apprentices = [one for one in self._apprentices if one.alive]
        wanted = min(self._most, len(exercises) - 1) - len(self._apprentices)
        self._apprentices += [Apprentice(_kept.get()) for _ in range(wanted)]
        with Round(exercises, self._apprentices) as all_of_them:
            while (place := all_of_them.next()) is not None:
                all_of_them.found[place] = _past.train(exercises[place])
        return all_of_them.found


class Round:
    """Exercises that several train at once. At its end all are done but those of apprentices that have died."""

    def __init__(self, exercises: Sequence[Exercise], apprentices: Sequence[Apprentice]) -> None:
        self.exercises = exercises
        self.found = dict[int, nn.Module | None]()
        self._left = deque(sorted(range(len(exercises)), key=lambda place: -exercises[place].work))
        self._threads = {threading.Thread(target=self._teach, args=(one,), daemon=True): one for one in apprentices}
        self._rows, self._lock = dict[int, int](), threading.Lock()

    def __enter__(self) -> Round:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread, apprentice in self._threads.items():
            if kind is not None:
                apprentice.close()  # it is not waited for
            thread.join()
        for file in self._rows.values():
            os.close(file)

    def next(self) -> int | None:
        """The place of an exercise that nobody has begun."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def _teach(self, apprentice: Apprentice) -> None:
        """Let it take one after another. It may not be forked yet."""
        try:
            while self._left and not apprentice.is_ready(LOOK_SECONDS):
                pass
            while (place := self.next()) is not None:
                exercise = self.exercises[place]
                self.found[place] = apprentice.train(exercise, self._file(exercise))
        except (EOFError, OSError, SafetensorError, ValueError) as error:
            if apprentice.alive:  # and was not let go, as by Ctrl-C
                _LOG.warning("a process that trained beside this one has gone (%s): its work is done here", error)
            apprentice.close()

    def _file(self, exercise: Exercise) -> int:
        with self._lock:
            key = id(exercise.rows)
            if key not in self._rows:
                self._rows[key] = _memory(rows_as_bytes(exercise.rows))
            return self._rows[key]


class Apprentice:
    """One of them, seen from here."""

    def __init__(self, server: ForkServer) -> None:
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = server.apprentice(next(_numbers), other)
        self.alive, self._ready = True, False

    def is_ready(self, patience: float) -> bool:
        """Whether it can be asked by now, or within so many seconds. Raises `EOFError` when it cannot any more."""
        if not self._ready and select.select([self._channel], [], [], patience)[0]:
            self._ready = bool(self._channel.recv(_PACKET))
            if not self._ready:
                raise EOFError(LOST)
        return self._ready

    @property
    def gone(self) -> bool:
        """Whether it has no process: it has ended, or is not forked yet, and will find then that nobody is there."""
        return self._process.poll() is not None or self._process.pid is None

    def train(self, exercise: Exercise, rows: int) -> nn.Module | None:
        """The network after an exercise, whose rows lie in a file in memory. Raises `EOFError` when it dies of it."""
        weights = _memory(exercise.bytes())
        try:
            socket.send_fds(self._channel, [b"{}"], [rows, weights])
        finally:
            os.close(weights)
        packet, files, _, _ = socket.recv_fds(self._channel, _PACKET, 1)
        try:
            if not packet:
                raise EOFError(LOST)
            return exercise.after(_path(files[0])) if json.loads(packet)["finite"] else None
        finally:
            for one in files:
                os.close(one)

    def close(self) -> None:
        """Let it go, whatever it does."""
        self.alive = False
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # wakes up whoever waits for it

    def __del__(self) -> None:
        self._channel.close()  # not before: a thread may wait for it


def serve(channel: socket.socket, parent: int) -> None:
    """An apprentice's own process: train what is asked for until the other end is closed, or the parent has gone."""
    from retrain.search.worker import end_with

    end_with(parent)
    torch.set_num_threads(1)
    with suppress(ConnectionError):  # nobody is there any more
        channel.send(b"{}")
        while _answered(channel):
            pass


def _answered(channel: socket.socket) -> bool:
    """Whether something was asked for, which was done then."""
    packet, files, _, _ = socket.recv_fds(channel, _PACKET, 2)
    if not packet:
        return False
    rows, weights = files
    network = Exercise.read(_path(weights), rows_of_file(_path(rows))).done()
    answer = _memory(b"" if network is None else weights_of(network))
    socket.send_fds(channel, [json.dumps({"finite": network is not None}).encode()], [answer])
    for file in (*files, answer):
        os.close(file)
    return True


_PACKET = 1024


def _bytes_of(exercises: Sequence[Exercise]) -> int:
    """Of all rows, each counted once."""
    rows = {id(one.rows): one.rows for one in exercises}.values()
    return sum(tensor.nbytes for one in rows for tensor in (one.labels, *one.inputs))


def _memory(content: bytes) -> int:
    """A file in memory that holds this, by its descriptor."""
    file = os.memfd_create("everfit")
    with open(file, "wb", closefd=False) as out:
        out.write(content)
    return file


def _path(file: int) -> str:
    return f"/proc/self/fd/{file}"
