"""The log holds batches, and readers see rows: whatever way these came, in order, each once, some of them at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

from registry import database, log_order
from registry.database import from_micros, open_engine, reading, to_micros, writing
from registry.errors import StoreError
from registry.inference_log import Feedback, InferenceLog
from registry.log_batch import Batch
from registry.log_ids import id_of, ids_of, runs_of
from registry.log_packed import pack, unpack
from registry.log_tables import WIDE
from registry.task import LogColumns

START = to_micros(datetime(2024, 5, 1))
OWN = "73e9f0759f"


def made(numbers: Sequence[int]) -> list[str]:
    """Ids as an endpoint makes them."""
    return [id_of(number, OWN) for number in numbers]


def batch(ids: Sequence[str], times: Sequence[int], **changes: Any) -> Batch:
    """A batch whose rows tell their own id and time."""
    rows = [{"name": one, "at": time} for one, time in zip(ids, times, strict=True)]
    count = len(ids)
    values: dict[str, Any] = {
        "version": "1",
        "role": "champion",
        "ids": ids,
        "times": [START + time for time in times],
        "received": [START + 10_000] * count,
        "features": rows,
        "predictions": ["no"] * count,
        "scores": [[0.75, 0.25]] * count,
        "conformal": [[0]] * count,
        "uncertainty": [0.5] * count,
        "disagreement": [0.125] * count,
    }
    return Batch(**(values | changes))


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """An empty log."""
    return InferenceLog(engine, "flights")


def rows_in(engine: Engine, table: str) -> int:
    with reading(engine) as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@given(st.lists(st.one_of(st.integers(0, 20).map(lambda n: id_of(n, OWN)), st.text("ab0", min_size=1, max_size=24))))
def test_ids_are_their_runs(ids: list[str]) -> None:
    """Also those that look like an endpoint's and are not: capitals, other lengths."""
    odd = [*ids, "0660D8C4CE0CDB73E9F0759F", "0660d8c4ce0cdb73e9f0759", "f" * 24]
    assert ids_of(runs_of(odd)) == odd
    assert ids_of(runs_of(made(range(7, 300)))) == made(range(7, 300))
    assert len(runs_of(made(range(7, 300)))) == 1


def test_a_batch_is_one_row_and_its_ids_another(engine: Engine, log: InferenceLog) -> None:
    """That is what makes it cheap; ids of a client's own are a row each, so that each is found."""
    log.append_batches([batch(made(range(1000)), range(1000))])
    assert (rows_in(engine, "batches"), rows_in(engine, "places")) == (1, 1)
    log.append_batches([batch(["x", "y"], [1, 2])])
    assert (rows_in(engine, "batches"), rows_in(engine, "places")) == (2, 3)
    assert log.counts() == (1002, 0)
    frame = log.frame()
    assert frame["__id__"].tolist() == frame["name"].tolist()


def test_each_row_of_a_batch_takes_its_own_label(log: InferenceLog) -> None:
    """By its id alone, whether it is the first of a run, one amid, or the one after the last."""
    log.append_batches([batch(made(range(100, 200)), range(100)), batch(made([200, 202]), [100, 101])])
    when = from_micros(START + 1)
    asked = [*made([99, 100, 150, 199, 200, 201, 202]), "x", OWN]
    counts = log.add_feedback([Feedback(one, "yes", when, when) for one in asked])
    assert (counts.stored, counts.unknown) == (9, 4)
    assert log.frame(labelled_only=True)["__id__"].tolist() == made([100, 150, 199, 200, 202])
    assert log.counts() == (102, 5)
    odd = [f"{100:013x}g{OWN}", id_of(150, "aaaaaaaaaa"), f"{150:014x}", id_of(150, OWN) + "f"]  # all between
    assert log.add_feedback([Feedback(one, "yes", when, when) for one in odd]).unknown == 4
    log.add_feedback([Feedback(made([150])[0], "no", from_micros(START + 9), from_micros(START + 9))])
    assert log.counts() == (102, 5)
    assert log.counts(labels_by=from_micros(START)) == (102, 0)
    assert log.counts(start=from_micros(START + 50), end=from_micros(START + 100)) == (50, 2)


