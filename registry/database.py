"""The database under the inference log and the ledger: one engine, numbered migrations, and errors in plain words.

SQLite (a file, WAL) and PostgreSQL behave alike through `reading` and `writing`. Moments are stored as whole
microseconds since 1970 UTC: exact, quick to read, and the same on both.

    >>> from tempfile import mkdtemp
    >>> engine = open_engine(f"sqlite:///{mkdtemp()}/everfit.db")
    >>> with reading(engine) as connection:
    ...     connection.exec_driver_sql("SELECT max(number) FROM migrations").scalar() == MIGRATIONS[-1].number
    True
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from registry.errors import InputError, StoreError
from registry.migrations import MIGRATIONS, Migration
from registry.statements import lock_until_commit

LOCK_SECONDS, MOVE_SECONDS = 10, 600
"""How long a statement waits for another process's lock on SQLite, and an opening for one that moves an older log."""

_CACHE_KILOBYTES, _CHECKPOINT_PAGES = 8_000, 4_000
"""SQLite's own, a quarter of these, make it write pages of one batch of predictions twice."""

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_MIGRATION_LOCK = 0x65766572  # key of PostgreSQL's advisory lock
_NEWEST = "SELECT max(number) FROM migrations"

_WORDS = {
    "sqlite": {"text": "TEXT", "key": "INTEGER PRIMARY KEY AUTOINCREMENT", "keyed": " WITHOUT ROWID"},
    "postgresql": {
        "text": 'TEXT COLLATE "C"',
        "key": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "keyed": "",
    },
}

_STATEMENT = re.compile(r"\((?:\w+\.)+\w+\) |\s*\[SQL: .*", re.DOTALL)
_FULL = ("disk is full", "No space left")
_REMEDIES = {
    "database is locked": f"another process has held it for {LOCK_SECONDS} s; try again, or use PostgreSQL",
    **dict.fromkeys(_FULL, "free space on its disk; nothing of this write was kept"),
    "readonly database": "this process may not write it: mend the permissions",
    "unable to open database file": "its folder cannot be read or written: mend the permissions",
    "not a database": "the file is not SQLite's: move it away, or name another in EVERFIT_STORE_URL",
    "malformed": "the file is damaged: restore it from a backup",
    "no such table": "its tables are gone: was the file replaced while in use? start again",
    "could not connect": "is the server running?",
    "onnection": "is the server running and reachable?",
}


def open_engine(url: str, *, durable: bool = False) -> Engine:
    """An engine on a database whose tables are there: missing migrations are applied, once, whoever comes first.

    `url` is SQLAlchemy's: `sqlite:////folder/file.db` or `postgresql://user@host/name`. `durable` makes a commit on
    SQLite outlive a loss of power too; without it, it outlives any death of the process (PostgreSQL always does both).
    Raises `InputError` for a URL of another kind, `StoreError` if the database cannot be reached or written.
    """
    parsed = _parse(url)
    engine = _sqlite(parsed, durable) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
    _migrate(engine)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reading, with one view of the data. Database faults become `StoreError`."""
    with _faults(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection whose writes are kept together at the end, or not at all. Database faults become `StoreError`."""
    with _faults(engine), engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC of a moment; without zone it counts as UTC.

    >>> to_micros(datetime(1970, 1, 1, 0, 0, 1)), to_micros(datetime(1970, 1, 1, 1, tzinfo=UTC))
    (1000000, 3600000000)
    """
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The moment, UTC without zone, of microseconds since 1970.

    >>> from_micros(1_000_000)
    datetime.datetime(1970, 1, 1, 0, 0, 1)
    """
    return _EPOCH + timedelta(microseconds=micros)


