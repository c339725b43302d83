"""The short way of a request from its connection to its answer, past uvicorn, ASGI and tasks.

    read of a socket -> a head that is known -> key -> crowd -> `Singles` -> the connection's next write

Requests that come in numbers are alike, each with the very head of the one before, but for what it is called: what the
parser has read once is known by its bytes, and not read again. What is not as simple as that goes the long way, as if
nobody had looked at it, but for its key, whose rate a second look would take from twice: every refusal and every error
has one place where it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.types import Scope

from serving.context import HEADER, given_id
from serving.guard import Guard, Verdict
from serving.media import is_rows
from serving.singles import Singles, Waiting

KNOWN_HEADS, HEAD_BYTES = 1_024, 2_048
"""So many heads are known at once, of so many bytes at most."""

_END = b"\r\n\r\n"
_UNUSUAL = frozenset((b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"))
"""Headers that ask for more than the short way has."""

_OTHERS = frozenset((HEADER, b"traceparent", b"tracestate"))
"""Headers that are other ones with each request, and say nothing of how it is answered."""

_LINE = re.compile(rb"\r\n(x-request-id|traceparent|tracestate):[ \t]*([^\r\n]*)(?=\r\n[^ \t])", re.IGNORECASE)
_SOUND = re.compile(rb"[!-~]{1,512}").fullmatch


class Head(NamedTuple):
    """A head that was read: its own length, that of the body behind it, and what is asked."""

    size: int
    length: int
    scope: Scope
    """Path, method and headers."""
    request: bytes | None = None
    """The id that the client gave this request, if it did."""


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
            self._heads[_without_others(raw)[0]] = head

    def find(self, data: bytes) -> Head | None:
        """The head with which data begin, if it is known, be it that the client calls this request otherwise."""
        raw = data[: data.find(_END) + len(_END)]
        if (head := self._heads.get(raw)) is not None or len(raw) > HEAD_BYTES:
            return head
        rest, others = _without_others(raw)
        if not others or (head := self._heads.get(rest)) is None:
            return None
        if len(dict(others)) != len(others) or not all(_SOUND(value) for _, value in others):
            return None  # the long way says what becomes of such
        return head._replace(size=len(raw), request=given_id(others))

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
        and is_rows(found.get(b"content-type"))
        and b"\r\n " not in raw
        and b"\r\n\t" not in raw
    )
    if not usual:
        return None
    kept = {name: scope[name] for name in ("type", "method", "path")}
    kept["headers"] = [(name, value) for name, value in scope["headers"] if name not in _OTHERS]
    return Head(len(_without_others(raw)[0]), int(found[b"content-length"]), kept)


def _without_others(raw: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A head without the headers that are other ones with each request; and these."""
    others = [(name.lower(), value.rstrip(b" \t")) for name, value in _LINE.findall(raw)]
    return (_LINE.sub(b"", raw) if others else raw), others
