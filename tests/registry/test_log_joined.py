"""Small batches become large ones, and nobody who reads sees a difference; what is far away slows no window down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import orjson
import pandas as pd
import pytest
import sqlalchemy as sa
from pandas.testing import assert_frame_equal
from sqlalchemy.engine import Engine

from registry.database import from_micros, open_engine, reading
from registry.errors import StoreError
from registry.inference_log import Feedback, InferenceLog
from registry.log_ids import ids_of
from registry.log_joined import FEW, FULL, joined
from registry.log_packed import pack, unpack
from registry.log_query import Asked
from registry.log_tables import SMALL, WIDE
from registry.privacy import Privacy, Vault
from registry.task import LogColumns
from tests.registry.test_log_batches import START, batch, made, rows_in


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """An empty log."""
    return InferenceLog(engine, "flights")


def every(log: InferenceLog) -> pd.DataFrame:
    return pd.concat([log.frame(), log.frame(role="shadow")])


def join_all(log: InferenceLog) -> None:
    while log.join():
        pass


def fill(log: InferenceLog) -> list[str]:
    """Single rows of two versions and of a shadow, some under a client's ids, some later than they came; their ids."""
    ids = []
    for number in range(120):
        own = made([number]) if number % 3 else [f"own-{number}"]
        changes: dict[str, Any] = {"version": "2"} if number >= 80 else {}
        if number % 5 == 0:
            changes["received"] = [START + 5 * number]  # the event time too
        log.append_batches([batch(own, [5 * number], **changes), batch(own, [5 * number], role="shadow", version="3")])
        ids += own
    return ids


def test_readers_see_no_difference(engine: Engine, log: InferenceLog) -> None:
    """Nor do those who write: ids are known, labels find their rows, before and after."""
    ids = fill(log)
    when = from_micros(START + 7)
    log.add_feedback([Feedback(one, "yes", when, when) for one in ids[::2]])
    window = {"start": from_micros(START + 50), "end": from_micros(START + 500)}
    before, inside, versions = every(log), log.frame(**window), log.versions(role=None)
    assert rows_in(engine, "batches") == 240
    join_all(log)
    assert rows_in(engine, "batches") == 3
    assert_frame_equal(every(log), before)
    assert_frame_equal(log.frame(**window), inside)
    second = before[before["__version__"] == "2"]
    assert_frame_equal(log.frame(newest=7, version="2"), second.tail(7).reset_index(drop=True))
    assert log.versions(role=None) == versions
    assert log.counts() == (120, 60)
    assert log.number(**window) == len(inside)
    counts = log.add_feedback([Feedback(one, "no", when, when) for one in ids])
    assert (counts.unknown, counts.stored) == (0, 60)
    assert log.append_batches([batch([one], [0]) for one in ids]) == 0
    with reading(engine) as connection:
        lost = "SELECT count(*) FROM places WHERE batch NOT IN (SELECT number FROM batches)"
        assert connection.exec_driver_sql(lost).scalar_one() == 0
    join_all(log)
    assert rows_in(engine, "batches") == 3


def test_few_wait_until_there_are_more(engine: Engine, log: InferenceLog) -> None:
    """So that a slow endpoint does not have all that is there written again for each row."""
    for number in range(FEW - 1):
        log.append_batches([batch(made([number]), [number])])
    assert not log.join()
    assert rows_in(engine, "batches") == FEW - 1
    log.append_batches([batch(made([FEW]), [FEW])])
    assert not log.join()
    assert rows_in(engine, "batches") == 1


def test_a_row_is_written_again_twice_at_most(engine: Engine, log: InferenceLog) -> None:
    """However slowly they come, and in whatever order; few small ones are left."""
    again = Counter[str]()
    for first in range(0, 640, 20):
        log.append_batches([batch(made([one]), [one * 7 % 640]) for one in range(first, first + 20)])
        more = True
        while more:
            newest = numbers(engine)[-1]
            more = log.join()
            with reading(engine) as connection:
                text = f"SELECT ids FROM batches WHERE number > {newest}"
                again.update(
                    chain.from_iterable(ids_of(orjson.loads(one)) for (one,) in connection.exec_driver_sql(text))
                )
    assert max(again.values()) == 2
    assert again.total() < 2 * 640
    assert len(numbers(engine)) < FEW + SMALL // FEW + 3
    with reading(engine) as connection:
        ids = connection.exec_driver_sql("SELECT number, ids FROM batches").all()
        places = connection.exec_driver_sql("SELECT batch, name, start, size FROM places").all()
    assert {tuple(one) for one in places} == {(number, *run) for number, runs in ids for run in orjson.loads(runs)}
    assert log.frame()["name"].tolist() == [made([one])[0] for one in sorted(range(640), key=lambda one: one * 7 % 640)]


