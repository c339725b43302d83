"""The journal: where a prediction is safe before its answer leaves, and from where it reaches the inference log.

    request --> graph --> one write() to the journal --> answer with the ids        this process
                               |
                          keeper process --> InferenceLog (one commit a batch) --> segment deleted

**What is promised.** When an answer arrives, its predictions are in a file that outlives any death of the process
(`EVERFIT_LOG_SYNC=os`, one `write()`), or of the machine (`disk`, `fdatasync()` before the answer, one for all
requests that wait at that moment). They reach the inference log exactly once: a segment is deleted only after the
commit, and the log knows ids it has. Feedback is answered after its commit, with the predictions before it committed.

**What it costs.** A record is the answer's bytes and the request's bytes, or of a request by columns these as the log
stores them, behind a header of 12 bytes: nothing is serialised twice, and nothing of the database runs in the serving
process, whose interpreter lock a busy drainer would take for milliseconds at a time. `benchmarks/serving.py` prints the
cost.

**How it is laid out.** `home/journal/TASK/RUN/` belongs to one serving process; `lock` in it is held by that process
and its keeper. `00000001.log`, ... are segments of frames: length, number of records, CRC-32, payload. A payload is
`M` and JSON (the served model: what is needed to read its records), `P` and JSON (one request and its answer), or `T`
and columns (one request by columns, as the log stores it: `tabled.py`).
A keeper also empties folders whose lock nobody holds: those of killed processes.

**When things fail.** A write that fails (disk full) is cut off again and its request answered 503 without ids. A store
that is down leaves the journal growing up to `EVERFIT_MAX_BACKLOG_BYTES`, then requests get 503 and Retry-After. A
frame cut short at a folder's end was never acknowledged. A damaged segment is set aside as `RUN-SEGMENT.damaged`.

**Who may read it.** It holds requests as they were sent, columns that the log hides too: folders have mode 0700, files
0600.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from registry.errors import StoreError

JOURNALS = "journal"
"""Folder of a home with those of all tasks."""
SEGMENT_BYTES = 16_000_000
MODEL, PREDICTIONS, TABLE = b"M", b"P", b"T"

_HEAD = struct.Struct("<III")  # payload bytes, records in it, CRC-32 of it
_LOCK = "lock"


class Position(NamedTuple):
    """A place in a run's journal: all before it. Positions compare in the order of writing."""

    segment: int
    offset: int


class Amount(NamedTuple):
    """So much of a journal."""

    size: int
    records: int


