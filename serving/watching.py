"""Those who watch requests from outside: the access log, and traces (`tracing.py`). Without them nothing is paid.

One line of JSON a request goes to stderr: when, which request, what was asked, what became of it, how long it took, how
many rows, which version, whose key (its name). Never what was sent, nor a key. Lines are written by a thread of their
own; when nobody reads them, requests do not wait: lines are dropped then, and counted.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import NamedTuple, Protocol, TextIO

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.body import AT_ONCE
from serving.context import HEADER, NOTES, Notes, make_id

MOST_WAITING = 10_000
"""Lines that wait to be written; beyond them lines are dropped."""

FAREWELL_SECONDS = 2.0
GONE = 499
"""What is said of a request whose client left before it was answered."""


class Watched(NamedTuple):
    """A request that is over. `seconds` is the time to its last byte."""

    scope: Scope
    status: int
    seconds: float
    notes: Notes
    key: str | None


class Watcher(Protocol):
    """Somebody who watches. `dropped` counts the requests of which nothing could be told."""

    dropped: int

    def see(self, one: Watched) -> None:
        """Take note of a request. It is on the event loop: do not wait."""

    def close(self) -> None:
        """Write what is not written yet; may take seconds."""


class Watch:
    """All who watch. False when there is nobody."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def __bool__(self) -> bool:
        return bool(self._watchers)

    async def over(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, key: str | None) -> None:
        """Answer a request, and tell of it."""
        notes, status = Notes(), GONE
        scope["notes"] = notes  # a pipelined request begins in the context of the one before: that says nothing
        NOTES.set(notes)
        scope.pop(AT_ONCE, None)  # it would pass by `heard`
        own = [] if "request_id" in scope else [(HEADER, (made := make_id()).encode())]
        if own:
            scope.update(request_id=made, echoed=True)

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        try:
            await app(scope, receive, heard)
        except Exception:
            status = 500
            raise
        finally:
            seen = Watched(scope, status, perf_counter() - notes.began, notes, key)
            for one in self._watchers:
                one.see(seen)

    @property
    def dropped(self) -> int:
        """Requests of which somebody could not be told."""
        return sum(one.dropped for one in self._watchers)

    def close(self) -> None:
        """End; may take seconds."""
        for one in self._watchers:
            one.close()


class AccessLog:
    """One line a request."""

    def __init__(self, file: TextIO, most: int = MOST_WAITING) -> None:
        """`most` lines wait for the thread."""
        self._file = file
        self.dropped = 0
        """Lines that were not written since nobody read those before."""
        self._lines: queue.Queue[bytes | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def see(self, one: Watched) -> None:
        """Have a line written."""
        try:
            self._lines.put_nowait(line_of(one))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write the lines that wait."""
        try:
            self._lines.put(None, timeout=FAREWELL_SECONDS)
        except queue.Full:
            return
        self._thread.join(FAREWELL_SECONDS)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._file.write(line.decode())
                self._file.flush()
            except (OSError, ValueError):  # closed, or a full disk
                self.dropped += 1


def line_of(one: Watched) -> bytes:
    """The line of a request."""
    moment = datetime.fromtimestamp(one.notes.began_ns / 1e9, UTC)
    content = {
        "time": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        "request_id": one.scope.get("request_id"),
        "method": one.scope["method"],
        "path": one.scope["path"][:200],
        "status": one.status,
        "seconds": round(one.seconds, 6),
        "rows": one.notes.rows,
        "version": one.notes.version,
        "key": one.key,
    }
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
