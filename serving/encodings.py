"""Bodies as clients of other servers send them and ask for them: compressed, and as JSON that Python wrote, with NaN in
it."""

from __future__ import annotations

import json
import zlib
from typing import Any

import orjson
from starlette.types import Scope

from serving.body import parse
from serving.problems import BodyError, MediaTypeError, TooLargeError

_ANY_HEADER, _NO_HEADER = 47, -15
"""`wbits` of zlib: gzip or zlib, whichever it is; deflate without a header."""

_HEADERS = {b"gzip": 31, b"deflate": 15}
"""`wbits` of what is sent: HTTP's deflate is zlib's form of it."""

_QUICK, _LEAST_BYTES = 1, 1_000


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header, by its name in lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


def decompress(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """A body without its `Content-Encoding`; at most `limit` bytes are made of it, and one more.

    Raises `TooLargeError`, `MediaTypeError` for an encoding other than gzip and deflate, `BodyError` for damaged data.

    >>> decompress(zlib.compress(b"a" * 9), b"deflate", 9)
    b'aaaaaaaaa'
    """
    name = (encoding or b"identity").strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        raise MediaTypeError(f"Content-Encoding: expected gzip or deflate, got {name[:40].decode('latin-1')!r}")
    bare = name == b"deflate" and not _has_zlib_header(body)
    unpacker = zlib.decompressobj(_NO_HEADER if bare else _ANY_HEADER)
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BodyError(f"the body is not {name.decode()} data: {error}") from error
    if len(found) > limit:
        raise TooLargeError(f"the body: expected at most {limit} bytes (EVERFIT_MAX_BODY_BYTES), it unpacks to more")
    if not unpacker.eof or unpacker.unused_data:
        rest = "more follows its end" if unpacker.eof else "it ends too early"
        raise BodyError(f"the body is not {name.decode()} data: {rest}")
    return found


def compress(body: bytes, accepted: bytes | None) -> tuple[bytes, bytes] | None:
    """An answer compressed, and its `Content-Encoding`, where `Accept-Encoding` names gzip or deflate and nothing else:
    so somebody asks who wants it. What libraries send by themselves names several, and to compress for those would cost
    all of them time; a small answer is not worth it.

    >>> compress(b"a" * 5_000, b"gzip, deflate"), compress(b"a" * 99, b"gzip")
    (None, None)
    >>> decompress(*compress(b"a" * 5_000, b"gzip"), 5_000) == b"a" * 5_000
    True
    """
    name = (accepted or b"").strip().lower()
    if name not in _HEADERS or len(body) < _LEAST_BYTES:
        return None
    packer = zlib.compressobj(_QUICK, wbits=_HEADERS[name])
    return packer.compress(body) + packer.flush(), name


def parse_python(body: bytes) -> Any:
    """JSON as Python's own `json` writes it: NaN is a missing value, None. Raises `BodyError`; Infinity is no value."""
    try:
        return parse(body)
    except BodyError:
        if b"NaN" not in body:
            raise
    try:
        read = json.loads(body, parse_float=_finite, parse_constant=_constant)
        return parse(orjson.dumps(read))  # what orjson does not read, such as half a surrogate, ends here
    except (ValueError, TypeError, RecursionError) as error:
        raise BodyError(f"the body is not JSON: {str(error)[:200]}") from error


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"expected a number, got {name}")
