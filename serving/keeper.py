"""The keeper: a process beside the endpoint that moves the journal into the inference log and stores feedback.

It is a process and not a thread so that neither its reading and writing nor the database's driver ever takes the
interpreter lock of the process that answers. It talks with that process over a socket, in lines of JSON:

    endpoint -> keeper    {"store": URL, "task": ..., "folder": ..., "durable": ...,
                           "hidden": {...}, "ledger_seconds": ...}                        first of all
                          {"shadow": [version, folder of its bundle, [segment, offset]] or null}
                          {"number": 7, "feedback": [[id, label, time, received], ...], "after": [segment, offset]}
    keeper -> endpoint    {"at": [segment, offset], "records": n, "older": m, "fault": text or null,
                           "images": text or null, "shadow": ...}
                          {"number": 7, "counts": {...}} or {"number": 7, "fault": text}
                          {"ledger": {...}}                                               see `monitored.py`

Times are microseconds since 1970 UTC. When the endpoint is gone, however it went, the keeper empties the journal and
ends. It never outlives a store that stays away: what is left then is the next keeper's work.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from registry.database import from_micros, open_engine, to_micros
from registry.errors import EverfitError, StoreError, words_of
from registry.image_store import ImageStore
from registry.inference_log import Feedback, InferenceLog
from registry.ledger import Ledger
from serving.discretion import Discretion
from serving.journal import DamagedError, Position, abandoned, remove_run
from serving.lean import hide_pandas
from serving.monitored import Lookout
from serving.runs import Run, count_records
from serving.shadow import Shadow
from serving.sightings import Album

TICK_SECONDS = 0.2
RETRY_SECONDS = 1.0
FAREWELL_SECONDS = 20.0
ADOPT_SECONDS = 5.0
JOIN_SECONDS = 30.0
LOOK_BACK_SECONDS = 60.0
LONG_AGO = 30 * 86_400_000_000
"""Microseconds since the last event after which data are those of another time."""
NICENESS = 5
"""Where the keeper shares a core with the endpoint, answers come first; the journal holds what waits."""


class Abandoned(NamedTuple):
    """A run whose process is gone, its lock, and how many records it had when it was found."""

    run: Run
    lock: int
    records: int


class Keeper:
    """The process's work, one `turn` after another."""

    def __init__(self, opening: dict[str, Any], say: socket.socket) -> None:
        """`opening` is the endpoint's first line."""
        self._opening, self._say = opening, say
        self._log: InferenceLog | None = None
        self._lookout: Lookout | None = None
        folder, most = opening.get("images") or (None, 0)
        self._images = None if folder is None else Album(ImageStore(Path(folder), most))
        self._discretion = Discretion.of(opening)
        self._own = Run(Path(opening["folder"]), self._images, self._discretion)
        self._others: dict[Path, Abandoned] = {}
        self._adopt_at = self._join_at = self._retry_at = self._look_back_at = 0.0
        self._newest = 0
        self._said = b""
        self._shadow_fault: str | None = None

    def obey(self, order: dict[str, Any]) -> None:
        """Do what the endpoint asks for."""
        if "shadow" in order:
            self._cast(order["shadow"])
        else:
            self.feedback(order)

    def _cast(self, wanted: Sequence[Any] | None) -> None:
        """Let a version predict beside the champion from a place in the journal on; none for None."""
        self._own.shadow = self._shadow_fault = None
        if wanted is not None:
            version, folder, since = wanted
            try:
                self._own.shadow = Shadow(version, Path(folder)), Position(*since)
            except (EverfitError, OSError) as error:
                self._shadow_fault = f"version {version} cannot predict in the shadow: {error}"

    def turn(self) -> bool:
        """Move what is there into the store; True if that worked."""
        if time.monotonic() < self._retry_at:
            return False
        fault: str | None = None
        try:
            log = self._open()
            while self._own.drain(log, alive=True):
                self._report(None)
                self._look()
            self._look()
            self._adopt(log)
            self._join(log)
        except (EverfitError, DamagedError, OSError) as error:
            fault = str(error)
            self._retry_at = time.monotonic() + RETRY_SECONDS
        self._report(fault)
        return fault is None

    def feedback(self, order: dict[str, Any]) -> None:
        """Store labels after the predictions that were acknowledged before them, and say what became of them."""
        answer: dict[str, Any] = {"number": order["number"]}
        if not self.turn() or list(self._own.at) < order["after"]:
            answer["fault"] = "the store does not take the predictions that came before these labels"
        else:
            try:
                log = self._open()
                old = self._old(log)  # first: where it cannot be read, no label is stored and none is said not to be
                answer["counts"] = {**asdict(log.add_feedback(list(_labels(order["feedback"])))), "old": old}
            except EverfitError as error:
                answer["fault"] = str(error)
        self._send(orjson.dumps(answer))

    def _old(self, log: InferenceLog) -> int:
        """The last event time, in microseconds, where it is long ago: monitoring, which stands there, sees no label of
        now. Else 0. Rows after the clock, or without a moment of their own, are passed over as monitoring does; that
        takes a look at many rows, which is not taken again for a while."""
        now, span = time.time_ns() // 1000, log.span()
        if span is not None and (last := to_micros(span[1])) < now - LONG_AGO:
            return last
        if time.monotonic() >= self._look_back_at:
            newest, _ = log.newest(from_micros(now), timed=True)
            self._newest = 0 if newest is None else to_micros(newest)
            self._look_back_at = time.monotonic() + LOOK_BACK_SECONDS
        return self._newest if self._newest < now - LONG_AGO else 0

    def finish(self) -> None:
        """Empty the journal after the endpoint's end, and delete the run; gives up when the store stays away."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        while time.monotonic() < deadline:
            try:
                log = self._open()
                while self._own.drain(log):
                    pass
            except (EverfitError, OSError):
                time.sleep(RETRY_SECONDS)
            else:
                remove_run(self._own.folder)
                return

    def _open(self) -> InferenceLog:
        if self._log is None:
            engine = open_engine(self._opening["store"], durable=self._opening["durable"])
            self._log = InferenceLog(engine, self._opening["task"])
            if (seconds := self._opening.get("ledger_seconds")) is not None:
                self._lookout = Lookout(Ledger(engine, self._opening["task"]), seconds)
            gc.freeze()  # rows by the thousand set the collector off, which would walk all that was imported each time
            self._log.recount()  # the endpoint before may have been one of an Everfit that did not count
        return self._log

    def _look(self) -> None:
        """Tell what monitoring found."""
        if self._lookout is not None and (told := self._lookout.look()) is not None:
            self._send(orjson.dumps({"ledger": told}))

    def _adopt(self, log: InferenceLog) -> None:
        if time.monotonic() > self._adopt_at:
            self._adopt_at = time.monotonic() + ADOPT_SECONDS
            found = abandoned(self._own.folder.parent)
            for run, lock in found:
                mine = Run(run, self._images, self._discretion)
                self._others[run] = Abandoned(mine, lock, count_records(run))
            self._report(None)
        for folder, other in list(self._others.items()):
            while other.run.drain(log):
                pass
            remove_run(folder)
            os.close(other.lock)
            del self._others[folder]

    def _join(self, log: InferenceLog) -> None:
        """Join small batches now and then, one transaction a turn: requests and labels come first, also where it fails.
        Raises `StoreError`."""
        if time.monotonic() <= self._join_at:
            return
        self._join_at = time.monotonic() + JOIN_SECONDS
        try:
            more = log.join()
        except (ValueError, LookupError, TypeError) as error:  # a batch that is damaged in the store
            raise StoreError(f"small batches cannot be joined: {words_of(error)}") from error
        if more:
            self._join_at = 0.0

    def _report(self, fault: str | None) -> None:
        older = sum(other.records for other in self._others.values())
        fares = {"fault": self._shadow_fault} if self._shadow_fault else {}
        shadow = fares if self._own.shadow is None else self._own.shadow[0].report()
        images = None if self._images is None else self._images.fault
        told = {"at": list(self._own.at), "records": self._own.records, "older": older, "fault": fault}
        line = orjson.dumps({**told, "images": images, "shadow": shadow})
        if line != self._said:
            self._said = line
            self._send(line)

    def _send(self, line: bytes) -> None:
        with suppress(OSError):  # the endpoint is gone: the next read says so
            self._say.sendall(line + b"\n")


def _labels(given: Sequence[Sequence[Any]]) -> Iterator[Feedback]:
    for one, label, when, received in given:
        yield Feedback(one, label, from_micros(when), from_micros(received))


def _lines(listen: socket.socket) -> Iterator[list[bytes]]:
    """The whole lines that came within each tick, until the endpoint is gone."""
    rest = b""
    while True:
        if not select.select([listen], [], [], TICK_SECONDS)[0]:
            yield []
            continue
        try:
            data = listen.recv(1 << 20)
        except ConnectionError:
            return
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield lines


def main(handle: int) -> None:
    """Serve the endpoint at the other end of socket `handle` until it is gone."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the endpoint decides: its end is ours
    os.nice(NICENESS)
    hide_pandas()
    talk = socket.socket(fileno=handle)
    keeper: Keeper | None = None
    for lines in _lines(talk):
        for line in lines:
            order = orjson.loads(line)
            if keeper is None:
                keeper = Keeper(order, talk)
            else:
                keeper.obey(order)
        if keeper is not None:
            keeper.turn()
    if keeper is not None:
        keeper.finish()


if __name__ == "__main__":
    main(int(sys.argv[1]))
