"""The changes of the database's tables, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from registry.log_counted import count_all
from registry.log_moved import move


@dataclass(frozen=True)
class Migration:
    """One change of the tables, applied once, in order of number. Never edited after a release: a later one follows.

    `{text}` becomes text that sorts by code point, `{key}` an integer key that the database numbers, `{keyed}` makes a
    table that lies in its key. `move` carries rows over that no statement can, before `last` ones.
    """

    number: int
    statements: tuple[str, ...]
    move: Callable[[Connection], None] | None = None
    last: tuple[str, ...] = ()


MIGRATIONS = (
    Migration(
        1,
        (
            """CREATE TABLE predictions (
                task {text} NOT NULL, role {text} NOT NULL, id {text} NOT NULL,
                time BIGINT NOT NULL, received BIGINT NOT NULL, version {text} NOT NULL,
                features TEXT NOT NULL, prediction TEXT NOT NULL, scores TEXT NOT NULL, conformal TEXT,
                uncertainty DOUBLE PRECISION, disagreement DOUBLE PRECISION,
                PRIMARY KEY (task, role, id))""",
            "CREATE INDEX predictions_by_time ON predictions (task, role, time, id)",
            """CREATE TABLE feedback (
                task {text} NOT NULL, id {text} NOT NULL, received BIGINT NOT NULL,
                time BIGINT NOT NULL, label TEXT NOT NULL,
                PRIMARY KEY (task, id, received))""",
            """CREATE TABLE ledger (
                id {key}, task {text} NOT NULL, kind {text} NOT NULL, at BIGINT NOT NULL, written BIGINT NOT NULL,
                version {text}, severity {text}, outcome {text},
                reasons TEXT NOT NULL, details TEXT NOT NULL, seconds DOUBLE PRECISION NOT NULL)""",
            "CREATE INDEX ledger_by_kind ON ledger (task, kind, id)",
        ),
    ),
    Migration(2, tuple(f"ALTER TABLE predictions ADD COLUMN {name} TEXT" for name in ("private", "sealed"))),
    Migration(
        3,
        (
            """CREATE TABLE batches (
                number {key}, task {text} NOT NULL, role {text} NOT NULL, version {text} NOT NULL,
                size BIGINT NOT NULL, earliest BIGINT NOT NULL, latest BIGINT NOT NULL, span BIGINT NOT NULL,
                ids TEXT NOT NULL, moments TEXT NOT NULL, private TEXT, outputs TEXT NOT NULL,
                features TEXT NOT NULL, sealed TEXT)""",
            "CREATE INDEX batches_by_earliest ON batches (task, role, earliest, latest)",
            "CREATE INDEX batches_by_latest ON batches (task, role, latest, earliest)",
            "CREATE INDEX batches_by_span ON batches (task, role, span)",
            """CREATE TABLE places (
                task {text} NOT NULL, role {text} NOT NULL, name {text} NOT NULL, start BIGINT NOT NULL,
                size BIGINT NOT NULL, batch BIGINT NOT NULL,
                PRIMARY KEY (task, role, name, start)){keyed}""",
        ),
    ),
    Migration(
        4,
        (
            "DROP INDEX batches_by_span",
            "CREATE INDEX batches_narrow ON batches (task, role, span) WHERE span <= 86400000000",
            "CREATE INDEX batches_wide ON batches (task, role, latest, earliest) WHERE span > 86400000000",
            "CREATE INDEX batches_small ON batches (task, role, version, earliest) WHERE size < 500",
        ),
    ),
    Migration(
        5,
        (
            "ALTER TABLE batches ADD COLUMN length BIGINT NOT NULL DEFAULT 0",
            """UPDATE batches SET length = length(ids) + length(moments) + length(outputs) + length(features)
                + coalesce(length(private), 0) + coalesce(length(sealed), 0) WHERE size < 500""",
            "DROP INDEX batches_small",
            """CREATE INDEX batches_small ON batches (task, role, version, earliest)
                WHERE size < 500 AND length < 250000""",
        ),
        move,
        ("DROP TABLE IF EXISTS predictions",),
    ),
    Migration(6, ("CREATE INDEX ledger_by_moment ON ledger (task, kind, at, id)",)),
    Migration(
        7,
        ("CREATE TABLE tallies (task {text} PRIMARY KEY, labelled BIGINT NOT NULL, waiting BIGINT NOT NULL)",),
        count_all,
    ),
    Migration(8, ("CREATE TABLE passes (task {text} PRIMARY KEY, ended BIGINT NOT NULL)",)),
)
