"""Old rows go with their labels, some at a time, and nothing else does."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from registry.database import from_micros, reading
from registry.inference_log import Feedback, InferenceLog
from registry.log_kept import AT_ONCE
from tests.registry.test_log_batches import START, batch, made, rows_in

DAY = 86_400_000_000


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """Thirty days with a batch of five labelled rows each, of own ids on odd ones, and a shadow beside them."""
    log = InferenceLog(engine, "flights")
    for day in range(30):
        ids = [f"own-{day}-{row}" for row in range(5)] if day % 2 else made(range(5 * day, 5 * day + 5))
        times = [day * DAY + row for row in range(5)]
        log.append_batches([batch(ids, times), batch(ids, times, role="shadow", version="2")])
        log.add_feedback([Feedback(one, "yes", from_micros(START), from_micros(START)) for one in ids])
    return log


def drop_all(log: InferenceLog, day: int) -> list[int]:
    """In turns, until there are no more."""
    turns = [log.drop(from_micros(START + day * DAY))]
    while turns[-1]:
        turns.append(log.drop(from_micros(START + day * DAY)))
    return turns


def test_rows_before_a_moment_go_with_their_labels_and_places(engine: Engine, log: InferenceLog) -> None:
    kept = log.frame(start=from_micros(START + 25 * DAY))
    assert drop_all(log, 25) == [2 * AT_ONCE * 5, 2 * 5 * 5, 0]
    assert log.frame().equals(kept)
    assert log.counts() == (25, 25)
    assert len(log.frame(role="shadow")) == 25
    assert [rows_in(engine, table) for table in ("batches", "feedback")] == [10, 25]
    with reading(engine) as connection:
        lost = "SELECT count(*) FROM places WHERE batch NOT IN (SELECT number FROM batches)"
        assert connection.execute(sa.text(lost)).scalar_one() == 0


def test_a_batch_goes_when_all_its_rows_are_old_enough(log: InferenceLog) -> None:
    log.append_batches([batch(["a", "b"], [0, 29 * DAY])])
    drop_all(log, 29)
    assert {"a", "b"} <= set(log.frame()["__id__"])


def test_what_went_may_come_again_and_other_tasks_keep_theirs(engine: Engine, log: InferenceLog) -> None:
    other = InferenceLog(engine, "loans")
    other.append_batches([batch(["own-1-0"], [0])])
    other.add_feedback([Feedback("own-1-0", "yes", from_micros(START), from_micros(START))])
    drop_all(log, 30)
    assert log.span() is None
    assert log.add_feedback([Feedback("own-1-0", "no", from_micros(START), from_micros(START))]).unknown == 1
    assert log.append_batches([batch(["own-1-0"], [0])]) == 1
    assert list(log.frame()["__label__"]) == ["no"]
    assert other.counts() == (1, 1)
