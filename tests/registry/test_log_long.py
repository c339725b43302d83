"""Long rows: what is held of them in memory at a time is bounded, whoever joins or reads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from registry import database
from registry.database import from_micros, open_engine, reading, writing
from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.log_joined import FEW, LONG
from registry.log_packed import pack
from registry.log_tables import SHORT, SMALL
from registry.texts import MAX_TEXT_LENGTH
from tests.registry.test_log_batches import START, batch, made


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """An empty log."""
    return InferenceLog(engine, "flights")


def long(number: int, characters: int) -> Batch:
    """A row with a long text of its own."""
    return batch(made([number]), [number], features=[{"at": number, "text": f"{number}" + characters * "a"}])


@contextmanager
def memory(most: float) -> Iterator[None]:
    """At most so many bytes more are held at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_what_is_made_of_long_rows_is_bounded(tmp_path: Path) -> None:
    """What a turn holds in memory is a multiple of that, however many rows there are; what is very long is left."""
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    log = InferenceLog(engine, "flights")
    log.append_batches([long(number, 30_000) for number in range(270)])
    log.append_batches([long(1_000 + number, 2 * SHORT) for number in range(3 * FEW)])
    with memory(6 * LONG):  # parts, their values, and the same as bytes and text again; without a bound 163 MB
        while log.join():
            pass
        assert not log.join()
    with reading(engine) as connection:
        found = connection.exec_driver_sql("SELECT size, length FROM batches ORDER BY size").all()
    assert [size for size, _ in found[: 3 * FEW]] == [1] * 3 * FEW
    assert sum(size for size, _ in found[3 * FEW :]) == 270
    assert len(found) == 3 * FEW + 2 + 6  # of the last ones there are too few
    assert max(length for _, length in found) <= LONG
    frame = log.frame(columns=["at", "text"])
    assert frame["at"].tolist() == [*range(270), *range(1_000, 1_000 + 3 * FEW)]
    assert {*frame["text"].str.len()} == {MAX_TEXT_LENGTH}
    for columns in (["at"], ["at", "text"]):
        with memory(20e6):  # these are 24 MB: they are read some at a time, and as far as models read texts
            assert len(log.frame(start=from_micros(START + 1_000), columns=columns)) == 3 * FEW
    engine.dispose()


def test_long_rows_are_written_again_twice_at_most(engine: Engine, log: InferenceLog) -> None:
    """What was joined until there was no more room is not small any more, though it has few rows."""
    for first in range(0, 320, 40):
        log.append_batches([long(number, 12_000) for number in range(first, first + 40)])
        while log.join():
            pass
    with reading(engine) as connection:
        found = connection.exec_driver_sql("SELECT size, length FROM batches").all()
    assert max(length for _, length in found) <= LONG
    assert sum(length < SHORT for _, length in found) < FEW


def test_the_length_of_what_was_there_is_counted(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log from before that may have long rows; those of large batches are not, since they stay as they are."""
    monkeypatch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:4])
    engine = open_engine(empty_url)
    packed = pack(batch(made([1]), [1], features=[{"text": "a" * SHORT}]))
    values = {name: getattr(packed, name) for name in ("moments", "outputs", "features")}
    row = {"task": "flights", "role": "champion", "version": "1", "earliest": 0, "latest": 0, "span": 0, "ids": "[]"}
    columns = [sa.column(name) for name in (*row, *values, "size")]
    with writing(engine) as connection:
        table = sa.table("batches", *columns)
        connection.execute(sa.insert(table), [{**row, **values, "size": size} for size in (1, SMALL)])
    engine.dispose()
    monkeypatch.undo()
    engine = open_engine(empty_url)
    with reading(engine) as connection:
        lengths = connection.exec_driver_sql("SELECT length FROM batches ORDER BY size").scalars().all()
    engine.dispose()
    assert lengths == [2 + sum(map(len, values.values())), 0]
