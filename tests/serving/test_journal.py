"""The journal: what is written is read again, whatever happens between."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.errors import StoreError
from serving import journal as module
from serving.journal import (
    DamagedError,
    Journal,
    Position,
    abandoned,
    read_frames,
    segment_path,
    segments,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path, max_bytes=100_000, synced=True)
    yield one
    one.close()


def payloads(journal: Journal, segment: int = 1, offset: int = 0) -> list[bytes]:
    return [found.payload for found in read_frames(segment_path(journal.folder, segment), offset)]


def test_reads_what_was_written_behind_its_model(journal: Journal) -> None:
    """A model is written once a segment, before its first record."""
    for number in range(3):
        journal.append("1", b"one", b"%d" % number, 2)
    journal.append("2", b"two", b"3", 1)
    assert payloads(journal) == [b"Mone", b"P0", b"P1", b"P2", b"Mtwo", b"P3"]
    assert journal.waiting.records == 7


def test_several_requests_by_one_write(journal: Journal) -> None:
    journal.append_all("1", b"one", [b"%d" % number for number in range(3)])
    journal.append_all("1", b"one", [b"3"])
    assert payloads(journal) == [b"Mone", b"P0", b"P1", b"P2", b"P3"]
    assert journal.waiting.records == 4


def test_knows_what_waits(journal: Journal) -> None:
    journal.append("1", b"m", b"a", 2)
    first = journal.position
    journal.append("1", b"m", b"b", 3)
    journal.stored(first, 2)
    assert journal.waiting.records == 3
    assert journal.waiting.size == journal.position.offset - first.offset
    journal.stored(journal.position, 5)
    assert journal.waiting == (0, 0)


def test_turns_to_a_new_segment(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 60)
    for number in range(6):
        journal.append("1", b"m", b"%030d" % number, 1)
        journal.settle()
    assert len(segments(journal.folder)) > 2
    read = [one for segment in segments(journal.folder) for one in payloads(journal, segment)]
    assert [one for one in read if one[:1] == b"P"] == [b"P%030d" % number for number in range(6)]
    assert payloads(journal, 2)[0] == b"Mm"
    journal.stored(Position(2, 0), 0)
    assert journal.waiting.records == 4


def test_a_frame_cut_short_is_left(journal: Journal) -> None:
    journal.append("1", b"m", b"whole", 1)
    journal.append("1", b"m", b"to be cut", 1)
    path = segment_path(journal.folder, 1)
    os.truncate(path, path.stat().st_size - 3)
    assert payloads(journal) == [b"Mm", b"Pwhole"]


def test_a_changed_byte_is_found(journal: Journal) -> None:
    journal.append("1", b"m", b"first", 1)
    journal.append("1", b"m", b"second", 1)
    path = segment_path(journal.folder, 1)
    path.write_bytes(path.read_bytes().replace(b"second", b"sXcond"))
    with pytest.raises(DamagedError, match="damaged at byte"):
        payloads(journal)


def test_refuses_more_than_may_wait(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1_000)
    while journal.waiting.size <= 1_000:
        journal.append("1", b"m", b"x" * 100, 1)
    with pytest.raises(StoreError, match="the store has not taken 9 predictions yet"):
        journal.append("1", b"m", b"x", 1)
    journal.stored(journal.position, journal.waiting.records)
    journal.append("1", b"m", b"again", 1)
    journal.close()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size`: a write is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_half_record(journal: Journal) -> None:
    journal.append("1", b"m", b"before", 1)
    with full_disk(journal.position.offset + 20), pytest.raises(StoreError, match="cannot be stored"):
        journal.append("1", b"m", b"x" * 500, 1)
    journal.append("1", b"m", b"after", 1)
    assert payloads(journal) == [b"Mm", b"Pbefore", b"Mm", b"Pafter"]
    assert journal.waiting.records == 2


def test_only_a_run_nobody_holds_is_abandoned(tmp_path: Path) -> None:
    alive, dead = Journal(tmp_path, max_bytes=1000), Journal(tmp_path, max_bytes=1000)
    assert list(abandoned(tmp_path)) == []
    dead.close()
    ((run, lock),) = abandoned(tmp_path)
    assert run == dead.folder
    assert list(abandoned(tmp_path)) == []
    os.close(lock)
    alive.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/journal: the journal cannot be written"):
        Journal(tmp_path / "file" / "journal", max_bytes=1000)
