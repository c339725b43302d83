"""The endpoint's end of the log: the journal it writes, and the keeper process that empties it (see `journal.py`)."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from registry.errors import StoreError
from serving.journal import Journal, Position
from serving.monitored import Monitored

RESTART_SECONDS = 1.0
FEEDBACK_SECONDS = 25.0
FAREWELL_SECONDS = 25.0
_LINE_BYTES = 1 << 20

Label = tuple[str, str | float, int, int]
"""Prediction id, canonical label, event time and wall clock in microseconds since 1970."""


@dataclass(frozen=True)
class LogSettings:
    """Where the log is and what it promises."""

    task: str
    folder: Path
    store: str
    synced: bool
    max_bytes: int
    images: Path | None = None
    """Where images of logged rows are kept; None: nowhere."""
    max_image_bytes: int = 0
    secret: str | None = field(default=None, repr=False)
    """The key to hidden columns, or None: that of the file."""
    key_file: Path | None = None
    task_file: Path | None = None
    """Where the task is registered, which says what columns are hidden."""
    ledger_seconds: float | None = None
    """How often the ledger is looked into; None: never."""


class Logbook:
    """Open it in the event loop that answers; append from that loop's thread."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self.synced = settings.synced
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, int]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._older = 0
        self._shadow: tuple[str, str, list[int]] | None = None
        self.shadow: dict[str, Any] = {}
        """How the version in the shadow fares, see `Shadow.report`; or its `fault`."""
        self.fault: str | None = None
        """Why the store does not take records now, if so."""
        self.images: str | None = None
        """Why images of logged rows are not kept now, if so."""
        self.monitored = Monitored(settings.task)

    async def open(self) -> None:
        """Make this process's journal and start the keeper. Raises `StoreError` when the journal cannot be written."""
        settings = self._settings
        self.journal = Journal(settings.folder / settings.task, max_bytes=settings.max_bytes, synced=settings.synced)
        self.append, self.append_all = self.journal.append, self.journal.append_all
        self._closing = False
        self._minder = asyncio.create_task(self._mind())

    async def close(self) -> None:
        """Let the keeper empty the journal and end. What it cannot store is left for the next start."""
        self._closing = True
        if self._writer is not None:
            self._writer.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._minder, FAREWELL_SECONDS)
        self.journal.close()

    @property
    def backlog(self) -> int:
        """How many acknowledged predictions are not known to be in the store, those of earlier processes included."""
        return self.journal.waiting.records + self._older

    async def settle(self) -> None:
        """Return when what was appended is as safe as the settings promise. Raises `StoreError`."""
        if self.synced:
            await asyncio.to_thread(self.journal.settle)

    def cast(self, version: str | None, folder: Path | None) -> None:
        """Let a version, whose bundle is in this folder, predict in the champion's shadow from now on; none for None.
        One under which the keeper ends unexpectedly is not cast again."""
        self._shadow = None if version is None else (version, str(folder), list(self.journal.position))
        if self._writer is not None:
            self._writer.write(orjson.dumps({"shadow": self._shadow}) + b"\n")

    async def feedback(self, labels: Sequence[Label]) -> dict[str, int]:
        """Store labels, after every prediction acknowledged so far; what became of them (`FeedbackCounts`).

        Raises `StoreError` when the store is away: then the labels may be sent again.
        """
        if self._writer is None:
            raise StoreError("the labels cannot be stored now: the log's keeper is starting")
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        order = {"number": number, "feedback": labels, "after": list(self.journal.position)}
        self._writer.write(orjson.dumps(order) + b"\n")
        try:
            async with asyncio.timeout(FEEDBACK_SECONDS):
                counts: dict[str, int] = await answer
                return counts
        except TimeoutError as error:
            raise StoreError("the labels are not stored: the store does not answer") from error
        finally:
            self._asked.pop(number, None)

    async def _mind(self) -> None:
        """Keep a keeper running until the end."""
        while not self._closing:
            process, ours = self._spawn()
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
            self._writer.write(orjson.dumps(self._opening()) + b"\n")
            self._writer.write(orjson.dumps({"shadow": self._shadow}) + b"\n")
            await self._listen(reader)
            self._writer.close()
            self._writer = None
            self._fail("the log's keeper ended unexpectedly")
            self._shadow = None
            await asyncio.to_thread(process.wait)
            if not self._closing:
                await asyncio.sleep(RESTART_SECONDS)

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.keeper", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self.journal.lock),
                start_new_session=True,
            )
        return process, ours

    def _opening(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "store": settings.store,
            "task": settings.task,
            "folder": str(self.journal.folder),
            "durable": settings.synced,
            "hidden": {
                "secret": settings.secret,
                "key_file": None if settings.key_file is None else str(settings.key_file),
                "file": None if settings.task_file is None else str(settings.task_file),
            },
            "images": None if settings.images is None else [str(settings.images), settings.max_image_bytes],
            "ledger_seconds": settings.ledger_seconds,
        }

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(orjson.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        if "ledger" in said:
            self.monitored.hear(said["ledger"])
            return
        if "number" not in said:
            self.journal.stored(Position(*said["at"]), said["records"])
            self._older, self.fault, self.shadow = said["older"], said["fault"], said["shadow"]
            self.images = said["images"]
            if self.fault is not None:
                self.monitored.fail(self.fault)
            return
        answer = self._asked.get(said["number"])
        if answer is None or answer.done():
            return
        if "fault" in said:
            answer.set_exception(StoreError(f"the labels are not stored: {said['fault']}"))
        else:
            answer.set_result(said["counts"])

    def _fail(self, why: str) -> None:
        if not self._closing:
            self.fault = why
            self.monitored.fail(why)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(StoreError(f"the labels are not stored: {why}"))
