"""Rows of a request answered and logged: the hot path, with nothing on it that a request does not need.

A small request is answered in one go on the event loop: handing it to a thread would cost more than the graph does.
A large one is read and scored in a thread, so that others are answered meanwhile; images are always decoded in one,
since a small file may be a large image.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import orjson

from registry.errors import EverfitError, RowError
from registry.log_ids import Run, ids_of, run_of, runs_of
from registry.scoring import Feed, Scores
from serving.batching import Batcher
from serving.cautions import of_unknown
from serving.challenger import chosen
from serving.champion import Outcome, Served, Slot
from serving.columns import Table, plain
from serving.context import NOTES
from serving.journal import TABLE
from serving.logbook import Logbook
from serving.metrics import Counts
from serving.request import Request
from serving.rows import Row
from serving.sightings import Sighting, sightings
from serving.tabled import payload

THREAD_ROWS = 64
"""From so many rows on a request is answered in a thread: about a millisecond of work."""

RUN_MICROS = 200_000
"""As often the keeper looks for what it stores together (`keeper.TICK_SECONDS`, which no worker imports)."""

_NOT_FINITE = "row {row}: the model has no finite answer to these values"

KEY_HEADER = b"x-everfit-key"
"""Who asks, in the client's words: all requests with one key are answered by one version."""


class Answer(NamedTuple):
    """What was answered to rows, and logged."""

    served: Served
    ids: list[str]
    outcome: Outcome
    warnings: Sequence[str]
    body: bytes
    """The whole answer by rows in JSON; nothing where it is wanted by columns."""

    @property
    def scores(self) -> Scores:
        """The answer as the graph gives it."""
        return self.served.scores(self.outcome)


class _Scored(NamedTuple):
    """Scores, what to be cautious of in the rows, the answer unless it is a table's, what was seen of images, if any,
    what is logged instead of what was sent, or of all, and how many warnings are of columns that nobody reads."""

    outcome: Outcome
    warnings: Sequence[str]
    body: bytes = b""
    seen: list[Sighting] | None = None
    sent: bytes | None = None
    record: bytes | None = None
    unread: int = 0


