"""What a body says it is: the media types that the routes of Everfit's own read.

A body's first bytes say which form it has; the type only has to be one of those. Without any, and with the one that
`curl -d` sends where nobody names another, a body is read all the same.
"""

from __future__ import annotations

from starlette.types import Scope

from serving.encodings import header_of
from serving.problems import MediaTypeError
from serving.quoting import shown
from serving.tables import FILE, PARQUET, STREAM

_JSON = (b"application/json", b"text/json", b"text/plain", b"application/x-www-form-urlencoded")
_TABLES = {one.encode(): one for one in (STREAM, FILE, PARQUET)}
_ANY = b"application/octet-stream"


def is_rows(kind: bytes | None) -> bool:
    """Whether rows may come under a `Content-Type`, as it was sent."""
    name = _name(kind)
    return not name or name in _JSON or name in _TABLES or name == _ANY or name.endswith(b"+json")


def require_rows(scope: Scope) -> None:
    """Raises `MediaTypeError` for a body that says it is something else."""
    if not is_rows(kind := header_of(scope, b"content-type")):
        forms = ", ".join(("application/json", *_TABLES.values()))
        raise MediaTypeError(f"Content-Type: expected one of {forms}, got {shown(_name(kind).decode('latin-1'))}")


def table_named(scope: Scope) -> str | None:
    """Which form of a table a body says it is, if one."""
    return _TABLES.get(_name(header_of(scope, b"content-type")))


def _name(kind: bytes | None) -> bytes:
    return b"" if kind is None else kind.partition(b";")[0].strip().lower()
