"""What a client of `POST /predict` gets back when it is not the plain answer: some fields only, or another form.

    ?fields=prediction,interval    these fields, in this order
    Accept: application/json, application/vnd.apache.arrow.stream, application/vnd.apache.parquet

Without `Accept` the answer has the form of the request: rows for rows, columns for columns. The log holds the whole
answer in any case.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from starlette.types import Scope

from serving.answers import STRANGE, Answers
from serving.columns import JSON
from serving.prediction import THREAD_ROWS, Answer
from serving.problems import Headers
from serving.quoting import shorten, shown
from serving.request import Request, arrow_is_loaded
from serving.rows import MisfitError
from serving.tables import FILE, PARQUET, STREAM

MOST_PARAMETERS = 10


def fields_of(scope: Scope, answers: Answers) -> tuple[str, ...] | None:
    """The fields that a request asks for; None for all. To be looked at before anything is predicted: what is refused
    must not be logged. Raises `MisfitError` for fields that do not exist."""
    if not (query := scope.get("query_string")):
        return None
    try:
        given = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError as error:
        raise MisfitError(f"expected no parameter but fields: {error}") from error
    if wrong := next((name for name in given if name != "fields"), None):
        raise MisfitError(f"expected no parameter but fields, got {shown(wrong)}", column=str(shorten(wrong)))
    return answers.asked(",".join(given["fields"])) if given else None


async def reply_of(
    scope: Scope, request: Request, answer: Answer, fields: tuple[str, ...] | None
) -> tuple[bytes, Headers | None]:
    """The body, and its headers where it is not JSON."""
    if fields is None and request.table is None:
        return answer.body, None  # the quick way, of rows in JSON
    form = JSON if request.table is None else _form(scope, request.table.form)
    if len(request) < THREAD_ROWS and (form == JSON or arrow_is_loaded()):
        return _reply(request, answer, fields, form)
    return await asyncio.to_thread(_reply, request, answer, fields, form)


def _reply(request: Request, answer: Answer, fields: tuple[str, ...] | None, form: str) -> tuple[bytes, Headers | None]:
    answers = answer.served.answers
    columns = answers.columns(answer.ids, answer.scores)
    if fields is not None:
        if STRANGE in fields:
            columns[STRANGE] = answer.served.unfamiliar.of(request, answer.scores)
        columns = {name: columns[name] for name in fields}
    if form == JSON:
        write = answers.write_rows if request.table is None else answers.write_columns
        return write(columns, answer.warnings), None
    from serving.arrow import packed

    body = packed(columns, {**answers.model, "warnings": list(answer.warnings)}, form)
    return body, [(b"content-type", form.encode()), (b"content-length", b"%d" % len(body))]


def _form(scope: Scope, came_in: str) -> str:
    """The first form in `Accept` that there is; that of the request where none is named."""
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"").decode("latin-1")
    names = [one.partition(";")[0].strip().lower() for one in accepted.split(",")]
    return next((name for name in names if name in (JSON, STREAM, FILE, PARQUET)), came_in)
