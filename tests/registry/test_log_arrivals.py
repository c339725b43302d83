"""When rows and labels arrived: of each hour the newest batch, of either database."""

from __future__ import annotations

from datetime import datetime, timedelta

import orjson
from sqlalchemy.engine import Engine

from registry.database import to_micros
from registry.inference_log import Feedback, InferenceLog
from registry.log_arrivals import sampled
from registry.log_batch import Batch, Role

NOON, HOUR = datetime(2024, 5, 1, 12), timedelta(hours=1)


def add(log: InferenceLog, name: str, time: datetime, received: datetime, role: Role = "champion") -> None:
    ids, times = [f"{name}{number}" for number in range(9)], [to_micros(time)] * 9
    answers = ["no"] * 9, [[0.9, 0.1]] * 9, [[0]] * 9, [0.1] * 9, [0.0] * 9
    log.append_batches([Batch("1", role, ids, times, [to_micros(received)] * 9, [{"x": 1}] * 9, *answers)])


def test_of_each_hour_the_newest_batch_says_when_rows_and_labels_came(engine: Engine) -> None:
    log, other = InferenceLog(engine, "flights"), InferenceLog(engine, "taxis")
    day = NOON + 24 * HOUR
    add(log, "first", NOON, day)
    add(log, "second", NOON + HOUR / 2, day + HOUR)
    add(log, "later", NOON + 3 * HOUR, day + 2 * HOUR)
    add(log, "shadow", NOON + 4 * HOUR, day + 3 * HOUR, "shadow")
    add(log, "outside", NOON - HOUR, day + 3 * HOUR)
    add(log, "ahead", NOON + 90 * 24 * HOUR, day + 4 * HOUR)
    add(other, "foreign", NOON, day + 3 * HOUR)
    told = day + 5 * HOUR
    log.add_feedback([Feedback("second1", "no", told, told), Feedback("first1", "no", day, day)])
    log.add_feedback([Feedback("second1", "yes", told + HOUR, told + HOUR)])
    other.add_feedback([Feedback("foreign1", "no", day, day)])
    found = log.arrivals(NOON)
    assert found.rows == [to_micros(day + number * HOUR) for number in (1, 2, 4)]
    assert found.labels == [to_micros(told), to_micros(told + HOUR)]
    assert log.arrivals(NOON + 91 * 24 * HOUR) == ([], [])


def test_ids_are_taken_from_all_over_a_batch() -> None:
    made = [("73e9f0759f", 1000, 5000)], [(f"UA{number}", -1, 1) for number in range(50)]
    one, named = (sampled(orjson.dumps(runs).decode()) for runs in made)
    assert one == [f"{1000 + number * 250:014x}73e9f0759f" for number in range(20)]
    assert named == [f"UA{number}" for number in range(0, 50, 3)]
