"""A closed loop of several connections over one server: the next request leaves when the last answer is whole.

The loop reads no more of an answer than its length, and takes prepared requests in turn, so that one core of a client
is enough for one core of any server that is measured here.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import uvloop

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Load:
    """What a contender is asked: bodies of `rows` rows each, taken in turn."""

    path: str
    bodies: tuple[bytes, ...]
    rows: int
    kind: str = JSON

    def requests(self) -> tuple[bytes, ...]:
        """The bytes of whole requests."""
        return tuple(self._head(len(body)) + body for body in self.bodies)

    def _head(self, length: int) -> bytes:
        lines = (f"POST {self.path} HTTP/1.1", "host: 127.0.0.1", f"content-type: {self.kind}", f"accept: {self.kind}")
        return ("\r\n".join(lines) + f"\r\ncontent-length: {length}\r\n\r\n").encode()


@dataclass(frozen=True)
class Drive:
    """The latencies of one drive that count, sorted, and its wall-clock; seconds. `answers` is how many there were with
    those that came before and after."""

    latencies: tuple[float, ...]
    wall: float
    answers: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.wall

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests keeps to, in seconds."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class Pace:
    """What the connections of one drive share: the requests, and the answers that count: those that come between the
    moment when every connection has had one and the end."""

    def __init__(self, requests: Sequence[bytes], connections: int, seconds: float) -> None:
        self.requests = itertools.cycle(requests)
        self.latencies: list[float] = []
        self._waited, self._least, self._seconds = connections, connections, seconds
        self._started = self._ended = 0.0
        self.answers = 0

    @property
    def wall(self) -> float:
        """Seconds between beginning and end."""
        return self._ended - self._started

    def answered(self, sent: float, *, first: bool) -> bool:
        """Count an answer to a request that was sent then; whether its connection goes on."""
        now = perf_counter()
        self._waited -= first
        self.answers += 1
        if self._ended or self._waited:
            return not self._ended
        if not self._started:
            self._started = now
            return True
        self.latencies.append(now - sent)
        if now >= self._started + self._seconds and len(self.latencies) >= self._least:
            self._ended = now
        return not self._ended


class Connection(asyncio.Protocol):
    """One connection of the loop."""

    def __init__(self, pace: Pace) -> None:
        self._pace, self._first = pace, True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the first time."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count an answer's bytes; at its end, ask again."""
        self._buffer += data
        if self._expected is None and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            self._read_head(bytes(self._buffer[:end]).lower(), end + 4)
        if self._expected is not None and len(self._buffer) >= self._expected:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that hangs up in the middle ends the drive."""
        self._end(ConnectionError(f"the server closed the connection ({exc})"))

    def close(self) -> None:
        """Hang up."""
        self._end(None)
        self._transport.abort()

    def _send(self) -> None:
        self._buffer = bytearray()
        self._expected: int | None = None
        self._sent = perf_counter()
        self._transport.write(next(self._pace.requests))

    def _read_head(self, head: bytes, start: int) -> None:
        status, _, rest = head.partition(b"\r\n")
        _, found, length = rest.partition(b"content-length: ")
        if b" 200" not in status or not found:
            got = bytes(self._buffer[:500]).decode(errors="replace")
            self._end(RuntimeError(f"expected an answer 200 with its length, got {got}"))
            return
        self._expected = start + int(length.split(b"\r\n")[0])

    def _next(self) -> None:
        first, self._first = self._first, False
        if self._pace.answered(self._sent, first=first):
            self._send()
        else:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


async def _drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Drive:
    loop, pace = asyncio.get_running_loop(), Pace(requests, connections, seconds)
    made = [(await loop.create_connection(lambda: Connection(pace), "127.0.0.1", port))[1] for _ in range(connections)]
    try:
        await asyncio.gather(*(one.done for one in made))
    finally:
        for one in made:
            one.close()
        await asyncio.sleep(0)  # let the sockets close before the loop does
    return Drive(tuple(sorted(pace.latencies)), pace.wall, pace.answers)


def drive(port: int, load: Load, connections: int, seconds: float) -> Drive:
    """Keep `connections` requests on their way for a while, longer when there are fewer answers than connections.
    Raises `RuntimeError` for an answer other than 200 and `ConnectionError` when the server hangs up."""
    return uvloop.run(_drive(port, load.requests(), connections, seconds))
