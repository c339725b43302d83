"""Who passes: the key of a request, its scope, its task and its rate, looked at before any route.

A look costs a request less than 3 microseconds: a key that was seen is found by the bytes of its header. The file of
keys is read again when it has changed, which is looked for once a second at most.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from starlette.types import Scope as Request

from registry.errors import EverfitError, InputError
from registry.settings import Settings
from serving.keys import SCOPES, Key, Scope, digest_of, read_keys
from serving.problems import RETRY_SECONDS
from serving.rates import Rates
from serving.webhook import PATH

OPEN = frozenset(("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/ping", PATH))
"""The routes that no key is asked for: those of an orchestrator's probes, and the webhook, which is signed."""

OWN = "@everfit"
"""What the key of this machine's own programs is called, as no key of the file can be."""

LOOK_SECONDS = 1.0
_LOG = logging.getLogger("uvicorn.error")
_PREDICT = ("/predict", "/infer", "/invocations")
_NOBODY = "expected the header `Authorization: Bearer KEY` with a key of this endpoint"


def scope_of(method: str, path: str) -> Scope:
    """The scope that a route asks for. What is not known to be harmless asks for `admin`.

    >>> scope_of("POST", "/models/flights/predict"), scope_of("GET", "/metrics"), scope_of("DELETE", "/model")
    ('predict', 'read', 'admin')
    """
    if method == "POST" and not path.startswith("/v2/repository/"):
        if path.endswith(_PREDICT):
            return "predict"
        if path.endswith("/feedback"):
            return "feedback"
    return "read" if method in ("GET", "HEAD", "OPTIONS") or path == "/v2/repository/index" else "admin"


def task_of(path: str) -> str | None:
    """The task that a path names, if it does.

    >>> task_of("/models/flights/predict"), task_of("/v2/models/flights/infer"), task_of("/predict")
    ('flights', 'flights', None)
    """
    parts = path.split("/")
    if parts[1:2] == ["v2"]:
        del parts[1]
    if parts[1:2] == ["repository"]:
        del parts[1]
    return parts[2] if parts[1:2] == ["models"] and len(parts) > 2 else None


class Pass:
    """What one key opens."""

    def __init__(self, key: Key) -> None:
        self.name, self.scopes, self.task = key.name, frozenset(key.scopes), key.task
        self.digest, self.rate = key.digest, key.rate


class Refusal(NamedTuple):
    """Why a request may not pass: the answer's status and words, and after how many seconds it may be tried again."""

    status: int
    detail: str
    retry: int = RETRY_SECONDS


class Verdict(NamedTuple):
    """What the guard said of a request."""

    refusal: Refusal | None


