"""What the inference log does not hold in plain: values dropped, hashed or encrypted before a row reaches the store.

A row's encrypted values are one JSON object, sealed by AES-256-GCM under a nonce of its own and bound to the row's task
and id. Hashes are HMAC-SHA256 over the column's name and the value's canonical form: equal values of a column stay
equal, and nobody without the key can try values out. Both keys come from the installation's one secret by HKDF (RFC
5869): `EVERFIT_LOG_KEY`, or a file that is made at first use. A random nonce is good for 2^32 rows a secret (NIST SP
800-38D).

    >>> from tempfile import mkdtemp
    >>> privacy = Privacy(LogColumns(drop=("ssn",), encrypt=("income",)), Vault(None, Path(mkdtemp()) / "log.key"))
    >>> hidden = privacy.hidden({"ssn": "078-05", "income": 51_000, "age": 40}, "loans a1")
    >>> hidden.features, hidden.private
    ({'age': 40}, LogColumns(drop=('ssn',), hash=(), encrypt=('income',)))
    >>> privacy.vault.unseal(hidden.sealed, "loans a1", "income")
    {'income': 51000}
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from registry.errors import InputError, StoreError
from registry.images import seen_names
from registry.schema import canonical_category
from registry.task import LogColumns, TaskSpec
from registry.texts import MAX_TEXT_LENGTH

HEX = 32
"""Characters of a hash that are kept: 128 bits."""

_INFO = b"everfit inference log"
_NONCE = 12


def to_json(value: Any) -> str:
    """A value as the log writes it: numpy's as Python's, what JSON lacks as text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()


class _Keys:
    """The two keys that come from one secret."""

    def __init__(self, secret: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        made = HKDF(algorithm=SHA256(), length=64, salt=None, info=_INFO).derive(secret.encode())
        self.cipher, self.mac = AESGCM(made[:32]), made[32:]


@dataclass(frozen=True)
class Vault:
    """The installation's secret: the one given, or that of a file (0600), which is made when first something is to be
    hidden. What was sealed with the file's secret stays readable once another one is given."""

    secret: str | None = field(default=None, repr=False)
    file: Path | None = None

    def seal(self, values: Mapping[str, Any], about: str) -> str:
        """Values encrypted; they open under the same `about` alone. Raises `InputError`, `StoreError`."""
        nonce = os.urandom(_NONCE)
        sealed = self._own.cipher.encrypt(nonce, to_json(values).encode(), about.encode())
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, about: str, column: str) -> dict[str, Any]:
        """The values again. Raises `InputError`, which names `column`, one of them, without the key they were sealed
        with."""
        from cryptography.exceptions import InvalidTag

        content = base64.b64decode(sealed)
        for keys in self._known:
            with suppress(InvalidTag):
                found = keys.cipher.decrypt(content[:_NONCE], content[_NONCE:], about.encode())
                values: dict[str, Any] = orjson.loads(found)
                return values
        raise InputError(f"column {column!r} is encrypted in the inference log, and {self._lack}")

    def digest(self, column: str, value: Any) -> str | None:
        """The hash of a column's value, None of a missing one; alike for 1, 1.0 and "1"."""
        text = to_json(value) if isinstance(value, (list, dict)) else canonical_category(value, MAX_TEXT_LENGTH)
        if value is None or value != value or text is None:
            return None
        return hmac.new(self._own.mac, f"{column}\0{text}".encode(), hashlib.sha256).hexdigest()[:HEX]

    @cached_property
    def _own(self) -> _Keys:
        """The keys that are written with."""
        if self.secret is not None:
            return _Keys(self.secret)
        if self.file is None:
            raise InputError("the log's columns cannot be hidden without a key: set EVERFIT_LOG_KEY")
        return _Keys(_read(self.file) or _make(self.file))

    @cached_property
    def _known(self) -> tuple[_Keys, ...]:
        """The keys that may have been written with."""
        kept = None if self.file is None else _read(self.file)
        return tuple(_Keys(secret) for secret in (self.secret, kept) if secret is not None)

    @property
    def _lack(self) -> str:
        if self._known:
            return "with another key than the one here: set EVERFIT_LOG_KEY to the key that it was encrypted with"
        place = "" if self.file is None else f", or put the key's file back at {self.file}"
        return f"its key is not here: set EVERFIT_LOG_KEY to it{place}"


class Hidden(NamedTuple):
    """A row's features as the log may hold them; which of its columns were dropped, hashed and encrypted (None: none);
    the encrypted values."""

    features: Mapping[str, Any]
    private: LogColumns | None
    sealed: str | None


@dataclass(frozen=True)
class Privacy:
    """Which columns a log hides, and the key to them."""

    columns: LogColumns = field(default_factory=LogColumns)
    vault: Vault = field(default_factory=Vault)

    def hidden(self, features: Mapping[str, Any], about: str) -> Hidden:
        """A row's features with what is to be hidden taken out; `about` names the row. Raises `InputError` for a key
        that cannot be used, `StoreError` for a file that cannot be made."""
        drop, hashed, encrypt = (tuple(_those(names, features)) for names in self.columns.lists)
        if not (drop or hashed or encrypt):
            return Hidden(features, None, None)
        left = {name: value for name, value in features.items() if name not in drop and name not in encrypt}
        left |= {name: self.vault.digest(name, features[name]) for name in hashed}
        sealed = self.vault.seal({name: features[name] for name in encrypt}, about) if encrypt else None
        return Hidden(left, _columns(drop, hashed, encrypt), sealed)


@lru_cache
def _columns(drop: tuple[str, ...], hashed: tuple[str, ...], encrypt: tuple[str, ...]) -> LogColumns:
    return LogColumns(drop=drop, hash=hashed, encrypt=encrypt)


def _those(names: tuple[str, ...], features: Mapping[str, Any]) -> Iterator[str]:
    """Those of the columns that a row has; with an image go the numbers it is seen by."""
    for name in names:
        if name in features:
            yield name
            yield from (one for one in seen_names(name) if one in features)


def hides_image(task: TaskSpec, image: str | None) -> str | None:
    """Why a task's log cannot hide a column of images as it says, and what to do; None where it can."""
    if image in task.log.hash:
        return f"{image!r} is an image, of which the log has a digest anyway: list it under `log.drop`"
    if image in task.log.encrypt and task.monitor.keep_images:
        return (
            f"{image!r} is an image, and kept images are files in plain: set `monitor.keep_images` to false, or list "
            "the column under `log.drop`"
        )
    return None


def _read(file: Path) -> str | None:
    """The secret of a file; None where there is none."""
    try:
        with file.open("rb") as opened:
            mode, content = os.fstat(opened.fileno()).st_mode, opened.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{file}: the log's key cannot be read ({error.strerror})") from error
    if mode & 0o077:
        raise InputError(f"{file}: others may read the log's key: chmod 600 {file}")
    return content.decode().strip()


def _make(file: Path) -> str:
    """Make a secret and keep it in the file, unless another process has just done so; the one that is in the file."""
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(secrets.token_hex(32).encode() + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(partial, file)
        partial.unlink()
    except OSError as error:
        raise StoreError(f"{file}: the log's key cannot be written ({error.strerror})") from error
    return _read(file) or ""
