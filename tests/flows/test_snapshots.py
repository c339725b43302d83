"""A home that is put back is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.flows.snapshots import once


def write(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS held (value INTEGER)")
        database.execute("DELETE FROM held")
        database.execute("INSERT INTO held VALUES (?)", (value,))


def read(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT value FROM held").fetchone()[0])


def test_databases_in_folders_are_put_back_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = (home / "a.db", home / "sub" / "b.db")

    def make() -> None:
        for file in files:
            write(file, 1)

    once(home, "made", make)
    for file in files:
        write(file, 2)
    once(home, "made", lambda: pytest.fail("made twice"))
    assert [read(file) for file in files] == [1, 1]


def test_a_copy_that_breaks_off_is_none(tmp_path: Path) -> None:
    home = tmp_path / "home"

    def broken() -> None:
        write(home / "a.db", 1)
        (home / "b.db").write_bytes(b"no database" * 100)

    with pytest.raises(sqlite3.DatabaseError):
        once(home, "made", broken)
    (home / "b.db").unlink()
    once(home, "made", lambda: write(home / "a.db", 2))
    once(home, "made", lambda: pytest.fail("made twice"))
    assert read(home / "a.db") == 2
    assert not (home / "b.db").exists()
