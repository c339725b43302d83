"""API keys: who may ask an endpoint for what. They are made and revoked by `everfit key`, and read by the endpoint.

A key is shown once, when it is made; the file holds its SHA-256 alone. A slow, salted hash, which passwords need as
people choose them, would add nothing: a key is 32 random bytes, and nobody guesses one of 2^256 however fast each guess
is tried. A quick hash also lets a presented key be found by its hash, whose timing tells nothing of the key itself.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp()) / "keys.json"
    >>> secret = add_key(file, "shop", ["predict"], rate=100)
    >>> secret.startswith(PREFIX), secret in file.read_text()
    (True, False)
    >>> [key.name for key in read_keys(file).live if key.digest == digest_of(secret.encode())]
    ['shop']
    >>> revoke_key(file, "shop").live, open_door(file)
    (False, True)
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import Field, ValidationError

from registry.errors import InputError, StoreError, did_you_mean
from registry.locks import exclusive
from registry.schema import Frozen

Scope: TypeAlias = Literal["predict", "feedback", "read", "admin"]
"""Ask for predictions; report labels; look at models, metrics and documentation; change what the server serves."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "evf_"
"""What every key begins with, so that one that was left in a file or a log is found."""

_SECRET_BYTES = 32
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Key(Frozen):
    """What is kept of a key. `rate` is the most requests a second, of all workers
    together; `task` the only one it is for."""

    name: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    rate: float | None = Field(None, gt=0)
    task: str | None = None
    made: datetime
    revoked: datetime | None = None

    @property
    def live(self) -> bool:
        """Whether it opens anything."""
        return self.revoked is None


class KeyFile(Frozen):
    """What the file holds: all keys, in the order in which they were made, and whether somebody said that an endpoint
    on loopback is to ask for none any more (`open`), which making one takes back."""

    keys: tuple[Key, ...] = ()
    open: bool = False

    @property
    def live(self) -> tuple[Key, ...]:
        """Those that open something."""
        return tuple(key for key in self.keys if key.live)


def digest_of(secret: bytes) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(secret).hexdigest()


def read_keys(file: Path) -> KeyFile:
    """What a file of keys holds; nothing where there is no file.

    Raises `InputError` for a file that is not of keys, or that others may write; `StoreError` if it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            mode, content = os.fstat(opened.fileno()).st_mode, opened.read()
    except FileNotFoundError:
        return KeyFile()
    except OSError as error:
        raise StoreError(f"{file}: the keys cannot be read ({error.strerror})") from error
    if mode & 0o022:
        raise InputError(f"{file}: others may write it, and so make themselves keys: chmod 600 {file}")
    try:
        return KeyFile.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{file}: not a file of keys ({where}: {error.errors()[0]['msg']})") from error


def add_key(file: Path, name: str, scopes: Sequence[str], *, rate: float | None = None, task: str | None = None) -> str:
    """Make a key; returns it, for the only time. Raises `InputError` for a name that is taken or cannot be, and for a
    scope there is not; `BusyError` while another process changes the keys."""
    _check(name, scopes)
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with _changing(file):
        known = read_keys(file)
        if any(key.name == name for key in known.live):
            raise InputError(f"key {name!r} is there already: revoke it first, or choose another name")
        given = {"name": name, "digest": digest_of(secret.encode()), "made": _now(), "rate": rate, "task": task}
        ordered = tuple(scope for scope in SCOPES if scope in scopes)
        _write(file, KeyFile(keys=(*known.keys, Key.model_validate({**given, "scopes": ordered}))))
    return secret


def revoke_key(file: Path, name: str) -> Key:
    """Let a key open nothing any more. It stays in the list. Raises `InputError` for one that is not there, or was
    revoked before."""
    with _changing(file):
        known = read_keys(file)
        found = next((key for key in known.live if key.name == name), None)
        if found is None:
            if before := [key.revoked for key in known.keys if key.name == name and key.revoked is not None]:
                raise InputError(f"key {name!r} was revoked already, {max(before):%Y-%m-%d %H:%M} UTC; nothing changed")
            near = did_you_mean(name, [key.name for key in known.live])
            raise InputError(f"there is no key {name!r} to revoke{near}")
        ended = found.model_copy(update={"revoked": _now()})
        _write(file, KeyFile(keys=tuple(ended if key is found else key for key in known.keys)))
    return ended


def open_door(file: Path) -> bool:
    """Have endpoints on loopback ask for no key any more, as before the first one was made; whether they did. Raises
    `InputError` while a key is live: whoever has one would not be told that it says nothing any more."""
    with _changing(file):
        known = read_keys(file)
        if known.live:
            names = ", ".join(key.name for key in known.live)
            raise InputError(f"keys are live ({names}): revoke them first, everfit key revoke NAME")
        asked = bool(known.keys) and not known.open
        if asked:
            _write(file, known.model_copy(update={"open": True}))
    return asked


def _check(name: str, scopes: Sequence[str]) -> None:
    if _NAME.fullmatch(name) is None:
        raise InputError(f"name: expected lower-case letters, digits and hyphens, got {name!r}")
    if not scopes:
        raise InputError(f"scope: expected at least one of {', '.join(SCOPES)}")
    for scope in scopes:
        if scope not in SCOPES:
            raise InputError(f"scope: expected one of {', '.join(SCOPES)}, got {scope!r}{did_you_mean(scope, SCOPES)}")


def _changing(file: Path) -> AbstractContextManager[None]:
    return exclusive(file.parent / "locks" / "keys.lock", "`everfit key`")


def _write(file: Path, content: KeyFile) -> None:
    """Replace the file whole: an endpoint that reads it meets the old keys or the new ones."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with suppress(FileNotFoundError):
            partial.unlink()
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as opened:
            left_out = None if content.open else {"open"}  # an earlier Everfit reads keys alone
            opened.write(content.model_dump_json(indent=1, exclude=left_out).encode())
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        raise StoreError(f"{file}: the keys cannot be written ({error.strerror})") from error


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
