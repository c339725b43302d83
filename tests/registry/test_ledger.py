"""The contract of the ledger, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import numpy as np
import pytest
from sqlalchemy.engine import Engine

from registry.database import utc_now
from registry.errors import StoreError
from registry.ledger import Entry, Ledger

AT = datetime(2024, 5, 1, 12, 30, 0, 123456)


def _entry(kind: str = "decision", **changes: object) -> Entry:
    return Entry.model_validate({"task": "flights", "kind": kind, "at": AT, **changes})


def test_an_entry_comes_back_as_written(engine: Engine) -> None:
    """Every field, nested details and characters of any kind survive."""
    ledger = Ledger(engine, "flights")
    details = {"metrics": {"auc": 0.75}, "rows": [1, 2], "note": "späť \x00 'x'", "none": None}
    entry = _entry(
        version="3",
        severity="degraded",
        outcome="research",
        reasons=("auc fell", "twice"),
        details=details,
        seconds=1.5,
    )
    written = ledger.write(entry)
    assert written.model_copy(update={"id": None, "written": None}) == entry
    assert written.id == 1
    assert written.written is not None
    assert ledger.read() == [written]


def test_the_end_of_a_pass_is_remembered_beside_the_entries(engine: Engine) -> None:
    ledger, other = Ledger(engine, "flights"), Ledger(engine, "loans")
    assert ledger.last_pass() is None
    ledger.note_pass()
    first = ledger.last_pass()
    assert first is not None
    assert abs(first - utc_now()) < timedelta(minutes=1)
    ledger.note_pass()
    assert (ledger.last_pass() or first) > first
    assert other.last_pass() is None
    assert ledger.read() == []


def test_numbers_of_numpy_become_json(engine: Engine) -> None:
    """Measures return numpy's numbers; NaN, which JSON lacks, becomes None."""
    details = {"value": np.float64(0.5), "rows": np.int64(3), "many": np.arange(2), "nan": float("nan"), 7: "seven"}
    written = Ledger(engine, "flights").write(_entry(details={str(key): value for key, value in details.items()}))
    assert written.details == {"value": 0.5, "rows": 3, "many": [0, 1], "nan": None, "7": "seven"}


def test_reading_selects_and_keeps_order(engine: Engine) -> None:
    """By kind, after an id, the newest few; always oldest first; never another task's."""
    ledger, other = Ledger(engine, "flights"), Ledger(engine, "loans")
    other.write(Entry(task="loans", kind="window", at=AT))
    ids = [ledger.write(_entry(kind)).id for kind in ("search", "window", "decision", "window", "decision")]
    assert [entry.id for entry in ledger.read()] == ids
    assert [entry.id for entry in ledger.read(kinds={"window"})] == [ids[1], ids[3]]
    assert [entry.id for entry in ledger.read(kinds=["window", "search"], last=2)] == [ids[1], ids[3]]
    assert [entry.id for entry in ledger.read(since=ids[2] or 0)] == ids[3:]
    assert [entry.id for entry in ledger.read(last=1)] == ids[-1:]
    assert ledger.read(kinds=()) == []
    assert [entry.id for entry in ledger.read(without=["window"], last=2)] == [ids[2], ids[4]]
    assert len(other.read()) == 1


def test_reading_by_the_time_of_the_data(engine: Engine) -> None:
    """What is about a later moment is newer, whenever it was written; of one moment what was written last."""
    ledger = Ledger(engine, "flights")
    for day, version in ((8, "1"), (15, "1"), (1, "2"), (15, "2"), (2, "2")):
        ledger.write(_entry(at=datetime(2024, 5, day), version=version))
    assert [(one.at.day, one.version) for one in ledger.read(last=3, timely=True)] == [(8, "1"), (15, "1"), (15, "2")]
    assert [one.at.day for one in ledger.read(last=3)] == [1, 15, 2]
    assert [one.at.day for one in ledger.read(last=2, timely=True, until=datetime(2024, 5, 8))] == [2, 8]
    assert [one.at.day for one in ledger.read(last=3, until=datetime(2024, 5, 8))] == [8, 1, 2]


def test_entries_of_one_version_or_outcome(engine: Engine) -> None:
    ledger = Ledger(engine, "flights")
    for version, outcome in (("1", "hold"), ("2", "hold"), ("1", "promote"), (None, "hold")):
        ledger.write(_entry(version=version, outcome=outcome))
    assert [one.id for one in ledger.read(version="1")] == [1, 3]
    assert [one.id for one in ledger.read(outcome="hold", last=2)] == [2, 4]
    assert [one.id for one in ledger.read(version="1", outcome="hold", since=1)] == []


@pytest.mark.parametrize("at_once", [1, 2, 3, 50])
def test_the_newest_come_first_some_at_a_time(engine: Engine, at_once: int) -> None:
    """Each once, more of one moment than are read at once among them, and of these the last one first."""
    ledger = Ledger(engine, "flights")
    for minute in (5, 1, 3, 3, 3, 3, 2, 9):
        ledger.write(_entry("window", at=AT + timedelta(minutes=minute)))
        ledger.write(_entry("decision", at=AT + timedelta(minutes=minute)))
    written = ledger.read(kinds={"window"})
    expected = sorted(written, key=lambda one: (one.at, one.id), reverse=True)
    assert list(ledger.newest_first("window", at_once=at_once)) == expected
    assert list(ledger.newest_first("report", at_once=at_once)) == []


def test_only_new_entries_of_the_own_task_are_written(engine: Engine) -> None:
    """Writing an entry twice, or into another task's ledger, is a bug and says so."""
    ledger = Ledger(engine, "flights")
    written = ledger.write(_entry())
    for wrong in (written, Entry(task="loans", kind="window", at=AT)):
        with pytest.raises(ValueError, match="expected a new entry of task 'flights'"):
            ledger.write(wrong)


def test_moments_are_told_once_each(engine: Engine) -> None:
    """However often a window was measured, and in which order."""
    ledger, hour = Ledger(engine, "flights"), timedelta(hours=1)
    for after in (1, 0, 2, 2, 1, 3):
        ledger.write(_entry(kind="window", at=AT + after * hour, version="2" if after == 2 else "1"))
    ledger.write(_entry(kind="decision", at=AT + 4 * hour))
    assert ledger.moments("window", until=AT + 2 * hour, last=2) == [AT + hour, AT + 2 * hour]
    assert ledger.moments("window", until=AT + 9 * hour, last=9, before=3) == [AT, AT + hour]
    assert ledger.moments("window", until=AT + 9 * hour, last=9, since=3, version="1") == [AT + hour, AT + 3 * hour]


def test_many_threads_write_at_once(engine: Engine) -> None:
    """No entry is lost and ids are unique."""
    ledger = Ledger(engine, "flights")
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda number: ledger.write(_entry(details={"number": number})), range(40)))
    assert [entry.details for entry in sorted(written, key=lambda entry: entry.id or 0)] == [
        entry.details for entry in ledger.read()
    ]
    assert len({entry.id for entry in written}) == 40


def test_lost_tables_are_a_store_error(engine: Engine) -> None:
    """A database replaced under the program fails with a clear text."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE ledger")
    with pytest.raises(StoreError, match="ledger"):
        Ledger(engine, "flights").read()
