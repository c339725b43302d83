"""Statements that SQLite and PostgreSQL word differently, for whoever writes into the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Connection, Engine

Insert: TypeAlias = postgresql.Insert | sqlite.Insert
T = TypeVar("T", int, str)


def insert(engine: Engine | Connection, table: sa.Table) -> Insert:
    """An INSERT of the engine's dialect, which has `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return postgresql.insert(table) if engine.dialect.name == "postgresql" else sqlite.insert(table)


def insert_rows(connection: Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, each with its values in the order of the table's columns. The driver takes them as they are:
    SQLAlchemy's own statements cost several times as much a row."""
    into = f"INSERT INTO {table.name} ({', '.join(column.name for column in table.columns)})"
    if connection.dialect.name == "postgresql":
        kinds = (column.type.compile(connection.dialect) for column in table.columns)
        lists = ", ".join(f"%s::{kind}[]" for kind in kinds)
        columns = tuple(map(list, zip(*rows, strict=True)))
        connection.exec_driver_sql(f"{into} SELECT * FROM unnest({lists})", columns)
    else:
        marks = ", ".join("?" * len(table.columns))
        connection.exec_driver_sql(f"{into} VALUES ({marks})", list(rows))


def among(connection: Connection, column: sa.ColumnElement[T], values: Sequence[T]) -> sa.ColumnElement[bool]:
    """The condition that a column is one of many texts, or of many numbers, which reach the database in one piece,
    however many. A statement with a mark for each would be another one for each number of them, and Python's driver
    keeps the last 128 of them prepared."""
    if connection.dialect.name == "postgresql":
        kind = ARRAY(column.type)
        return column == sa.any_(sa.cast(sa.literal(list(values), kind), kind))
    listed = sa.func.json_each(orjson.dumps(list(values)).decode()).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def lock_until_commit(connection: Connection, key: int) -> None:
    """Wait for a lock of this name and hold it to the end of the transaction. SQLite's writers need none."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
