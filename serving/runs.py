"""The reading side of a run's journal: its records become rows of the inference log, in the order of writing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.task import LogColumns
from serving.discretion import Discretion, write_private
from serving.journal import MODEL, DamagedError, Found, Position, read_frames, segment_path, segments
from serving.records import Model, predictions_of, rows_of
from serving.shadow import Shadow
from serving.sightings import Album, Picture, pictures

BATCH_ROWS = 5_000
"""About so many are stored together, and held in memory."""


class Served(NamedTuple):
    """A served version as the journal describes it, and what the task that it was made for says of the log."""

    told: Model
    log: LogColumns


class Request(NamedTuple):
    """A record of the journal, read: where it ends, how many predictions it was, these, what was sent, and the images
    to be kept; nothing of a record that is no request or cannot be read."""

    place: Position
    records: int
    made: Batch | None = None
    sent: Any = None
    shown: Sequence[Picture] = ()


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

        `alive` says that the run is still written: its last segment stays.
        """
        known = segments(self.folder)
        if self.at.segment not in known:
            if not known:
                return False
            self._enter(known[0])
        path, last = segment_path(self.folder, self.at.segment), self.at.segment == known[-1]
        try:
            if self._read(path, log):
                return True
        except DamagedError:
            if alive and last:
                raise
            path.rename(self.folder.parent / f"{self.folder.name}-{path.stem}.damaged")
        else:
            if not (alive and last):
                path.unlink()
        if not last:
            self._enter(known[known.index(self.at.segment) + 1])
        return not last

    def _enter(self, segment: int) -> None:
        self.at, self.records, self._models = Position(segment, 0), 0, {}

    def _read(self, path: Path, log: InferenceLog) -> bool:
        requests, rows, begun = list[Request](), 0, self.at
        damaged: DamagedError | None = None
        try:
            for found in read_frames(path, self.at.offset):
                requests.append(self._decode(found))
                rows += found.records
                if rows >= BATCH_ROWS:
                    self._store(requests, log)
                    requests, rows = [], 0
        except DamagedError as error:
            damaged = error
        self._store(requests, log)
        if damaged is not None and self.at == begun:
            raise damaged
        return self.at > begun

    def _store(self, requests: Sequence[Request], log: InferenceLog) -> None:
        if not requests:
            return
        batches = [(one.made, self._models[one.made.version].log) for one in requests if one.made is not None]
        log.append_batches(self._hidden(batches))
        if self._images is not None:
            self._images.keep([one for request in requests for one in request.shown])
        self.at = requests[-1].place
        self.records += sum(one.records for one in requests)
        if self.shadow is not None:
            self._cast_shadow(requests, log, *self.shadow)

    def _cast_shadow(self, requests: Sequence[Request], log: InferenceLog, shadow: Shadow, since: Position) -> None:
        for one in requests:
            if one.place > since and one.made is not None and one.made.version != shadow.version:
                made = shadow.beside(rows_of(one.sent), one.made)
                log.append_batches(self._hidden([(batch, shadow.made_for) for batch in made]))

    def _hidden(self, batches: Sequence[tuple[Batch, LogColumns]]) -> Iterable[Batch]:
        """Predictions as they may be logged, of models that were made for such tasks."""
        for made_for, some in groupby(batches, key=itemgetter(1)):
            made = [batch for batch, _ in some]
            yield from made if self._discretion is None else self._discretion.hidden(made, made_for)

    def _shown(self, model: Served) -> bool:
        """Whether images of a model's rows are kept: never those of a column that is hidden."""
        if not model.told.get("keep"):
            return False
        return self._discretion is None or model.told["image"]["name"] not in self._discretion.columns(model.log).names

    def _decode(self, found: Found) -> Request:
        """What a frame holds. One that cannot be read is set aside: it must not hold up all that follow."""
        place, payload = Position(self.at.segment, found.end), found.payload
        try:
            content = orjson.loads(memoryview(payload)[1:])
            if payload[:1] == MODEL:
                made_for = LogColumns.model_validate(content.get("log") or {})
                self._models[content["version"]] = Served(content, made_for)
                return Request(place, found.records)
            model = self._models[content["answer"]["model"]["version"]]
            sent, made = content["sent"], predictions_of(content, model.told)
            shown = pictures(rows_of(sent), content["seen"], model.told["image"]) if self._shown(model) else ()
        except (ValueError, LookupError, TypeError):
            name = f"{self.folder.name}-{self.at.segment:08d}-{found.end}.damaged"
            write_private(self.folder.parent / name, payload)
            return Request(place, found.records)
        return Request(place, found.records, made, sent, shown)


def count_records(folder: Path) -> int:
    """How many records a run's segments hold; of a damaged one those before the damage."""
    total = 0
    for segment in segments(folder):
        with suppress(DamagedError):
            for found in read_frames(segment_path(folder, segment), 0, sys.maxsize):
                total += found.records
    return total