@pytest.mark.parametrize("again", [range(100), range(50, 150), range(20, 30), [99, 100], [100, 5, 5, 101, 100]])
def test_ids_that_are_known_are_passed_over(log: InferenceLog, again: Sequence[int]) -> None:
    """A batch delivered again, by itself or cut otherwise, as a keeper that was killed may cut it."""
    log.append_batches([batch(made(range(100)), range(100))])
    new = len(set(again) - set(range(100)))
    assert log.append_batches([batch(made(again), again, predictions=["yes"] * len(again))]) == new
    frame = log.frame()
    assert sorted(frame["__id__"]) == made(sorted({*range(100), *again}))
    assert frame["__prediction__"].tolist() == ["no"] * 100 + ["yes"] * new
    assert frame["at"].tolist() == sorted({*range(100), *again})


def test_a_shadow_has_the_ids_of_its_champion(log: InferenceLog) -> None:
    """In a batch cut in parts, too."""
    log.append_batches([batch(made(range(10)), range(10))])
    parts = [batch(made(some), some, role="shadow", version="2") for some in (range(4), range(4, 10))]
    assert log.append_batches(parts) == 10
    assert log.append_batches(parts) == 0
    assert log.counts(role=None).predictions == 20


SPANS = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=8), max_size=12)


@settings(max_examples=20, deadline=None)
@given(
    SPANS,
    st.sampled_from([1, WIDE // 20]),
    st.booleans(),
    st.integers(0, 50),
    st.integers(1, 30),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(2, 50),
)
def test_rows_are_read_as_if_each_were_alone(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[list[int]],
    scale: int,
    joins: bool,
    begin: int,
    length: int,
    some: int,
    step: int,
    at_once: int,
) -> None:
    """Batches overlap, are wide, reach over both ends of a window, and hold rows in any order and at one moment; some
    are joined. Compared with pandas, which sorts and cuts all rows at once."""
    spans, begin, length = [[time * scale for time in times] for times in spans], begin * scale, length * scale
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path_factory.mktemp('log')}/everfit.db"), "flights")
    number = 0
    for times in spans:
        ids = [f"{(7 * (number + place)) % 100:02d}" for place in range(len(times))]
        number += len(times)
        log.append_batches([batch(ids, times)])
    ids = [f"{(7 * place) % 100:02d}" for place in range(number)]
    every = pd.DataFrame({"id": ids, "at": [time for times in spans for time in times]}).sort_values(["at", "id"])
    labelled = ids[::3]
    when = from_micros(START)
    log.add_feedback([Feedback(one, "yes", when, when) for one in labelled])
    inside = every[(every["at"] >= begin) & (every["at"] < begin + length)]
    known = inside[inside["id"].isin(labelled)]
    window = {"start": from_micros(START + begin), "end": from_micros(START + begin + length)}

    def found(**asked: Any) -> list[str]:
        frame = log.frame(**window, columns=["name"], **asked)
        assert frame["__id__"].tolist() == frame["name"].tolist()
        return list(frame["__id__"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.log_joined.FEW", 2)
        while joins and log.join():
            pass
        patch.setattr("registry.log_tables._IDS_AT_ONCE", at_once)
        patch.setattr("registry.log_query.AT_ONCE", at_once)
        patch.setattr("registry.log_query.LEAST", 1)
        assert log.frame()["__id__"].tolist() == every["id"].tolist()
        assert found() == inside["id"].tolist()
        assert found(step=step) == inside["id"].tolist()[::step]
        assert found(offset=some, limit=some) == inside["id"].tolist()[some : 2 * some]
        assert found(newest=some) == inside["id"].tolist()[len(inside) - min(some, len(inside)) :]
        assert found(newest=some, step=step) == inside["id"].tolist()[::step][-some or len(inside) :]
        assert found(labelled_only=True) == known["id"].tolist()
        assert found(labelled_only=True, newest=1) == known["id"].tolist()[-1:]
        assert log.counts(**window) == (len(inside), len(known))
        assert log.number(**window) == len(inside)
        assert log.number() == len(every)


def test_little_of_a_long_log_is_in_memory(tmp_path: Any) -> None:
    """The newest rows, a window, and the numbers of all: by the rows asked for, not by those that are there."""
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "flights")
    for first in range(0, 80_000, 4_000):
        numbers = range(first, first + 4_000)
        log.append_batches([batch(made(numbers), numbers)])
    window = {"start": from_micros(START + 70_000), "end": from_micros(START + 70_100)}
    log.frame(**window)
    tracemalloc.start()
    assert len(log.frame(newest=50)) == 50
    assert log.frame(**window)["at"].tolist() == list(range(70_000, 70_100))
    assert len(log.frame(step=8_000, columns=[])) == 10
    assert log.counts() == (80_000, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


def test_little_of_large_batches_is_in_memory_when_few_of_their_rows_are_asked_for(tmp_path: Any) -> None:
    """A window that is thinned touches each of its batches: they are read a few at a time."""
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/large.db"), "flights")
    text = "a" * 1_000
    for number in range(20):
        rows = range(2_000 * number, 2_000 * (number + 1))
        log.append_batches([batch(made(rows), rows, features=[{"name": text}] * 2_000)])
    log.frame(limit=1)
    tracemalloc.start()
    frame = log.frame(step=1_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frame["__id__"].tolist() == made(range(0, 40_000, 1_000))
    assert most < 45e6  # all at once: 68 MB


def test_what_is_packed_is_what_was_given() -> None:
    """Rows of different columns and rules, numbers of numpy's, moments that differ."""
    private = [None, LogColumns(drop=("secret",)), LogColumns(drop=("secret",)), None]
    given = batch(
        ["a", *made([4, 5]), "b"],
        [3, 1, 2, 2],
        features=[{"x": 1, "y": "ä"}, {"y": None}, {}, {"x": 2.5, "z": [1]}],
        scores=np.full((4, 2), 0.5, dtype=np.float32).tolist(),
        private=private,
        sealed=[None, "text", None, None],
    )
    packed = pack(given)
    back = unpack(packed)
    assert (packed.earliest, packed.latest, len(packed)) == (START + 1, START + 3, 4)
    assert list(back.ids) == list(given.ids)
    assert list(back.times) == list(given.times)
    assert back.private == private
    assert back.sealed == ["text" if one == 1 else None for one in range(4)]
    assert list(back.features)[1] == {"x": None, "y": None, "z": None}
    assert pack(back) == packed


OLD = """INSERT INTO predictions (task, role, id, time, received, version, features, prediction, scores, conformal,
    private, sealed, uncertainty, disagreement) VALUES ({marks})"""


def old_log(url: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A database as Everfit made it before it had batches."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", database.MIGRATIONS[:2])
        return open_engine(url)


def write_old(engine: Engine, rows: Sequence[tuple[Any, ...]]) -> None:
    marks = ", ".join(["?" if engine.dialect.name == "sqlite" else "%s"] * 14)
    with writing(engine) as connection:
        for row in rows:
            connection.exec_driver_sql(OLD.format(marks=marks), row)


def test_an_old_log_opens(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows, a row of the database each, are found as they were: versions, roles, tasks, labels, hidden columns."""
    monkeypatch.setattr("registry.log_moved.ROWS", 7)
    engine = old_log(empty_url, monkeypatch)
    rule = '{"drop":["gone"],"hash":[],"encrypt":[]}'
    rows: list[tuple[Any, ...]] = []
    for number in range(40):
        features = f'{{"amount":{number}.5,"carrier":"A\\"{number}"}}'
        version, prediction = "1" if number < 25 else "2", '"no"' if number % 2 else '"yes"'
        common = [START + number // 2, START + 100 + number, version, features]
        outputs = [prediction, "[0.75,0.25]", "[0]", rule if number == 3 else None, None, 0.5, 0.125]
        rows.append(("flights", "champion", f"id{number:02d}", *common, *outputs))
    rows.append(("flights", "shadow", "id00", START, START, "2", "{}", '"no"', "[0.5,0.5]", "[]", None, None, 0.5, 0.1))
    rows.append(("prices", "champion", "id00", START, START, "9", '{"x":1}', "2.5", "[1.0,4.0]", *[None] * 5))
    write_old(engine, rows)
    InferenceLog(engine, "flights")  # the tables of labels have not changed
    label = ("flights", "id07", START + 500, START + 400, '"yes"')
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    with writing(engine) as connection:
        connection.exec_driver_sql(f"INSERT INTO feedback VALUES ({', '.join([mark] * 5)})", label)
    engine.dispose()

    engine = open_engine(empty_url)
    log = InferenceLog(engine, "flights")
    frame = log.frame()
    assert frame["__id__"].tolist() == [f"id{number:02d}" for number in range(40)]
    assert frame["amount"].tolist() == [number + 0.5 for number in range(40)]
    assert frame["carrier"].tolist() == [f'A"{number}' for number in range(40)]
    assert frame["__prediction__"].tolist() == ["yes", "no"] * 20
    assert frame["__time__"].tolist() == [pd.Timestamp(from_micros(START + number // 2)) for number in range(40)]
    assert frame["__received__"].iloc[5] == pd.Timestamp(from_micros(START + 105))
    assert [place for place, one in enumerate(frame["__private__"]) if one is not None] == [3]
    assert frame["__private__"].iloc[3] == LogColumns(drop=("gone",))
    assert frame["__label__"].tolist() == ["yes" if number == 7 else None for number in range(40)]
    assert log.versions() == {"1": 25, "2": 15}
    assert log.frame(role="shadow")["__set__"].tolist() == [[]]
    other = InferenceLog(engine, "prices").frame()
    assert (other["__prediction__"].tolist(), other["__scores__"].tolist()) == ([2.5], [[1.0, 4.0]])
    assert np.isnan(other["__uncertainty__"].iloc[0])
    assert log.append_batches([batch(["id05", "new"], [0, 1])]) == 1
    assert rows_in(engine, "batches") < 12
    assert "predictions" not in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_a_log_that_cannot_be_moved_stays_as_it_was(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing: a full disk amid leaves the old tables, and the next start tries again."""
    engine = old_log(empty_url, monkeypatch)
    row = ("flights", "champion", "a", START, START, "1", "{}", '"no"', "[1.0]", "[0]", None, None, 0.5, 0.1)
    write_old(engine, [row])
    engine.dispose()

    def fail(*_: Any) -> None:
        raise StoreError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("registry.log_moved.store", fail)
        with pytest.raises(StoreError, match="disk is full"):
            open_engine(empty_url)
    engine = open_engine(empty_url)
    assert InferenceLog(engine, "flights").frame()["__id__"].tolist() == ["a"]
    engine.dispose()


def test_an_opening_waits_for_the_one_that_moves_the_log(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than for any other lock: a large log takes minutes. One that is held otherwise is told as ever."""
    url = f"sqlite:///{tmp_path}/old.db"
    monkeypatch.setattr("registry.database.LOCK_SECONDS", 0.1)
    old = old_log(url, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        with writing(old):
            opening = pool.submit(open_engine, url)
            with pytest.raises(TimeoutError):
                opening.result(timeout=0.5)
        engine = opening.result(timeout=10)
    with writing(engine), pytest.raises(StoreError, match="database is locked"):
        open_engine(url)
    engine.dispose()
    old.dispose()


def test_two_writers_of_one_id(engine: Engine) -> None:
    """Keepers of several workers: an id is stored once, whoever comes first, and each is told the truth."""
    logs = [InferenceLog(engine, "flights") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(lambda log: log.append_batches([batch(made(range(300)), range(300))]), logs))
    assert sorted(new) == [0, 0, 0, 300]
    assert logs[0].counts() == (300, 0)


def test_blocks_hold_no_more_than_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches one after another are given out as they come."""
    lights = [
        log_order.Light(number, 10, first, first + 9, packed_ids, moments)
        for number in range(50)
        for first in [10 * number]
        for packed_ids in [f'[["{OWN}",{first},10]]']
        for moments in [f'{{"received":[[0,10]],"times":{list(range(first, first + 10))}}}']
    ]
    blocks = list(log_order.ordered(lights, None, None, at_once=20))
    assert max(map(len, blocks)) <= 30
    assert np.concatenate([one.times for one in blocks]).tolist() == list(range(500))
