"""What belongs to the request that is answered now, wherever it is asked: in a route, in a thread, in a log line.

A request has the id that its client gives it, `X-Request-Id`, if that is 1 to 128 visible ASCII characters; else one is
made here when somebody wants it: a problem, a log line, who watches. To make one for every request and to write it into
every answer would cost 1.5 microseconds. Notes are taken only while somebody watches: an access log, or traces.
"""

from __future__ import annotations

import itertools
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time_ns

from starlette.types import Scope

HEADER = b"x-request-id"
_SOUND = re.compile(rb"[!-~]{1,128}")
_OWN = secrets.token_hex(8)
_NUMBERS = itertools.count(1)

SCOPE: ContextVar[Scope | None] = ContextVar("scope", default=None)
"""The request, as ASGI has it; its id, where it has one by now, is `request_id` in it."""


@dataclass(slots=True)
class Notes:
    """What those who watch are told of a request beside what it looks like from outside."""

    version: str | None = None
    rows: int | None = None
    graph: tuple[float, float, int] | None = None
    """The call of the graph: begin and end by `perf_counter`, and the rows in it, those of other requests too."""
    began: float = field(default_factory=perf_counter)
    began_ns: int = field(default_factory=time_ns)

    def moment(self, at: float) -> int:
        """A moment of `perf_counter` in nanoseconds since 1970."""
        return self.began_ns + round((at - self.began) * 1e9)


NOTES: ContextVar[Notes | None] = ContextVar("notes", default=None)
"""Where notes are taken; None: nowhere."""


def given_id(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The id that a client gave its request, if it is a sound one. Names of headers are in small letters.

    >>> given_id([(b"x-request-id", b"7f3a")]), given_id([(b"x-request-id", b"two words")])
    (b'7f3a', None)
    """
    for name, value in headers:
        if name == HEADER:
            return value if _SOUND.fullmatch(value) is not None else None
    return None


def make_id() -> str:
    """An id that no other request has: 32 hexadecimal digits."""
    return f"{_OWN}{next(_NUMBERS):016x}"


def request_id() -> str | None:
    """The id of the request of this moment, made if it has none yet; None outside of requests."""
    scope = SCOPE.get()
    if scope is None:
        return None
    found: str | None = scope.get("request_id")
    if found is None:
        found = scope["request_id"] = make_id()
    return found


def told_here() -> list[tuple[bytes, bytes]]:
    """The header that tells the request's id, for an answer that has it nowhere else: clients' own ids are echoed by
    the connection, and where requests are watched that is done for all answers."""
    scope, found = SCOPE.get(), request_id()
    return [] if scope is None or found is None or scope.get("echoed") else [(HEADER, found.encode())]