def test_however_many_are_joined_and_read_the_statements_are_the_same(engine: Engine, log: InferenceLog) -> None:
    """Python's driver of SQLite keeps the last 128 prepared, which made a keeper grow for half an hour."""
    seen, first = set[str](), set[str]()
    sa.event.listen(engine, "before_cursor_execute", lambda connection, cursor, statement, *_: seen.add(statement))
    for count in range(FEW, FEW + 8):
        log.append_batches([batch(made([100 * count + one]), [100 * count + one]) for one in range(count)])
        log.frame()
        join_all(log)
        first = first or set(seen)
    assert seen == first
    assert rows_in(engine, "batches") == 8


def numbers(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        return [number for (number,) in connection.exec_driver_sql("SELECT number FROM batches ORDER BY number")]


def test_wide_ones_are_joined_with_wide_ones(engine: Engine, log: InferenceLog) -> None:
    """By their end, so that a window looks at no more of them than before."""
    count = FULL // 2 + FEW
    times = [(10_000 + 7 * one % count) * 1_000 for one in range(count)]
    far = [batch(made([10 * one, 10 * one + 1]), [-START + time % 77, time]) for one, time in enumerate(times)]
    log.append_batches([*far, *(batch(made([10 * one + 5]), [one]) for one in range(3))])
    before = every(log)
    join_all(log)
    assert len(numbers(engine)) == 2 + 3
    assert_frame_equal(every(log), before)
    asked = Asked("flights", from_micros(START + sorted(times)[FULL // 2]), from_micros(START + max(times) + 1))
    with reading(engine) as connection:
        assert [one.size for one in asked.light(connection)] == [2 * FEW]
    assert len(log.frame(start=asked.start, end=asked.end)) == FEW


def test_what_is_made_is_bounded(engine: Engine, log: InferenceLog) -> None:
    """In rows, and in the time that it spans; what is large already stays."""
    rows = SMALL // 10
    for first in range(0, 45 * rows, rows):
        log.append_batches([batch(made(range(first, first + rows)), range(rows))])
    large = batch(made(range(100_000, 100_000 + SMALL)), range(SMALL))
    log.append_batches([large])
    for day in range(FEW):
        log.append_batches([batch(made([200_000 + day]), [day * WIDE])])
    before = every(log)
    join_all(log)
    with reading(engine) as connection:
        found = connection.exec_driver_sql("SELECT size, span FROM batches").all()
    assert max(size for size, _ in found) <= FULL
    assert sorted((size for size, _ in found), reverse=True)[:3] == [FULL, FULL, SMALL]
    assert max(span for _, span in found) <= WIDE
    assert_frame_equal(every(log), before)


def test_tasks_are_joined_apart(engine: Engine, log: InferenceLog) -> None:
    other = InferenceLog(engine, "weather")
    for number in range(20):
        log.append_batches([batch(made([number]), [number])])
        other.append_batches([batch(made([number]), [number])])
    join_all(log)
    assert rows_in(engine, "batches") == 21
    assert len(other.frame()) == 20


def test_encrypted_rows_stay_readable(engine: Engine, tmp_path: Any) -> None:
    """Each with what was hidden of it, be it that the rules changed meanwhile."""
    vault = Vault(None, tmp_path / "log.key")
    rules = [LogColumns(encrypt=("at",)), LogColumns(drop=("at",)), LogColumns()]
    for number in range(60):
        log = InferenceLog(engine, "flights", Privacy(rules[number % 3], vault))
        log.append_batches([batch(made([number]), [number])])
    before = every(log)
    join_all(log)
    assert rows_in(engine, "batches") == 1
    assert_frame_equal(every(log), before)
    assert [before["at"][place] for place in (0, 2, 57)] == [0, 2, 57]


def test_parts_of_different_columns() -> None:
    """A column that a part lacks is None there; rules and encrypted values stay with their rows."""
    rules = LogColumns(drop=("secret",))
    plain = batch(made([1, 2]), [1, 2], features=[{"a": 1}, {"a": 2}])
    hidden = batch(made([3, 9]), [3, 20_000], features=[{"b": 3}, {"b": 4}], private=[rules, None], sealed=["x", None])
    both = joined([pack(plain), pack(hidden)])
    read = unpack(both)
    assert list(read.ids) == made([1, 2, 3, 9])
    assert both.runs == [*pack(batch(made([1, 2, 3]), [0] * 3)).runs, *pack(batch(made([9]), [0])).runs]
    assert list(read.features) == [{"a": 1, "b": None}, {"a": 2, "b": None}, {"a": None, "b": 3}, {"a": None, "b": 4}]
    assert read.private == [None, None, rules, None]
    assert read.sealed == [None, None, "x", None]
    assert list(read.times) == [START + one for one in (1, 2, 3, 20_000)]
    assert (both.earliest, both.latest) == (START + 1, START + 20_000)
    numbers = batch(made([1]), [1], conformal=None, predictions=[0.5])
    assert unpack(joined([pack(numbers)] * 2)).conformal is None


@pytest.fixture
def failing(engine: Engine) -> Iterator[None]:
    """A database that fails as soon as batches are deleted, the last thing that joining does."""

    def fail(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        wrong = statement.startswith("DELETE FROM batches")
        return ("SELECT * FROM gone", ()) if wrong else (statement, parameters)

    sa.event.listen(engine, "before_cursor_execute", fail, retval=True)
    yield
    sa.event.remove(engine, "before_cursor_execute", fail)


@pytest.mark.usefixtures("failing")
def test_a_failure_changes_nothing(engine: Engine, log: InferenceLog) -> None:
    fill(log)
    before = every(log)
    with pytest.raises(StoreError):
        log.join()
    assert rows_in(engine, "batches") == 240
    assert_frame_equal(every(log), before)


def test_a_reader_goes_on_while_others_join(engine: Engine, log: InferenceLog) -> None:
    """It knows the batches by their numbers, which are gone then."""
    fill(log)
    with reading(engine) as connection:
        numbers = [one.number for one in Asked("flights").light(connection)]
        join_all(InferenceLog(engine, "flights"))
        texts = ", ".join(map(str, numbers))
        found = connection.exec_driver_sql(f"SELECT count(*) FROM batches WHERE number IN ({texts})").scalar_one()
    assert found == len(numbers) == 120
    assert rows_in(engine, "batches") == 3


def test_a_row_of_1970_is_in_no_windows_way(engine: Engine, log: InferenceLog) -> None:
    """Batches that hold one lie in their own index: those that end before a window are not looked at, whatever theirs
    is that begin early."""
    for number in range(300):
        log.append_batches([batch(made([number]), [1000 * number])])
    far = [batch(made([1000, 1001]), [-START, 50_000]), batch(made([1002, 1003]), [-START, 290_500])]
    log.append_batches(far)
    asked = Asked("flights", from_micros(START + 290_000), from_micros(START + 292_000))
    with reading(engine) as connection:
        numbers = {one.number for one in asked.light(connection, sa.column("earliest"))}
        rows = connection.exec_driver_sql("SELECT number, earliest FROM batches").all()
    firsts = {START + 290_000, START + 291_000, 0}
    assert len(numbers) == 3
    assert {earliest for number, earliest in rows if number in numbers} == firsts
    assert log.frame(start=asked.start, end=asked.end)["at"].tolist() == [290_000, 290_500, 291_000]
    assert log.span() == (datetime(1970, 1, 1), from_micros(START + 299_000))


@pytest.mark.parametrize("newest", [False, True])
def test_each_part_of_a_window_is_found_by_an_index(tmp_path: Any, newest: bool) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    plans = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM batches" in statement:
            plans.extend(row[3] for row in connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    asked = Asked("flights", from_micros(START), from_micros(START + 10))
    sa.event.listen(engine, "before_cursor_execute", explain)
    with reading(engine) as connection:
        list(asked.blocks(connection, newest=newest))
        narrow = "batches_by_latest" if newest else "batches_by_earliest"
        narrow += " (task=? AND role=? AND latest>?" if newest else " (task=? AND role=? AND earliest>?"
        assert any(narrow in one for one in plans), plans
        assert any("batches_wide (task=? AND role=? AND latest>?)" in one for one in plans), plans
        assert sum("batches_narrow (task=? AND role=? AND span<?)" in one for one in plans) == 2
        assert not any(one.startswith("SCAN batches") for one in plans)
        plans.clear()
        assert asked.number(connection) == 0
        assert sum("batches_wide" in one for one in plans) == 2
    plans.clear()
    InferenceLog(engine, "flights").join()
    assert [one for one in plans if "batches" in one] == 2 * ["SEARCH batches USING INDEX batches_small (task=?)"]
    engine.dispose()
