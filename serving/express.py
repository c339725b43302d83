"""The short way of a request from its connection to its answer, past uvicorn, ASGI and tasks.

    read of a socket -> a head that is known -> key -> crowd -> `Singles` -> the connection's next write

Requests that come in numbers are alike, each with the very head of the one before: what the parser has read once is
known by its bytes, and not read again. What is not as simple as that goes the long way, as if nobody had looked at it,
but for its key, whose rate a second look would take from twice: every refusal and every error has one place where it is
told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.types import Scope

from serving.guard import Guard, Verdict
from serving.singles import Singles, Waiting

KNOWN_HEADS, HEAD_BYTES = 1_024, 2_048
"""So many heads are known at once, of so many bytes at most."""

_END = b"\r\n\r\n"
_UNUSUAL = frozenset(
    (b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"x-request-id", b"traceparent")
)
"""Headers that ask for more than the short way has, or are other ones with each request."""


class Head(NamedTuple):
    """A head that was read: its own length, that of the body behind it, and what is asked."""

    size: int
    length: int
    scope: Scope
    """Path, method and headers."""


class Express:
    """Belongs to one event loop."""

    def __init__(self, guard: Guard, singles: Callable[[], Mapping[str, Singles]], crowded: Callable[[], bool]) -> None:
        """`singles` are the tasks' by their paths; `crowded` says whether more requests are in work than may be."""
        self._guard, self._singles, self.crowded = guard, singles, crowded
        self._heads: dict[bytes, Head] = {}
        self.inside = 0
        """How many requests are taken from their connections, who count them, and not answered yet."""

    def learn(self, data: bytes, scope: Scope) -> None:
        """Know the head with which `data` begins, as it was read, unless it is an unusual one."""
        if scope["path"] not in self._singles():
            return
        raw = data[: data.find(_END) + len(_END)]
        if len(_END) <= len(raw) <= HEAD_BYTES and (head := _head_of(raw, scope)) is not None:
            if len(self._heads) >= KNOWN_HEADS:
                self._heads.clear()
            self._heads[raw] = head

    def find(self, data: bytes) -> Head | None:
        """The head with which data begin, if it is known."""
        return self._heads.get(data[: data.find(_END) + len(_END)])

    def verdict(self, head: Head) -> Verdict:
        """What the guard says of a request with this head: asked before its body has come, as on the long way, so that
        nobody without a key takes a place inside."""
        return Verdict(self._guard.refusal(head.scope))

    def take(self, connection: Waiting, body: bytes, head: Head) -> None:
        """Answer a whole request that may pass, now, later, or the long way."""
        singles = self._singles().get(head.scope["path"])
        if singles is None or self.crowded() or not singles.take(connection, body):
            connection.give_back()


def _head_of(raw: bytes, scope: Scope) -> Head | None:
    """A head of these bytes as it was read, if nothing about it is unusual."""
    found = dict(scope["headers"])
    usual = (
        raw.startswith(b"POST ")
        and scope["http_version"] == "1.1"
        and raw.count(b"\n") == raw.count(b"\r\n")
        and not scope["query_string"]
        and len(found) == len(scope["headers"])
        and found.keys().isdisjoint(_UNUSUAL)
        and found.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and found.get(b"content-length", b"").isdigit()
    )
    if not usual:
        return None
    kept = {name: scope[name] for name in ("type", "method", "path", "headers")}
    return Head(len(raw), int(found[b"content-length"]), kept)
