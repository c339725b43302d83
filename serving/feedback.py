"""`POST /feedback`: true labels, late or repeated or of ids nobody knows yet; answered after the commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
from starlette.types import Scope

from registry.errors import RowError
from registry.target import Target
from serving.body import parse
from serving.champion import Slot
from serving.context import NOTES
from serving.hot import HotRoute, Reply
from serving.logbook import Label, Logbook
from serving.media import require_rows
from serving.metrics import Counts
from serving.quoting import shorten, shown
from serving.request import check_id, check_keys
from serving.rows import MisfitError, TooManyRowsError, micros

_FIELDS = ("id", "label", "time")

AHEAD = 86_400_000_000
"""Microseconds after now from which a label's time is told to be far ahead."""


class TakeFeedback(HotRoute):
    """The route, as an ASGI application."""

    name: ClassVar[str] = "/feedback"

    def __init__(self, slot: Slot, logbook: Logbook, counts: Counts, *, max_bytes: int, max_rows: int) -> None:
        super().__init__(slot, counts, max_bytes=max_bytes, max_rows=max_rows)
        self._logbook = logbook

    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """What became of the labels."""
        require_rows(scope)
        target = self._slot.served().manifest.target
        labels = read_labels(parse(body), target, self._max_rows, now=(now := time.time_ns() // 1000))
        if (notes := NOTES.get()) is not None:
            notes.rows = len(labels)
        counts = await self._logbook.feedback(labels)
        old, timed = counts.pop("old"), self._slot.served().manifest.task.time is not None
        warnings = [*_ahead(labels, now), *_overtaken(counts.pop("overtaken")), *_of_now(labels, old if timed else 0)]
        self._counts.feedback.update(counts)
        return Reply(orjson.dumps(counts | {"warnings": warnings} if warnings else counts))


def _ahead(labels: Sequence[Label], now: int) -> Iterator[str]:
    """What is said of labels that nobody sees for long: their time lies far in the future, by mistake as a rule."""
    found = [row for row, (_, _, when, _) in enumerate(labels) if when > now + AHEAD]
    if found:
        first = np.datetime_as_string(np.datetime64(labels[found[0]][2], "us"), unit="s")
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield (
            f"row {found[0]}, time: {first} is more than a day after now{more}: monitoring sees the label from then on "
            "only; the same label with its right time takes its place"
        )


def _of_now(labels: Sequence[Label], old: int) -> Iterator[str]:
    """What is said of labels without a time of rows that ended long ago, at `old` in microseconds; 0: they did not."""
    count = sum(when == received for _, _, when, received in labels) if old else 0
    if count:
        last = np.datetime_as_string(np.datetime64(old, "us"), unit="s")
        yield (
            f"labels without a time: {count}; they count as of now, and the newest row logged is of {last}: "
            "monitoring, which stands there, does not see them; the same labels with the time when they became known "
            "take their place"
        )


def _overtaken(count: int) -> Iterator[str]:
    """What is said of labels that were passed over though they say something else."""
    if count:
        yield (
            f"labels that were passed over: {count}; each says another value than one of its id that was received "
            "later, by the clock of the endpoint that took that one: set the clocks right and send them again"
        )


def read_labels(parsed: object, target: Target, max_rows: int, *, now: int) -> list[Label]:
    """The labels of a parsed body: one, a list, or `{"labels": [...]}`; `now` is the wall clock in microseconds.

    Raises `MisfitError` naming row, field and value, `TooManyRowsError` above `max_rows`.
    """
    if isinstance(parsed, dict) and "labels" in parsed:
        check_keys(parsed, ("labels",))
    if isinstance(parsed, dict) and isinstance(parsed.get("label"), list) and "id" not in parsed:
        raise MisfitError('expected a label, a list of labels or {"labels": [...]}, got a list of them under "label"')
    found = parsed.get("labels", [parsed]) if isinstance(parsed, dict) else parsed
    if not isinstance(found, list):
        raise MisfitError(f'expected a label, a list of labels or {{"labels": [...]}}, got {shown(found)}')
    if not found:
        raise MisfitError("labels: expected at least one, got none")
    if len(found) > max_rows:
        raise TooManyRowsError(f"labels: expected at most {max_rows} in one request, got {len(found)}")
    return [_label(row, one, target, now) for row, one in enumerate(found)]


def _label(row: int, one: Any, target: Target, now: int) -> Label:
    if not isinstance(one, dict) or not {"id", "label"} <= one.keys():
        raise MisfitError(f"row {row}: {_lacking(one)}", row=row)
    check_keys(one, _FIELDS, row)
    try:
        label = target.canonical(one["label"])
    except RowError as error:
        raise MisfitError(f"row {row}, {error}", row=row, column="label", value=one["label"]) from error
    return check_id(one["id"], row), label, _when(row, one.get("time"), now), now


def _lacking(one: object) -> str:
    """What was expected and what came; of an object, which fields are missing and which are none of a label's."""
    said = f"expected an object with id and label, got {shown(one)}"
    if not isinstance(one, dict):
        return said
    missing = " and ".join(name for name in ("id", "label") if name not in one)
    strange = ", ".join(repr(shorten(name)) for name in one if name not in ("id", "label", "time"))
    hint = f"; {strange}: no field of a label, which has id, label and time (may be left out)" if strange else ""
    whose = " (id is that of the prediction, in its answer)" if "id" not in one else ""
    return f"{said}: {missing} missing{whose}{hint}"


def _when(row: int, value: object, now: int) -> int:
    if value is None:
        return now
    try:
        return micros(value) if isinstance(value, str) else micros("")
    except ValueError as error:
        message = f"row {row}, time: expected an ISO 8601 date and time, got {shown(value)}"
        raise MisfitError(message, row=row, column="time", value=value) from error
