"""What belongs to the request that is answered now, wherever it is asked: in a route, in a thread, in a log line.

Every request has an id: the client's `X-Request-Id`, if it is 1 to 128 visible ASCII characters, or one made here that
no other has. Notes are taken only while somebody watches: an access log, or traces.
"""

from __future__ import annotations

import itertools
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter, time_ns

HEADER = b"x-request-id"
_SOUND = re.compile(rb"[!-~]{1,128}")
_OWN = secrets.token_hex(8).encode()
_NUMBERS = itertools.count(1)

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request."""


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


def id_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The id of a request with these headers, their names in small letters.

    >>> id_of([(b"x-request-id", b"7f3a")]), len(id_of([(b"x-request-id", b"two words")]))
    (b'7f3a', 32)
    """
    for name, value in headers:
        if name == HEADER and _SOUND.fullmatch(value) is not None:
            return value
    return b"%b%016x" % (_OWN, next(_NUMBERS))