class Journal:
    """The writing side, of one run. Write from one thread; `settle` may be called from any."""

    def __init__(self, folder: Path, *, max_bytes: int, synced: bool = False) -> None:
        """Make a run folder in the task's journal `folder` and lock it. Raises `StoreError`.

        `synced` says that `settle` will be called: what it needs is kept open for it.
        """
        self._max_bytes, self._synced = max_bytes, synced
        self._written = self._stored = Amount(0, 0)
        self._starts: dict[int, Amount] = {}
        self._retired: list[int] = []
        self._turning, self._settling = threading.Lock(), threading.Lock()
        self._settled = Position(0, 0)
        self._file = self._segment = self._size = 0
        self._announced: set[str] = set()
        try:
            self.folder, self.lock = _new_run(folder)
            self._turn(1)
        except OSError as error:
            raise StoreError(f"{folder}: the journal cannot be written ({error.strerror})") from error

    def append(self, version: str, model: bytes, content: bytes, records: int, kind: bytes = PREDICTIONS) -> None:
        """Write one request's records, which the model of this `version` made; `model` describes it and is written
        when this segment does not have it yet. `kind` is that of the content: see above. Raises `StoreError`, and then
        nothing was written."""
        self._append(version, model, frame(kind + content, records), records)

    def append_all(self, version: str, model: bytes, contents: Sequence[bytes]) -> None:
        """The same for several requests of one record each, by one write: all of them, or none."""
        self._append(version, model, b"".join([frame(PREDICTIONS + one, 1) for one in contents]), len(contents))

    def _append(self, version: str, model: bytes, data: bytes, records: int) -> None:
        written = self._written
        if written.size - self._stored.size > self._max_bytes:
            raise StoreError(f"the store has not taken {self.waiting.records} predictions yet: no more are accepted")
        if version not in self._announced:
            data = frame(MODEL + model, 0) + data
            self._announced.add(version)
        self._write(data)
        self._written = Amount(written.size + len(data), written.records + records)
        self._size += len(data)
        if self._size >= SEGMENT_BYTES:
            with suppress(OSError):  # the segment grows until another can be made
                self._turn(self._segment + 1)

    @property
    def position(self) -> Position:
        """The end of what is written."""
        return Position(self._segment, self._size)

    @property
    def waiting(self) -> Amount:
        """What is written and not known to be in the store."""
        return Amount(*(all_ - done for all_, done in zip(self._written, self._stored, strict=True)))

    def stored(self, position: Position, records: int) -> None:
        """Learn from the keeper that all before `position` is in the store, `records` of them in its segment."""
        start = self._starts[position.segment]
        self._stored = Amount(start.size + position.offset, start.records + records)

    def settle(self) -> None:
        """Return when all that was written before the call is on the disk. One sync serves all that wait for it.

        Raises `StoreError`.
        """
        wanted = self.position
        with self._settling:
            if self._settled >= wanted:
                return
            with self._turning:
                reached, retired, file = self.position, self._retired, self._file
                self._retired = []
            try:
                for one in retired:
                    os.fdatasync(one)
                    os.close(one)
                os.fdatasync(file)
            except OSError as error:
                raise StoreError(f"{self.folder}: the disk does not take the journal ({error.strerror})") from error
            self._settled = reached

    def close(self) -> None:
        """Close the files and give up the lock. What is not in the store is left for the next keeper."""
        for file in (*self._retired, self._file, self.lock):
            os.close(file)

    def _turn(self, segment: int) -> None:
        """Go on in a new segment."""
        file = os.open(segment_path(self.folder, segment), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        with self._turning:
            if segment > 1 and self._synced:
                self._retired.append(self._file)
            elif segment > 1:
                os.close(self._file)
            self._file, self._segment, self._size = file, segment, 0
            self._starts[segment] = self._written
            self._announced = set()
        if self._synced:
            _sync_folder(self.folder)

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            os.ftruncate(self._file, self._size)
            self._announced.clear()
            raise StoreError(f"the predictions cannot be stored: {self.folder}: {error.strerror}") from error


def frame(payload: bytes, records: int) -> bytes:
    """A payload of so many records behind its header."""
    return _HEAD.pack(len(payload), records, zlib.crc32(payload)) + payload


class Found(NamedTuple):
    """A frame that was read, and where it ends."""

    payload: bytes
    records: int
    end: int


class DamagedError(Exception):
    """A frame whose checksum does not fit."""


def read_frames(path: Path, offset: int, limit: int = 8_000_000) -> Iterator[Found]:
    """The whole frames of a segment from `offset` on, about `limit` bytes of them; a frame still being written is left.

    Raises `DamagedError` at a frame that is not what was written.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while limit > 0 and len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, records, checksum = _HEAD.unpack(head)
            payload = file.read(length)
            if len(payload) < length:
                return
            if zlib.crc32(payload) != checksum:
                raise DamagedError(f"{path}: damaged at byte {offset}")
            offset += _HEAD.size + length
            limit -= _HEAD.size + length
            yield Found(payload, records, offset)


def segments(folder: Path) -> list[int]:
    """The numbers of a run's segments, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.log"))


def segment_path(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"{segment:08d}.log"


def abandoned(folder: Path) -> Iterator[tuple[Path, int]]:
    """The runs in a task's journal that no process holds, each with its lock, taken; the caller closes it."""
    for run in sorted(folder.glob("[!.]*/")):
        try:
            lock = os.open(run / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if (run / _LOCK).exists():
            yield run, lock
        else:
            os.close(lock)


def remove_run(folder: Path) -> None:
    """Delete a run whose records are all in the store."""
    shutil.rmtree(folder)


def require_writable(folder: Path, tasks: Sequence[str]) -> None:
    """Raise `StoreError` where a task's journal in `folder` cannot be written, of a home that is another user's or is
    read only: a server that had begun would tell it with a traceback, and end with a code of its own."""
    for one in (folder, *(folder / task for task in tasks)):
        try:
            if one is folder:
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
            if one.is_dir():
                TemporaryFile(dir=one).close()
        except OSError as error:
            raise StoreError(f"{one}: the journal cannot be written ({error.strerror})") from error


def _new_run(folder: Path) -> tuple[Path, int]:
    """A new run's folder and its held lock. It is named last: before that it would look like an abandoned one."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(3)}"
    hidden = folder / f".{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # it holds rows as they were sent
    hidden.mkdir(mode=0o700)
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    hidden.rename(folder / name)
    return folder / name, lock


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
