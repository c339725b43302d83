"""Connections with bounds on time and size.

Uvicorn bounds neither how long a client may take for the head of its request, nor for its body, nor how large a head
may be; and its timers begin with the first answer. A connection here is closed

    after `idle` seconds without a whole head, counted from the beginning or from the last answer;
    after `body` seconds in which a begun body has not become whole: 408;
    when its head is larger than `HEAD_BYTES`: 431;
    after `body` seconds in which a client has read nothing of an answer that is too large to be kept for it.

A request whose body comes with its head, as nearly all do, pays for none of this: the timer of its body is never set.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.body import AT_ONCE, LINGER_SECONDS, VERDICT
from serving.context import HEADER, given_id, make_id
from serving.express import Express, Head
from serving.guard import Verdict
from serving.problems import Problem, problem

HEAD_BYTES = 65_536
"""The most of a head, beyond what one read of the socket brings."""

_PASSED = Verdict(None)

_JSON = b"content-type: application/json\r\ncontent-length: "


class Connection(HttpToolsProtocol):
    """One connection."""

    body_seconds = 30.0
    draining = False

    _head_of: tuple[object, bytes] = (None, b"")  # the headers of all answers, and a head that begins with them
    _head = 0
    _refused = False
    _body_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _in_work: RequestResponseCycle | None = None  # of several behind one another, the one that is answered now
    _in_head = _in_body = False  # what of a message the parser has begun, and not seen the end of

    _express: Express | None = None
    _taken = b""  # a whole request that goes the short way
    _called: bytes | None = None  # what its client calls it
    _behind = b""  # what came behind it
    _held = b""  # a head that is known and may pass, whose body has not come
    _begun = b""  # the read with which a message began that the parser reads
    _verdict: Verdict | None = None
    _answered = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._express = getattr(self.app, "express", None)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._held:
            self._let_go()
        self._disarm()
        self._body_is_due(None)
        if self._in_work is not None and not self._in_work.response_complete:
            self._in_work.disconnected = True  # uvicorn tells only the last one that came
            self._in_work.message_event.set()
        super().connection_lost(exc)
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Answer a whole request with a known head the short way; have uvicorn read all else."""
        if self._taken:
            self._behind += data
            self.flow.pause_reading()
            return
        verdict = None
        if self._held:
            data, verdict = self._let_go() + data, _PASSED
            self._body_is_due(None)
        if self._express is not None and self._is_between() and (head := self._express.find(data)) is not None:
            whole = len(data) == head.size + head.length
            if whole or len(data) == head.size:  # many clients send the body apart
                verdict = verdict or self._express.verdict(head)
                if verdict.refusal is None and self._goes_shortly(data, head, whole):
                    return
        self._slowly(data, verdict)

    def _goes_shortly(self, data: bytes, head: Head, whole: bool) -> bool:
        """Take a request, or hold its head until the body comes; False where too many are inside."""
        assert self._express is not None
        self._express.inside += 1
        if whole:
            self._taken, self._called = data, head.request
            self._express.take(self, data[head.size :], head)
        elif self._express.crowded():
            self._express.inside -= 1
            return False
        else:
            self._held = data
            self._body_is_due(self.body_seconds)
        return True

    @property
    def alone(self) -> bool:
        """Whether nobody else is connected."""
        return len(self.connections) == 1

    def answer(self, body: bytes) -> None:
        """Answer the request that was taken, with status 200."""
        assert self._express is not None
        self._taken = b""
        self._express.inside -= 1
        if self.transport.is_closing():
            return
        more = b"" if self._called is None else b"%b: %b\r\n" % (HEADER, self._called)
        if self.draining:
            more += b"connection: close\r\n"
        self._write_whole(body, self.server_state.default_headers, more)
        self.server_state.total_requests += 1
        self._answered = self.loop.time()
        if self.draining:
            self.transport.close()
        elif self._behind:
            data, self._behind = self._behind, b""
            self.flow.resume_reading()
            self.data_received(data)

    def give_back(self) -> None:
        """Have the request that was taken answered the long way, but for its key."""
        assert self._express is not None
        data, self._taken, self._behind = self._taken + self._behind, b"", b""
        self._express.inside -= 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._slowly(data, _PASSED)

    def _let_go(self) -> bytes:
        """The head that was held."""
        assert self._express is not None
        data, self._held = self._held, b""
        self._express.inside -= bool(data)
        return data

    def _is_between(self) -> bool:
        """Whether the last request is answered and the parser has read nothing of the next one, be it that the first
        bytes of its head came with that last request."""
        begun = self._in_head or self._in_body or self._head > 0
        waits = self.timeout_keep_alive_task is not None and not begun
        return waits and not (self._refused or self.draining or self.flow.write_paused)

    def _slowly(self, data: bytes, verdict: Verdict | None = None) -> None:
        """Read on; bound what is not whole yet."""
        if self._refused:
            return
        self._begun, self._verdict, in_body = (data if self._is_between() else b""), verdict, self._in_body
        super().data_received(data)
        self._begun, self._verdict = b"", None
        if self.timeout_keep_alive_task is not None and not in_body:  # a body may be refused before it is whole
            self._head += len(data)
            if self._head > HEAD_BYTES:
                request, detail = make_id(), f"the head of a request: expected at most {HEAD_BYTES} bytes, got more"
                self._refuse(problem(431, detail, request_id=request), request)
        if (cycle := self.cycle) and cycle.more_body and not cycle.response_complete:
            if self._body_timer is None:
                self._body_is_due(self.body_seconds)
        elif self._body_timer is not None:
            self._body_is_due(None)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._in_work = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The last one."""
        self._in_body = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._disarm()
        self._head, self._in_head, self._in_body = 0, False, True
        request = given_id(self.headers)
        super().on_headers_complete()
        scope, (begun, self._begun) = cast(Any, self.scope), (self._begun, b"")
        scope[AT_ONCE] = partial(self._answer_at_once, self.cycle)
        if self._verdict is not None:
            scope[VERDICT], self._verdict = self._verdict, None
        elif begun and self._express is not None:
            self._express.learn(begun, scope)
        if request is not None and self.cycle:
            self.cycle.default_headers = [*self.cycle.default_headers, (HEADER, request)]
            scope.update(request_id=request.decode("ascii"), echoed=True)
        if self.draining and self.cycle:
            self.cycle.keep_alive = False

    def _answer_at_once(self, cycle: RequestResponseCycle, body: bytes) -> bool:
        """Send an answer of status 200 in JSON as one piece, which costs a quarter of what uvicorn takes for head and
        body; False, with nothing sent, where it is not as simple as that."""
        if cycle.response_started or cycle.disconnected or not cycle.keep_alive or cycle.flow.write_paused:
            return False
        self._write_whole(body, cycle.default_headers)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _write_whole(self, body: bytes, headers: list[tuple[bytes, bytes]], more: bytes = b"") -> None:
        """Write an answer of status 200 in JSON."""
        if self._head_of[0] is not headers:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            self._head_of = headers, STATUS_LINE[200] + lines + _JSON
        self.transport.write(b"%b%d\r\n%b\r\n%b" % (self._head_of[1], len(body), more, body))

    def timeout_keep_alive_handler(self) -> None:
        """Close; at once where the client does not even read what it was sent, since that would be waited for. Where
        requests went the short way since the timer began, it begins anew: to do that for each would cost more."""
        left = self._answered + self.timeout_keep_alive - self.loop.time()
        if self._taken or self._held or left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(max(left, 1.0), self.timeout_keep_alive_handler)
            return
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """End, once what was begun is answered."""
        self.draining = True
        if self._held:
            self._slowly(self._let_go(), _PASSED)
        if not self._taken:
            super().shutdown()

    def drain(self) -> None:
        """Close the connection with its next answer."""
        self.draining = True
        if self.cycle and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _unset_keepalive_if_required(self) -> None:
        """Called at every byte that comes; here only a whole head ends the waiting for it."""

    def _arm(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _disarm(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _body_is_due(self, seconds: float | None) -> None:
        """Wait so long for the body; None: no more."""
        if self._body_timer is not None:
            self._body_timer.cancel()
        self._body_timer = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """The body did not come. The application is told that its client is gone."""
        self._body_timer = None
        if self._held:
            self._slowly(self._let_go(), _PASSED)
            self._body_is_due(None)
        if not self.cycle.more_body or self.cycle.response_complete or self.transport.is_closing():
            return
        if self.cycle.response_started or self.pipeline:
            self.transport.abort()
            return
        seconds = f"{self.body_seconds:g} seconds (EVERFIT_BODY_SECONDS)"
        request = str(self.scope.get("request_id") or make_id())
        detail = f"the body of a request: expected all of it within {seconds}"
        self._refuse(problem(408, detail, request_id=request), request)
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def pause_writing(self) -> None:
        """More is to be read than is kept for a client."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.body_seconds, self._look_at_unread, self._unread)

    def resume_writing(self) -> None:
        """It has read most of it."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        super().resume_writing()

    @property
    def _unread(self) -> int:
        return self.transport.get_write_buffer_size()

    def _look_at_unread(self, before: int) -> None:
        """End where nothing of it was read since: whoever never reads would have its request inside for ever."""
        if (now := self._unread) >= before:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(self.body_seconds, self._look_at_unread, now)

    def _refuse(self, answer: Problem, request: str) -> None:
        """Answer without the application, and close; a moment later, in which what the client still sends is thrown
        away, since a closed connection could take the answer with it."""
        headers = [
            *self.server_state.default_headers,
            *answer.headers,
            (HEADER, request.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        if self.transport.is_closing():
            return
        self.transport.write(STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body)
        self._refused = True
        self._disarm()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def connections(body_seconds: float) -> type[Connection]:
    """The class of a server's connections."""
    return type("Connection", (Connection,), {"body_seconds": body_seconds})
