"""The reading side of a run's journal: its records become rows of the inference log, in the order of writing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.log_packed import Packed
from registry.task import LogColumns
from serving.discretion import Discretion, write_private
from serving.journal import MODEL, TABLE, DamagedError, Position, read_frames, segment_path, segments
from serving.records import Model, Read, Record, read
from serving.shadow import Shadow
from serving.sightings import Album, Picture, pictures
from serving.tabled import Tabled, tabled

BATCH_ROWS = 5_000
"""About so many are stored together, and held in memory."""


class Served(NamedTuple):
    """A served version as the journal describes it, and what the task that it was made for says of the log."""

    told: Model
    log: LogColumns


class Request(NamedTuple):
    """A request of the journal: where its frame ends, the frame, and who answered it."""

    place: Position
    payload: bytes
    record: Record | Tabled
    model: Served


class Group(NamedTuple):
    """Requests that one version answered, and whether another one predicts their rows too."""

    model: Served
    shadowed: bool
    read: Read | Tabled


class Run:
    """The reading side of one run's journal: how far its records are in the store."""

    def __init__(self, folder: Path, images: Album | None = None, discretion: Discretion | None = None) -> None:
        """`images` is where those of logged rows are kept; `discretion` says what of a row is hidden."""
        self.folder, self._images, self._discretion = folder, images, discretion
        self.at = Position(next(iter(segments(folder)), 1), 0)
        self.records = 0
        self.shadow: tuple[Shadow, Position] | None = None
        """A version that predicts too, and the place in the journal from which on it does."""
        self._models: dict[str, Served] = {}

    def drain(self, log: InferenceLog, *, alive: bool = False) -> bool:
        """Move the next records into the log; True if there may be more. Raises `StoreError`; nothing is lost.

        `alive` says that the run is still written: its last segment stays, and what comes to it meanwhile waits for the
        next call. A keeper on the heels of a busy endpoint would commit a few rows at a time.
        """
        known = segments(self.folder)
        if self.at.segment not in known:
            if not known:
                return False
            self._enter(known[0])
        path, last = segment_path(self.folder, self.at.segment), self.at.segment == known[-1]
        live, size = alive and last, path.stat().st_size
        try:
            if self._read(path, log) and not (live and self.at.offset >= size):
                return True
        except DamagedError:
            if live:
                raise
            path.rename(self.folder.parent / f"{self.folder.name}-{path.stem}.damaged")
        else:
            if not live:
                path.unlink()
        if not last:
            self._enter(known[known.index(self.at.segment) + 1])
        return not last

    def _enter(self, segment: int) -> None:
        self.at, self.records, self._models = Position(segment, 0), 0, {}

    def _read(self, path: Path, log: InferenceLog) -> bool:
        requests, records, begun, end = list[Request](), 0, self.at, self.at
        damaged: DamagedError | None = None
        try:
            for found in read_frames(path, self.at.offset):
                end, records = Position(self.at.segment, found.end), records + found.records
                requests += self._decode(found.payload, end)
                if records >= BATCH_ROWS:
                    self._store(requests, end, records, log)
                    requests, records = [], 0
        except DamagedError as error:
            damaged = error
        self._store(requests, end, records, log)
        if damaged is not None and end == begun:
            raise damaged
        return end > begun

    def _decode(self, payload: bytes, end: Position) -> Iterator[Request]:
        """The request in a frame, if there is one."""
        try:
            if payload[:1] == TABLE:
                table = tabled(memoryview(payload)[1:])
                yield Request(end, payload, table, self._models[table.packed.version])
                return
            content = orjson.loads(memoryview(payload)[1:])
            if payload[:1] == MODEL:
                log = LogColumns.model_validate(content.get("log") or {})
                self._models[content["version"]] = Served(content, log)
            else:
                yield Request(end, payload, content, self._models[content["answer"]["model"]["version"]])
        except (ValueError, LookupError, TypeError):
            self._set_aside(payload, end)

    def _store(self, requests: Sequence[Request], end: Position, records: int, log: InferenceLog) -> None:
        """Store what was read up to there."""
        groups = list(self._groups(requests))
        log.append_batches([self._hidden(one.read, one.model.log) for one in groups])
        if self._images is not None:
            self._images.keep([picture for one in groups for picture in self._shown(one)])
        self.at, self.records = end, self.records + records
        if self.shadow is not None:
            shadow, _ = self.shadow
            made = [batch for one in groups if one.shadowed for batch in shadow.beside(one.read.rows, one.read.made)]
            log.append_batches([self._hidden_batch(batch, shadow.made_for) for batch in made])

    def _groups(self, requests: Sequence[Request]) -> Iterator[Group]:
        """The requests by who answered them; each alone where another version predicts their rows too, since what that
        one cannot answer must not cost it others."""
        groups: dict[tuple[str, Position | None], list[Request]] = {}
        for one in requests:
            version = one.model.told["version"]
            shadowed = self.shadow is not None and one.place > self.shadow[1] and version != self.shadow[0].version
            if isinstance(one.record, Tabled):
                yield Group(one.model, shadowed, one.record)
            else:
                groups.setdefault((version, one.place if shadowed else None), []).append(one)
        for (_, place), some in groups.items():
            for found in self._understood(some):
                yield Group(some[0].model, place is not None, found)

    def _understood(self, requests: Sequence[Request]) -> list[Read]:
        """What one version's requests by rows say. One that cannot be understood is set aside."""
        try:
            records = [one.record for one in requests if not isinstance(one.record, Tabled)]
            return read(records, requests[0].model.told)
        except (ValueError, LookupError, TypeError):
            if len(requests) > 1:
                return [found for one in requests for found in self._understood([one])]
            self._set_aside(requests[0].payload, requests[0].place)
            return []

    def _set_aside(self, payload: bytes, end: Position) -> None:
        """Leave a frame to a person to look at: it must not hold up all that follow."""
        name = f"{self.folder.name}-{end.segment:08d}-{end.offset}.damaged"
        write_private(self.folder.parent / name, payload)

    def _hidden(self, found: Read | Tabled, made_for: LogColumns) -> Batch | Packed:
        """Predictions as they may be logged, of a model that was made for such a task."""
        if isinstance(found, Tabled) and (self._discretion is None or not self._discretion.columns(made_for).names):
            return found.packed
        return self._hidden_batch(found.made, made_for)

    def _hidden_batch(self, made: Batch, made_for: LogColumns) -> Batch:
        return made if self._discretion is None else self._discretion.hidden(made, made_for)

    def _shown(self, group: Group) -> Sequence[Picture]:
        """The images of rows that are to be kept: never those of a column that is hidden."""
        told, made_for = group.model
        if not told.get("keep") or isinstance(group.read, Tabled):
            return ()  # a request with images is kept by rows
        hidden = () if self._discretion is None else self._discretion.columns(made_for).names
        return () if told["image"]["name"] in hidden else pictures(group.read.rows, group.read.seen, told["image"])


def count_records(folder: Path) -> int:
    """How many records a run's segments hold; of a damaged one those before the damage."""
    total = 0
    for segment in segments(folder):
        with suppress(DamagedError):
            for found in read_frames(segment_path(folder, segment), 0, sys.maxsize):
                total += found.records
    return total
