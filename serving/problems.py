"""Errors as answers: the error tree mapped to status codes, written as problem details (RFC 9457).

RowError (MisfitError names row, column, value)   422
BodyError, other InputError                       400
TooLargeError, TooManyRowsError                   413
UnsignedError                                     401
UnknownTaskError                                  404
MediaTypeError                                    415
NoModelError                                      503, Retry-After
other StateError                                  409
OutsideError                                      503, Retry-After
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from registry.errors import EverfitError, InputError, NoModelError, OutsideError, RowError, StateError
from serving.context import request_id, told_here
from serving.rows import MisfitError, TooManyRowsError

RETRY_SECONDS = 2
MEDIA_TYPE = "application/problem+json"

Headers = list[tuple[bytes, bytes]]


class BodyError(InputError):
    """A body that is not JSON."""


class TooLargeError(InputError):
    """A body larger than the endpoint reads."""


class MediaTypeError(InputError):
    """A body of a type, or in an encoding, that is not read here."""


class UnsignedError(InputError):
    """A webhook that is not signed as it should be."""


class UnknownTaskError(InputError):
    """A task that is not served here."""


_STATUSES: tuple[tuple[type[EverfitError], int], ...] = (
    (TooManyRowsError, 413),
    (TooLargeError, 413),
    (RowError, 422),
    (UnknownTaskError, 404),
    (UnsignedError, 401),
    (MediaTypeError, 415),
    (InputError, 400),
    (NoModelError, 503),
    (StateError, 409),
    (OutsideError, 503),
)


@dataclass(frozen=True)
class Problem:
    """An answer that says what went wrong."""

    status: int
    headers: Headers
    body: bytes


def problem_of(error: EverfitError) -> Problem:
    """The answer to a deliberate error."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    place = {"row": error.row, "column": error.column, "value": error.value} if isinstance(error, MisfitError) else {}
    known: dict[str, Any] = {name: value for name, value in place.items() if value is not None}
    return problem(status, str(error), **known)


def problem(status: int, detail: str, *, retry: int = RETRY_SECONDS, **more: Any) -> Problem:
    """Problem details as an answer. `more` are further members, such as the column; `retry` says after how many seconds
    a 429 or 503 may be tried again. `request_id` is the request's, as its header has it: an `instance` would have to be
    a URI, and what clients call their requests is none."""
    title = HTTPStatus(status).phrase
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    if (request := request_id()) is not None:
        content.setdefault("request_id", request)
    body = orjson.dumps(content, default=str)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += told_here()
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers.append((b"retry-after", str(retry).encode()))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers.append((b"connection", b"close"))
    return Problem(status, headers, body)
