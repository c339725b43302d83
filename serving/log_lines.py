"""The server's own log lines: as text, or as one line of JSON each; with the id of the request that they are about."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import Literal

import orjson
from uvicorn.logging import DefaultFormatter

from serving.context import request_id


def arrange(form: Literal["text", "json"], *, with_values: bool) -> None:
    """Have uvicorn's lines written so. Without `with_values` an exception's words are left out."""
    for handler in logging.getLogger("uvicorn").handlers:
        handler.setFormatter(JsonLine() if form == "json" else TextLine("%(levelprefix)s %(message)s"))
    if not with_values:
        logging.getLogger("uvicorn.error").addFilter(without_values)


def without_values(record: logging.LogRecord) -> bool:
    """Take an exception's words, which may quote a request, out of a log line: its kind and its place stay."""
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, trace = record.exc_info
        record.msg, record.args = f"{record.getMessage()}{''.join(traceback.format_tb(trace))}{kind.__name__}", ()
        record.exc_info = record.exc_text = None
    return True


class TextLine(DefaultFormatter):
    """A line for people."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, the request's id behind it."""
        text = super().formatMessage(record)
        request = request_id()
        return text if request is None else f"{text.rstrip()} (request {request})"


class JsonLine(logging.Formatter):
    """A line for machines: time, level, logger, message, and where there are such, request_id and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        content = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := request_id()) is not None:
            content["request_id"] = request
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(content).decode()