class Guard:
    """Belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        whose: Callable[[str], str | None],
        rates: Rates | None = None,
        own: str | None = None,
    ) -> None:
        """`whose` gives the task of a path that names none, if it has one; `rates` are those that other workers share;
        `own` is the key of this machine's own programs. Raises `InputError` for a file of keys that is not sound, and
        when the endpoint would be open to other machines and no key is there."""
        self._file, self._whose, self._rates = settings.key_file, whose, rates or Rates()
        key = None if settings.api_key is None else settings.api_key.get_secret_value()
        given = [_whole("", key)] if key is not None else []
        self._given = {one.digest: Pass(one) for one in (*given, *([_whole(OWN, own)] if own is not None else []))}
        self._always = not settings.is_local or key is not None
        self._seen: dict[bytes, Pass] = {}
        self._passes = dict(self._given)
        self._stamp = _stamp(self._file)
        self.closed = self._always
        """Whether a key is asked for: always, but on loopback before the first key is made, and once all are revoked
        and it was said that none is wanted."""
        self._read()
        self._look_at = monotonic() + LOOK_SECONDS
        if not settings.is_local and self._is_shut():
            raise InputError(
                f"EVERFIT_HOST={settings.host!r} listens beyond this machine, and every key is revoked: make one with "
                "`everfit key add`, or set EVERFIT_API_KEY"
            )
        self._tell_if_shut()

    def refusal(self, request: Request) -> Refusal | None:
        """Why a request may not pass, if so. A key with a rate has one request less with each call."""
        now = self._looked()
        path = request["path"]
        if not self.closed or path in OPEN:
            return None
        given = b""
        for name, value in request["headers"]:
            if name == b"authorization":
                given = value
                break
        known = self._seen.get(given) or self._find(given)
        if known is None:
            return Refusal(401, _NOBODY)
        if scope_of(request["method"], path) not in known.scopes:
            return Refusal(403, f"the key {known.name!r} has not the scope {scope_of(request['method'], path)!r}")
        if known.task is not None and known.task != (task_of(path) or self._whose(path)):
            return Refusal(403, f"the key {known.name!r} is for the task {known.task!r} alone")
        if known.rate is not None and (wait := self._rates.wait(known.digest, known.rate, now)):
            detail = f"the key {known.name!r} may send {known.rate:g} requests a second"
            return Refusal(429, detail, ceil(wait))
        return None

    def knows(self, request: Request) -> bool:
        """Whether a request, whatever its path is, comes from somebody who may pass somewhere."""
        self._looked()
        return not self.closed or self.name_of(request) is not None

    def may_read(self, request: Request, task: str) -> bool:
        """Whether what is told of a task is for who sent a request, whatever its path is."""
        self._looked()
        known = self._pass_of(request) if self.closed else None
        return not self.closed or (known is not None and "read" in known.scopes and known.task in (None, task))

    def name_of(self, request: Request) -> str | None:
        """The name of the key that a request came with; None for none, or one that is not known."""
        known = self._pass_of(request)
        return None if known is None else known.name or "EVERFIT_API_KEY"

    def _pass_of(self, request: Request) -> Pass | None:
        given = next((value for name, value in request["headers"] if name == b"authorization"), b"")
        return self._seen.get(given) or self._find(given)

    def _find(self, given: bytes) -> Pass | None:
        """Whose header this is. Only the usual spelling of those that pass is remembered, so that what is remembered is
        bounded by the number of keys."""
        scheme, _, secret = given.partition(b" ")
        found = self._passes.get(digest_of(secret.strip())) if scheme.lower() == b"bearer" else None
        if found is not None and given == b"Bearer " + secret.strip():
            self._seen[given] = found
        return found

    def _looked(self) -> float:
        """The moment; where it is time, the file of keys was looked at."""
        now = monotonic()
        if now >= self._look_at:
            self._look(now)
        return now

    def _look(self, now: float) -> None:
        """Read the keys again if the file is another one. Where that fails the keys stay as they were."""
        self._look_at = now + LOOK_SECONDS
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._read()
            self._tell_if_shut()
        except EverfitError as error:
            _LOG.error("the keys stay as they were: %s", error)

    def _read(self) -> None:
        """A file that is gone opens nothing: its keys are void, and keys are asked for still."""
        found = read_keys(self._file)
        live = {key.digest: Pass(key) for key in found.live}
        self._passes, self._seen = {**self._given, **live}, {}
        if self._stamp is not None:
            self.closed = self._always or not found.open

    def _is_shut(self) -> bool:
        """Whether nobody may pass but this machine's own programs."""
        return self.closed and all(one.name == OWN for one in self._passes.values())

    def _tell_if_shut(self) -> None:
        if self._is_shut():
            _LOG.warning(
                "every key is revoked: all requests are answered 401 until there is one (everfit key add), or, on "
                "loopback, until none is asked for (everfit key open)"
            )


def _whole(name: str, secret: str) -> Key:
    """A key with every scope that is not of the file: that of the settings has no name."""
    return Key(name=name, digest=digest_of(secret.encode()), scopes=SCOPES, made=datetime.now(UTC))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None where there is no file."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
