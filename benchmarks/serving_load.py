"""A closed loop of several connections over one server: the next request leaves when the last answer is whole.

The loop reads no more of an answer than its length, and takes prepared requests in turn, so that one core of a client
is enough for one core of any server that is measured here.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
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
    """The latencies of one drive, sorted, and its wall-clock; seconds."""

    latencies: tuple[float, ...]
    wall: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.wall

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests keeps to, in seconds."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class Connection(asyncio.Protocol):
    """One connection of the loop."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float], until: float) -> None:
        self._requests, self._latencies, self._until = requests, latencies, until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begin()

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
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed the connection ({exc})"))

    def _begin(self) -> None:
        self._buffer = bytearray()
        self._expected: int | None = None

    def _read_head(self, head: bytes, start: int) -> None:
        status, _, rest = head.partition(b"\r\n")
        _, found, length = rest.partition(b"content-length: ")
        if b" 200" not in status or not found:
            got = bytes(self._buffer[:500]).decode(errors="replace")
            self._fail(f"expected an answer 200 with its length, got {got}")
            return
        self._expected = start + int(length.split(b"\r\n")[0])

    def _next(self) -> None:
        self._begin()
        now = perf_counter()
        self._latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
        self._transport.close()

    def _send(self) -> None:
        self._sent = perf_counter()
        self._transport.write(next(self._requests))


async def _drive(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Drive:
    loop, latencies, started = asyncio.get_running_loop(), list[float](), perf_counter()
    turn = itertools.cycle(requests)
    made = [
        await loop.create_connection(lambda: Connection(turn, latencies, started + seconds), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    return Drive(tuple(sorted(latencies)), perf_counter() - started)


def drive(port: int, load: Load, connections: int, seconds: float) -> Drive:
    """Keep `connections` requests on their way for a while. Raises `RuntimeError` for an answer other than 200 and
    `ConnectionError` when the server hangs up."""
    return uvloop.run(_drive(port, load.requests(), connections, seconds))