class Ids:
    """Prediction ids: 24 hexadecimal characters, the first 14 the time in microseconds, which may be `RUN_MICROS` ago,
    the rest this process's own. Ids sort in the order in which they were made; within that time they follow one
    another, so that the log has one place for all of them."""

    def __init__(self) -> None:
        self._next = self._until = 0
        self._own = secrets.token_hex(5)

    def take(self, count: int) -> list[str]:
        """The next ids."""
        if (now := time.time_ns() // 1000) >= self._until:
            self._next, self._until = max(now, self._next), now + RUN_MICROS
        first = self._next
        self._next += count
        return ids_of([(self._own, first, count)])


class Predictor:
    """A task's versions at work: rows in, answers out, and into the log, for every route alike."""

    def __init__(self, slot: Slot, logbook: Logbook, counts: Counts) -> None:
        self._slot, self._logbook, self._counts = slot, logbook, counts
        self.ids = Ids()
        self.batcher = Batcher(THREAD_ROWS)

    async def answer(self, request: Request, sent: bytes, key: bytes, served: Served | None = None) -> Answer:
        """The answer to rows, logged: `sent` is what the journal keeps of them, in a form of `POST /predict`; a table
        is kept by columns, whatever was sent.

        They are answered by `served`, if it is given; else by the canary for its share of the keys, by the champion for
        the rest and for what the canary cannot answer.
        """
        if served is not None:
            return await self._answer(request, sent, served)
        chosen_one = self._version_for(key)
        try:
            return await self._answer(request, sent, chosen_one)
        except EverfitError:
            if (champion := self._slot.served()) is chosen_one:
                raise
            return await self._answer(request, sent, champion)

    def _version_for(self, key: bytes) -> Served:
        canary = self._slot.canary
        return canary[0] if canary is not None and chosen(key, canary[1]) else self._slot.served()

    async def _answer(self, request: Request, sent: bytes, served: Served) -> Answer:
        received, rows = time.time_ns() // 1000, request.rows
        ids = request.ids or self.ids.take(len(request))
        if len(rows) == 1:
            scored = await self._one(served, ids, rows[0])
        elif request.table is None:
            scored = await _apart(served, _many, ids, rows, rows=len(rows))
        elif served.image is None:
            runs = [run_of(ids[0], len(ids))] if request.ids is None else runs_of(ids)
            scored = await _apart(served, _table, runs, request.table, received, rows=len(request))
        else:
            scored = await _apart(served, _table_of_images, ids, request.table, rows=len(request))
        if scored.record is not None:
            self._logbook.append(served.version, served.record, scored.record, len(request), TABLE)
        else:
            seen = b"" if scored.seen is None else b'"seen":%b,' % orjson.dumps(scored.seen)
            self._logbook.append(
                served.version,
                served.record,
                b'{"received":%d,"answer":%b,%b"sent":%b}' % (received, scored.body, seen, scored.sent or sent),
                len(request),
            )
        if self._logbook.synced:
            await self._logbook.settle()
        self._count(served, request, len(scored.warnings) - scored.unread)
        return Answer(served, ids, scored.outcome, scored.warnings, scored.body)

    async def _one(self, served: Served, ids: list[str], row: Row) -> _Scored:
        reader, image = served.reader, served.image
        values = reader.values(row) if image is None else await asyncio.to_thread(reader.values, row)
        outcome = await self.batcher.score(served, values)
        unread = of_unknown(reader.unknown([row]))
        warnings, body = written(served, ids[0], values, outcome, served.cautions.of_images([row]), unread)
        if image is None or not isinstance(outcome, Scores):
            return _Scored(outcome, warnings, body, unread=len(unread))
        place = served.manifest.data_schema.names.index(image.name)
        return _Scored(outcome, warnings, body, sightings([row], [values[place]], image, outcome), unread=len(unread))

    def _count(self, served: Served, request: Request, outside: int) -> None:
        reader, table = served.reader, request.table
        ignored = reader.ignored(request.rows) if table is None else len(reader.strange(table.others)) * table.rows
        self._counts.predictions[served.version] += len(request)
        self._counts.outside_range += outside
        self._counts.ignored_values += ignored
        if (notes := NOTES.get()) is not None:
            notes.version, notes.rows = served.version, len(request)


def written(
    served: Served,
    name: str,
    values: list[Any],
    outcome: Outcome,
    said: Sequence[str] = (),
    unread: Sequence[str] = (),
) -> tuple[Sequence[str], bytes]:
    """The warnings about a row, of which these `values` were scored, after those `said` already and before those of
    columns `unread`, and the body of the answer under this id. Raises `RowError` for an answer that is no number."""
    warnings = [*said, *served.cautions.one(values), *unread]
    if isinstance(outcome, Scores):
        _require_finite(outcome)
        return warnings, served.answers.write([name], outcome, warnings)
    if not math.isfinite(outcome[-2]):
        raise RowError(_NOT_FINITE.format(row=0))
    return warnings, served.answers.write_one(name, outcome, served.scorer.conformal_radius, warnings)


async def _apart(served: Served, work: Callable[..., _Scored], *args: Any, rows: int) -> _Scored:
    """Work on many rows, or on images, in a thread."""
    if rows < THREAD_ROWS and served.image is None:
        return work(served, *args)
    return await asyncio.to_thread(work, served, *args)


def _many(served: Served, ids: list[str], rows: list[Row]) -> _Scored:
    feed = served.reader.many(rows)
    scores = _scores(served, feed)
    image, unread = served.image, of_unknown(served.reader.unknown(rows))
    warnings = [*served.cautions.of_images(rows), *served.cautions.of(feed), *unread]
    seen = None if image is None else sightings(rows, feed[image.name], image, scores)
    return _Scored(scores, warnings, served.answers.write(ids, scores, warnings), seen, unread=len(unread))


def _table(served: Served, runs: Sequence[Run], table: Table, received: int) -> _Scored:
    feed = served.reader.table(table)
    scores = _scores(served, feed)
    record = payload(served.version, served.logged, runs, table, scores, received)
    unread = of_unknown(served.reader.strange(table.others))
    return _Scored(scores, [*served.cautions.of(feed, table.full), *unread], record=record, unread=len(unread))


def _table_of_images(served: Served, ids: list[str], table: Table) -> _Scored:
    feed = served.reader.table(table)
    scores = _scores(served, feed)
    image = served.image
    assert image is not None
    rows = [{image.name: value} for value in plain(table.columns[image.name])]
    unread = of_unknown(served.reader.strange(table.others))
    warnings = [*served.cautions.of_images(rows), *served.cautions.of(feed), *unread]
    seen = sightings(rows, feed[image.name], image, scores)
    body = served.answers.write_columns(served.answers.columns(ids, scores), warnings)
    return _Scored(scores, warnings, body, seen, table.to_json(), unread=len(unread))


def _scores(served: Served, feed: Feed) -> Scores:
    started = perf_counter()
    scores = served.scorer.run_in_parts(feed)
    if (notes := NOTES.get()) is not None:
        notes.graph = started, perf_counter(), len(scores)
    _require_finite(scores)
    return scores


def _require_finite(scores: Scores) -> None:
    if not math.isfinite(sum(values := scores.uncertainty.tolist())):
        row = next((row for row, value in enumerate(values) if not math.isfinite(value)), 0)
        raise RowError(_NOT_FINITE.format(row=row))
