"""Errors in the words of the protocols that are not our own.

/v2...            {"error": "..."}                               422 becomes 400, which their clients know
.../invocations   {"error_code": "...", "message": "..."}        422 becomes 400
elsewhere         problem details (`serving/problems.py`)
"""

from __future__ import annotations

from typing import Any

import orjson

from serving.problems import Problem

_MLFLOW_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "INVALID_STATE",
    413: "REQUEST_LIMIT_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


def speaks_otherwise(path: str) -> bool:
    """Whether errors of this path are no problem details."""
    return path == "/v2" or path.startswith("/v2/") or path.endswith("/invocations")


def in_words_of(path: str, answer: Problem) -> Problem:
    """An answer to a request of this path, in its protocol's form."""
    if path == "/v2" or path.startswith("/v2/"):
        return _rewritten(answer, {"error": _detail(answer)})
    if path.endswith("/invocations"):
        code = _MLFLOW_CODES.get(_status(answer), "BAD_REQUEST" if answer.status < 500 else "INTERNAL_ERROR")
        return _rewritten(answer, {"error_code": code, "message": _detail(answer)})
    return answer


def _status(answer: Problem) -> int:
    return 400 if answer.status == 422 else answer.status


def _detail(answer: Problem) -> str:
    content = orjson.loads(answer.body)
    return str(content["detail"] or content["title"])


def _rewritten(answer: Problem, content: dict[str, Any]) -> Problem:
    body = orjson.dumps(content)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    kept = [(name, value) for name, value in answer.headers if name not in (b"content-type", b"content-length")]
    return Problem(_status(answer), own + kept, body)
