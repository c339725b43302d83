"""Requests to a running endpoint, counted: how many were sent, tried again, and failed for good."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import httpx
import orjson
from pydantic import BaseModel

from registry.errors import InputError, OutsideError

_PATIENCE = (0.2, 0.5, 1.0, 2.0, 4.0)


class Counts(BaseModel):
    """What became of the requests so far."""

    sent: int = 0
    retried: int = 0
    failed: int = 0

    def plus(self, other: Counts) -> Counts:
        """The sum of two counts."""
        return Counts(
            sent=self.sent + other.sent, retried=self.retried + other.retried, failed=self.failed + other.failed
        )


class Server(Protocol):
    """What answers a replay."""

    @property
    def counts(self) -> Counts:
        """What became of the requests that a replay sent."""

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Rows to `/predict`, labels to `/feedback`. Raises `InputError` and `OutsideError`."""

    def model(self, *, patient: bool = True) -> dict[str, Any]:
        """Task, version, backlog of the log; unless `patient`, whoever is away is not waited for."""

    def meanwhile(self, bodies: Sequence[object]) -> AbstractContextManager[Counts]:
        """Users' traffic while a block runs, and its counts after it."""

    def close(self) -> None:
        """Let go of what it holds."""


class Endpoint:
    """A client of one endpoint. A request that meets a connection error or a 5xx is tried again, a few times.

    Not for several threads at once: each has its own.
    """

    def __init__(
        self,
        url: str,
        task: str | None = None,
        *,
        key: str | None = None,
        verify: ssl.SSLContext | bool = True,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        """`task` is the one that is asked, of several; without it the endpoint serves one. `verify` is httpx's. Raises
        `InputError` for a URL that is none of HTTP's."""
        if not url.startswith(("http://", "https://")):
            raise InputError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False, verify=verify)
        self._again = partial(Endpoint, url, task, key=key, verify=verify, retries=0)
        self._task, self._prefix = task, "" if task is None else f"/models/{task}"
        self._waits = _PATIENCE[:retries]
        self.counts = Counts()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def meanwhile(self, bodies: Sequence[object]) -> AbstractContextManager[Counts]:
        """`background` traffic."""
        return background(self._again, bodies)

    def post(self, path: str, body: object) -> dict[str, Any]:
        """POST a JSON body. Raises `InputError` with the endpoint's words on a 4xx, `OutsideError` when it is away."""
        content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        self.counts.sent += 1
        path = self._prefix + path
        return self._answer(lambda: self._client.post(path, content=content), f"POST {path}", self._waits)

    def model(self, *, patient: bool = True) -> dict[str, Any]:
        """`GET /model`: task, version, backlog of the log. Not counted: it is no traffic of a user."""
        waits, path = self._waits if patient else (), self._prefix or "/model"
        return self._answer(lambda: self._client.get(path), f"GET {path}", waits, counted=False)

    def _answer(
        self, ask: Callable[[], httpx.Response], what: str, waits: Sequence[float], *, counted: bool = True
    ) -> dict[str, Any]:
        response, problem = None, ""
        for wait in (*waits, None):
            try:
                response, problem = ask(), ""
            except httpx.TransportError as error:
                response, problem = None, f"{type(error).__name__}: {error}"
            if response is not None and response.status_code < 500:
                break
            if wait is not None:
                self.counts.retried += counted
                time.sleep(wait)
        return self._read(response, what, problem, counted)

    def _read(self, response: httpx.Response | None, what: str, problem: str, counted: bool) -> dict[str, Any]:
        if response is not None and response.is_success:
            answer: dict[str, Any] = orjson.loads(response.content)
            return answer
        self.counts.failed += counted
        where = f"{self._client.base_url}, {what}"
        if response is None:
            raise OutsideError(f"{where}: no answer ({problem}){_advice(self._client.base_url, problem, self._task)}")
        hint = " (Everfit's own programs send EVERFIT_API_KEY)" if response.status_code in (401, 403) else ""
        said = f"{where}: {response.status_code} {_words(response)}{hint}"
        raise OutsideError(said) if response.status_code >= 500 else InputError(said)


def _advice(url: httpx.URL, problem: str, task: str | None) -> str:
    """What to do about a URL that gave no answer: another scheme, or to start the endpoint, of a task that is known."""
    if url.scheme == "http" and speaks_tls(url.host, url.port or 80):
        return f"; it speaks HTTPS: ask {url.copy_with(scheme='https')}"
    if "CERTIFICATE_VERIFY_FAILED" in problem:
        return "; with EVERFIT_TLS_CERT as the endpoint has it, and without --url, its very certificate is trusted"
    if "WRONG_VERSION_NUMBER" in problem:
        return f"; it does not speak HTTPS: ask {url.copy_with(scheme='http')}"
    return f"; to start the endpoint: everfit up {task}" if task and "ConnectError" in problem else ""


def speaks_tls(host: str, port: int, timeout: float = 2.0) -> bool:
    """Whether whoever listens there shakes hands by TLS, by whatever certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    with (
        suppress(OSError),
        socket.create_connection((host, port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        return True
    return False


def _words(response: httpx.Response) -> str:
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return response.text[:300]
    if not isinstance(problem, dict):
        return ""
    told = (problem[name] for name in ("detail", "title", "error") if problem.get(name))  # the last one is V2's
    return str(next(told, problem))[:600]


@contextmanager
def background(client: Callable[[], Endpoint], bodies: Sequence[object], *, rate: float = 20.0) -> Iterator[Counts]:
    """While the block runs, POST the bodies to `/predict` round and round, `rate` a second, by a client of its own.

    No request is tried twice: whatever the endpoint drops is counted as failed. The counts are whole after the block.
    """
    counts, stop = Counts(), threading.Event()
    endpoint = client()
    thread = threading.Thread(target=_keep_asking, args=(endpoint, bodies, 1 / rate, counts, stop), daemon=True)
    if bodies:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        if bodies:
            thread.join(timeout=60)
        endpoint.close()


def _keep_asking(
    endpoint: Endpoint, bodies: Sequence[object], pause: float, counts: Counts, stop: threading.Event
) -> None:
    for body in itertools.cycle(bodies):
        with suppress(OutsideError, InputError):  # counted; the traffic goes on
            endpoint.post("/predict", body)
        if stop.wait(pause):
            break
    counts.sent, counts.failed = endpoint.counts.sent, endpoint.counts.failed
