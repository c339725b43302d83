"""The engine: migrations applied once whoever comes first, and faults in plain words."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from registry import database
from registry.database import MIGRATIONS, Migration, from_micros, open_engine, reading, to_micros, utc_now, writing
from registry.errors import InputError, StoreError
from registry.ledger import Entry, Ledger


def _tables(engine: Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def test_first_opening_makes_every_table(engine: Engine) -> None:
    """A new database has the stores' tables and remembers which migrations made them."""
    assert _tables(engine) == {"batches", "places", "feedback", "ledger", "tallies", "passes", "migrations"}
    with reading(engine) as connection:
        numbers = connection.exec_driver_sql("SELECT number FROM migrations").scalars().all()
    assert numbers == [migration.number for migration in MIGRATIONS]


def test_migrations_are_numbered_in_order() -> None:
    """Numbers rise by one, so that no two branches can both add the same one unnoticed."""
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_a_later_migration_is_applied_once(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older database gets what it lacks; opening it again changes nothing."""
    open_engine(empty_url).dispose()
    later = Migration(MIGRATIONS[-1].number + 1, ("ALTER TABLE ledger ADD COLUMN note {text}",))
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, later))
    for _ in range(2):
        engine = open_engine(empty_url)
        assert "note" in {column["name"] for column in sa.inspect(engine).get_columns("ledger")}
        engine.dispose()


def test_a_failing_migration_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is applied whole or not at all."""
    open_engine(empty_url).dispose()
    broken = Migration(MIGRATIONS[-1].number + 1, ("CREATE TABLE half (a BIGINT)", "CREATE NONSENSE"))
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(StoreError, match="syntax error"):
        open_engine(empty_url)
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS)
    engine = open_engine(empty_url)
    assert "half" not in _tables(engine)
    engine.dispose()


def test_a_database_of_a_newer_everfit_is_refused(engine: Engine, empty_url: str) -> None:
    """An old program never writes tables it does not know."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO migrations VALUES (999, 0)")
    with pytest.raises(StoreError, match="newer Everfit"):
        open_engine(empty_url)


def test_processes_may_open_a_new_database_at_once(empty_url: str) -> None:
    """Four processes that start together all find the tables, made once."""
    code = f"from registry.database import open_engine; open_engine({empty_url!r}).dispose()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    results = [(process.communicate()[1].decode(), process.returncode) for process in processes]
    assert [code for _, code in results] == [0] * 4, results
    engine = open_engine(empty_url)
    with reading(engine) as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM migrations").scalar()
    assert count == len(MIGRATIONS)
    engine.dispose()


def test_an_error_inside_writing_keeps_nothing(engine: Engine) -> None:
    """The writes of one block stand or fall together."""

    def half() -> None:
        with writing(engine) as connection:
            connection.exec_driver_sql("INSERT INTO migrations VALUES (50, 0)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM migrations WHERE number = 50").scalar() == 0


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    """WAL: readers and one writer do not block one another; a commit outlives the process, and power when asked."""
    for durable, level in ((False, 1), (True, 2)):
        engine = open_engine(f"sqlite:///{tmp_path / 'everfit.db'}", durable=durable)
        with reading(engine) as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        engine.dispose()


def test_a_full_disk_is_a_store_error(tmp_path: Path) -> None:
    """The error says that the disk is full, and the write leaves nothing."""
    engine = open_engine(f"sqlite:///{tmp_path / 'everfit.db'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=30")
    entry = Entry(task="flights", kind="window", at=utc_now(), details={"long": "x" * 200_000})
    with pytest.raises(
        StoreError, match=r"everfit.db: database or disk is full: free space .*\d MB are free on the disk of "
    ):
        Ledger(engine, "flights").write(entry)
    assert Ledger(engine, "flights").read() == []
    engine.dispose()


def test_a_held_lock_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that keeps the file locked is named as the cause; readers go on."""
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    file = tmp_path / "everfit.db"
    engine = open_engine(f"sqlite:///{file}")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked: another process"), writing(engine):
        pass
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger").scalar() == 0
    other.close()
    engine.dispose()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """The file is named and left as it is."""
    file = tmp_path / "everfit.db"
    file.write_text("these are notes, not a database\n" * 50)
    with pytest.raises(StoreError, match=r"everfit.db: file is not a database: the file is not SQLite's"):
        open_engine(f"sqlite:///{file}")
    assert file.read_text().startswith("these are notes")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="taken"):
        open_engine(f"sqlite:///{tmp_path / 'taken' / 'everfit.db'}")


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_wrong_url_is_the_callers_mistake(url: str) -> None:
    """Trying again would not help: `InputError`, which says what was expected."""
    with pytest.raises(InputError, match="store's URL: expected"):
        open_engine(url)


def test_an_unreachable_server_hides_the_password() -> None:
    """Refused connections name the server, and never its password."""
    with pytest.raises(StoreError, match="is the server running") as caught:
        open_engine("postgresql://everfit:secret@127.0.0.1:1/everfit")
    assert "secret" not in str(caught.value)
    assert "everfit:***@127.0.0.1:1" in str(caught.value)


@pytest.mark.postgres
def test_a_lost_connection_is_a_store_error_and_heals(empty_postgres: str) -> None:
    """A server that drops the connection makes one call fail; the next one connects again."""
    engine = open_engine(empty_postgres)
    with pytest.raises(StoreError, match="terminat"), writing(engine) as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger").scalar() == 0
    engine.dispose()


def test_moments_survive_exactly() -> None:
    """Microseconds, dates before 1970 and other zones."""
    for moment in (datetime(2024, 5, 1, 12, 0, 0, 123457), datetime(1969, 12, 31, 23, 59, 59, 999999)):
        assert from_micros(to_micros(moment)) == moment
    west = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=-5)))
    assert from_micros(to_micros(west)) == datetime(2024, 5, 1, 17)
    assert abs(utc_now() - datetime.now(UTC).replace(tzinfo=None)) < timedelta(seconds=5)


def test_a_file_of_rows_is_its_owners(tmp_path: Path) -> None:
    """And what SQLite writes beside it; a file that is there keeps the mode that somebody gave it."""
    engine = open_engine(f"sqlite:///{tmp_path}/new.db")
    Ledger(engine, "flights").write(Entry(task="flights", kind="note", at=utc_now()))
    with reading(engine):
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    engine.dispose()
    assert set(modes) == {"new.db", "new.db-wal", "new.db-shm"}
    assert set(modes.values()) == {0o600}
    shared = tmp_path / "shared.db"
    shared.touch()
    shared.chmod(0o660)
    open_engine(f"sqlite:///{shared}").dispose()
    assert shared.stat().st_mode & 0o777 == 0o660