def utc_now() -> datetime:
    """The wall clock, UTC without zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise InputError("the store's URL: expected sqlite:////folder/file.db or postgresql://...") from error
    if backend not in _WORDS:
        raise InputError(f"the store's URL: expected sqlite or postgresql, got {backend!r}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError("the store's URL: expected a file, sqlite:////folder/file.db; processes cannot share memory")
    return parsed


def _sqlite(url: URL, durable: bool) -> Engine:
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{file.parent}: cannot be made ({error.strerror})") from error
    with suppress(OSError):  # which the first connection will tell
        if not file.exists():
            file.touch(mode=0o600)  # it holds rows; its journal and shared memory get the same mode
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_SECONDS})
    synchronous = "FULL" if durable else "NORMAL"

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not where the driver guesses
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KILOBYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that first reads would fail, not wait, when another wrote meanwhile.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    limits = {"connect_timeout": 5, "tcp_user_timeout": 15_000}
    try:
        return sa.create_engine(url, pool_pre_ping=True, connect_args=limits)
    except (ModuleNotFoundError, exc.NoSuchModuleError) as error:
        raise InputError(f"PostgreSQL's driver is missing ({error}): pip install 'everfit[postgres]'") from error


def _migrate(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        _write_ahead(str(engine.url.database))
    deadline, older = time.monotonic() + MOVE_SECONDS, False
    while True:
        try:
            return _migrate_now(engine)
        except StoreError as error:  # a large log is moved by one process, and the others wait for it
            with suppress(StoreError), reading(engine) as connection:
                older = connection.exec_driver_sql(_NEWEST).scalar_one() < MIGRATIONS[-1].number
            if "is locked" not in str(error) or time.monotonic() > deadline or not older:
                raise


def _migrate_now(engine: Engine) -> None:
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            lock_until_commit(connection, _MIGRATION_LOCK)
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY, applied BIGINT NOT NULL)"
        )
        done = set(connection.exec_driver_sql("SELECT number FROM migrations").scalars())
        if done and max(done) > MIGRATIONS[-1].number:
            raise StoreError(
                f"{_name(engine.url)}: written by a newer Everfit (migration {max(done)}): upgrade this one"
            )
        for migration in MIGRATIONS:
            if migration.number not in done:
                _apply(connection, migration)


def _apply(connection: Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.exec_driver_sql(statement.format(**_WORDS[connection.dialect.name]))
    if migration.move is not None:
        migration.move(connection)
    for statement in migration.last:
        connection.exec_driver_sql(statement)
    connection.execute(
        sa.text("INSERT INTO migrations (number, applied) VALUES (:number, :applied)"),
        {"number": migration.number, "applied": to_micros(utc_now())},
    )


def _write_ahead(file: str) -> None:
    """Switch the file to WAL. SQLite answers "locked" here at once, without waiting, when another does the same."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.Error as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise StoreError(f"{file}: {explain(str(error))}") from error
            time.sleep(0.02)


@contextmanager
def _faults(engine: Engine) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        name, words = _name(engine.url), str(error.orig)
        local = engine.url.get_backend_name() == "sqlite"
        raise StoreError(f"{name}: {explain_at(words, Path(name)) if local else explain(words)}") from error
    except exc.TimeoutError as error:
        raise StoreError(f"{_name(engine.url)}: no free connection: too many threads use it at once") from error


def explain(fault: str) -> str:
    """A driver's words on one line, and what to do about them where that is known.

    >>> explain("database or disk is full")
    'database or disk is full: free space on its disk; nothing of this write was kept'
    """
    first = " ".join(fault.split("DETAIL:")[0].split())[:300]  # PostgreSQL's detail quotes the row
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in fault), None)
    return f"{first}: {remedy}" if remedy else first


def driver_words(error: BaseException) -> str:
    """The driver's words of an error that has one of a database beneath, else its own. SQLAlchemy's have the statement
    and its values behind them, also in the words of a server that passes them on."""
    beneath: BaseException | None = error
    while beneath is not None and not isinstance(beneath, exc.DBAPIError):
        beneath = beneath.__cause__
    return str(beneath.orig) if beneath is not None else _STATEMENT.sub("", str(error))


def explain_at(fault: str, file: Path) -> str:
    """`explain` of what befell a file, with what is free on its disk where that is full."""
    said = explain(fault)
    if not any(words in fault for words in _FULL):
        return said
    with suppress(OSError):
        said += f" ({shutil.disk_usage(file.parent).free / 1e6:,.1f} MB are free on the disk of {file.parent})"
    return said


def _name(url: URL) -> str:
    """The database as messages show it, without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
