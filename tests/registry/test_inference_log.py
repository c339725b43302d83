"""The contract of the inference log, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy.engine import Engine

from registry.conforming import conform
from registry.database import to_micros, writing
from registry.errors import RowError, StoreError
from registry.inference_log import Astray, Feedback, FeedbackCounts, InferenceLog
from registry.log_batch import Batch
from tests.handmade import make_frame, make_schema
from tests.logged_rows import Prediction, append

START = datetime(2024, 5, 1, 0, 0, 0, 250)


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    """An empty log."""
    return InferenceLog(engine, "flights")


def _hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def _prediction(number: int, **changes: Any) -> Prediction:
    one = Prediction(
        id=f"id{number:03d}",
        time=_hour(number),
        received=_hour(number + 0.5),
        version="1",
        role="champion",
        features={"amount": number + 0.5, "carrier": "AA"},
        prediction="no",
        scores=[0.75, 0.25],
        conformal=[0],
        uncertainty=0.5,
        disagreement=0.125,
    )
    return replace(one, **changes)


def _label(number: int, label: str | float, at: float) -> Feedback:
    return Feedback(f"id{number:03d}", label, _hour(at), _hour(at))


def _labels(frame: pd.DataFrame) -> list[object]:
    return frame["__label__"].tolist()


def test_a_prediction_comes_back_as_logged(log: InferenceLog) -> None:
    """Every output, the times to the microsecond, and the features in their own types."""
    features = {"amount": 1.5, "seats": 3, "member": True, "carrier": 'a"b\x00ä', "gone": None}
    assert append(log, [_prediction(0, features=features)]) == 1
    row = log.frame().iloc[0]
    assert row["__id__"] == "id000"
    assert row["__time__"] == pd.Timestamp(_hour(0))
    assert row["__received__"] == pd.Timestamp(_hour(0.5))
    assert (row["__version__"], row["__prediction__"]) == ("1", "no")
    assert (row["__scores__"], row["__set__"]) == ([0.75, 0.25], [0])
    assert (row["__uncertainty__"], row["__disagreement__"]) == (0.5, 0.125)
    assert row["__label__"] is None
    assert row["__label_time__"] is pd.NaT
    assert {name: row[name] for name in features} == features


def test_a_regression_row(log: InferenceLog) -> None:
    """Numbers stay numbers; numpy's are taken; an unknown uncertainty is NaN; there is no conformal set."""
    append(log, [_prediction(0, prediction=np.float32(2.5), scores=np.array([1.0, 4.0]), conformal=None)])
    append(log, [_prediction(1, prediction=3.5, scores=[2.0, 5.0], conformal=None, uncertainty=float("nan"))])
    log.add_feedback([_label(1, 3.25, 2)])
    frame = log.frame()
    assert frame["__prediction__"].dtype == np.float64
    assert frame["__prediction__"].tolist() == [2.5, 3.5]
    assert frame["__scores__"].tolist() == [[1.0, 4.0], [2.0, 5.0]]
    assert frame["__set__"].tolist() == [None, None]
    assert np.isnan(frame["__uncertainty__"].iloc[1])
    assert _labels(frame) == [None, 3.25]


def test_appending_again_changes_nothing(log: InferenceLog) -> None:
    """Idempotent by id: within one call, over calls, and mixed with new rows; the first one logged stands."""
    assert append(log, [_prediction(0), _prediction(0), _prediction(1)]) == 2
    assert append(log, [_prediction(0, prediction="yes"), _prediction(2)]) == 1
    assert append(log, []) == 0
    assert log.frame()["__prediction__"].tolist() == ["no"] * 3


def _batch(numbers: range, **changes: Any) -> Batch:
    """The same as `_prediction` of each number says."""
    every = [_prediction(number) for number in numbers]
    batch = Batch(
        "1",
        "champion",
        [one.id for one in every],
        [to_micros(one.time) for one in every],
        [to_micros(one.received) for one in every],
        [one.features for one in every],
        [str(one.prediction) for one in every],
        [one.scores for one in every],
        [[0] for _ in every],
        [one.uncertainty for one in every],
        [one.disagreement for one in every],
    )
    return replace(batch, **changes)


def test_a_batch_is_logged_as_its_predictions_are(engine: Engine, log: InferenceLog) -> None:
    """By columns or one by one: the same rows, counted alike, those known passed over."""
    one_by_one = InferenceLog(engine, "loans")
    assert append(one_by_one, [_prediction(number) for number in range(6)]) == 6
    assert log.append_batches([_batch(range(4)), _batch(range(3, 6))]) == 6
    assert log.append_batches([_batch(range(5, 7))]) == 1
    assert log.append_batches([]) == 0
    pd.testing.assert_frame_equal(log.frame(limit=6), one_by_one.frame())


def test_a_batch_of_numbers(log: InferenceLog) -> None:
    """Text that a database's arrays must quote, unknown numbers, no conformal sets."""
    odd = {"text": "a\"b\\c{d},\x00ä'", "gone": None}
    changes = {"predictions": [2.5, 3.0], "scores": [(1.0, 4.0), (2.0, 5.0)], "conformal": None}
    log.append_batches([_batch(range(2), features=[odd, odd], uncertainty=[float("nan"), 1.0], **changes)])
    frame = log.frame()
    assert frame["__prediction__"].tolist() == [2.5, 3.0]
    assert frame["__scores__"].tolist() == [[1.0, 4.0], [2.0, 5.0]]
    assert frame["__set__"].tolist() == [None, None]
    assert np.isnan(frame["__uncertainty__"].iloc[0])
    assert frame["text"].tolist() == [odd["text"]] * 2


def test_columns_of_a_batch_are_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"expected columns of 3 values, as there are ids, got \[2, 3\]"):
        _batch(range(3), uncertainty=[0.5, 0.5])


def test_rows_come_in_time_order(log: InferenceLog) -> None:
    """By (time, id), whatever the order of arrival; windows are half open."""
    append(log, [_prediction(number) for number in (3, 1, 2, 0)])
    append(log, [_prediction(9, id="ID-upper", time=_hour(1)), _prediction(9, id="zz", time=_hour(1))])
    assert log.frame()["__id__"].tolist() == ["id000", "ID-upper", "id001", "zz", "id002", "id003"]
    assert log.frame(start=_hour(1), end=_hour(3))["__id__"].tolist() == ["ID-upper", "id001", "zz", "id002"]
    assert log.frame(newest=2)["__id__"].tolist() == ["id002", "id003"]
    assert log.frame(offset=1, limit=2)["__id__"].tolist() == ["ID-upper", "id001"]
    assert log.span() == (_hour(0), _hour(3))


def test_columns_are_selected(log: InferenceLog) -> None:
    """Those named, in that order, None throughout for one never sent; none at all; or all that occur."""
    append(log, [_prediction(0), _prediction(1, features={"amount": None, "new": 1})])
    assert list(log.frame(columns=[]).columns)[-1] == "__label_time__"
    assert list(log.frame(columns=["carrier", "never"]).columns)[-2:] == ["carrier", "never"]
    assert log.frame(columns=["never"])["never"].isna().all()
    assert list(log.frame().columns)[-3:] == ["amount", "carrier", "new"]
    assert log.frame()["amount"].dtype == np.float64


def test_an_empty_log(log: InferenceLog) -> None:
    """The columns are there, with their types, and no rows."""
    frame = log.frame(columns=["amount"])
    assert len(frame) == 0
    assert frame["__time__"].dtype == "datetime64[us]"
    assert "amount" in frame.columns
    assert log.span() is None
    assert log.counts() == (0, 0)
    assert log.versions() == {}


def test_logged_rows_conform_to_the_schema(log: InferenceLog) -> None:
    """What was sent as JSON gives the same conformed frame as the rows themselves."""
    frame = make_frame(50)
    rows = frame.drop(columns="late").assign(when=frame["when"].map(lambda moment: moment.isoformat()))
    rows.loc[3, "amount"] = None
    records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    append(log, [_prediction(number, features=record) for number, record in enumerate(records)])
    schema = make_schema()
    pd.testing.assert_frame_equal(conform(log.frame(columns=schema.names), schema), conform(rows, schema))


def test_feedback_is_counted(log: InferenceLog) -> None:
    """Stored, repeated, corrected, or without a prediction yet: each label counts once."""
    append(log, [_prediction(0), _prediction(1)])
    assert log.add_feedback([_label(0, "yes", 5), _label(1, "no", 5)]) == FeedbackCounts(2, 0, 0, 0)
    assert log.add_feedback([_label(0, "yes", 6), _label(1, "yes", 6)]) == FeedbackCounts(0, 1, 1, 0)
    assert log.add_feedback([_label(7, "no", 6), _label(0, "yes", 6)]) == FeedbackCounts(0, 1, 0, 1)
    again = [_label(7, "no", 7), _label(8, "no", 7), _label(8, "yes", 7), _label(0, "no", 7), _label(1, "yes", 7)]
    assert log.add_feedback(again) == FeedbackCounts(stored=0, repeated=2, corrected=1, unknown=2)
    assert log.add_feedback([]) == FeedbackCounts(0, 0, 0, 0)
    assert _labels(log.frame()) == ["no", "yes"]


def test_one_call_may_repeat_an_id(log: InferenceLog) -> None:
    """The last label of a call counts, and delivering the call again changes nothing."""
    append(log, [_prediction(0)])
    call = [_label(0, "no", 5), _label(0, "yes", 5)]
    assert log.add_feedback(call) == FeedbackCounts(1, 1, 0, 0)
    assert log.add_feedback(call) == FeedbackCounts(0, 2, 0, 0)
    assert _labels(log.frame()) == ["yes"]


def test_an_early_label_waits_for_its_prediction(log: InferenceLog) -> None:
    """A label whose prediction is not stored yet joins when it arrives."""
    assert log.add_feedback([_label(0, "yes", 1)]).unknown == 1
    append(log, [_prediction(0)])
    assert _labels(log.frame()) == ["yes"]


def test_an_old_label_delivered_again_never_undoes_a_correction(log: InferenceLog) -> None:
    """The label received last wins, whatever the order of delivery."""
    append(log, [_prediction(0)])
    log.add_feedback([_label(0, "no", 2)])
    log.add_feedback([_label(0, "yes", 3)])
    assert log.add_feedback([_label(0, "no", 2)]) == FeedbackCounts(0, 1, 0, 0)
    assert _labels(log.frame()) == ["yes"]


def test_labels_of_the_future_do_not_exist(log: InferenceLog) -> None:
    """`labels_by` shows what was known by then: absent before the label, the first label before its correction."""
    append(log, [_prediction(0)])
    log.add_feedback([_label(0, "no", 2)])
    log.add_feedback([_label(0, "yes", 4)])
    assert [_labels(log.frame(labels_by=_hour(hour))) for hour in (1, 2, 3, 4)] == [[None], ["no"], ["no"], ["yes"]]
    assert log.frame(labels_by=_hour(3))["__label_time__"].iloc[0] == pd.Timestamp(_hour(2))
    assert log.counts(labels_by=_hour(1)) == (1, 0)
    assert log.counts(labels_by=_hour(3)) == (1, 1)
    assert len(log.frame(labels_by=_hour(1), labelled_only=True)) == 0


def _said(label: str, at: float, received: float) -> Feedback:
    """A label with a time of its own, received at another."""
    return replace(_label(0, label, at), received=_hour(received))


def _seen(log: InferenceLog, *hours: float) -> list[object]:
    return [label for hour in hours for label in _labels(log.frame(labels_by=_hour(hour)))]


def test_a_label_s_time_is_corrected_alone(log: InferenceLog) -> None:
    """The newest statement says from when it counts, be it later or earlier, once it is told and after a restart."""
    append(log, [_prediction(0)])
    log.add_feedback([_said("yes", 2, received=20)])
    assert log.add_feedback([_said("yes", 8, received=21)]) == FeedbackCounts(0, 0, 1, 0)
    assert _seen(log, 2, 7, 8) == [None, None, "yes"]
    assert (log.counts(labels_by=_hour(7)).labelled, log.counts(labels_by=_hour(8)).labelled) == (0, 1)
    assert log.frame()["__label_time__"].iloc[0] == pd.Timestamp(_hour(8))
    assert log.add_feedback([_said("yes", 8, received=22)]) == FeedbackCounts(0, 1, 0, 0)
    assert log.add_feedback([_said("yes", 2, received=20)]) == FeedbackCounts(0, 1, 0, 0)  # delivered again
    assert log.add_feedback([_said("no", 9, received=20)]) == FeedbackCounts(0, 1, 0, 0, overtaken=1)
    assert log.add_feedback([_said("yes", 4, received=23)]) == FeedbackCounts(0, 0, 1, 0)
    assert _seen(log, 3, 4) == [None, "yes"]


def test_a_corrected_value_keeps_what_was_known_before_it(log: InferenceLog) -> None:
    """Only the newest label's time is corrected: what was said before another value stays known until then."""
    append(log, [_prediction(0)])
    log.add_feedback([_said("no", 2, received=20)])
    log.add_feedback([_said("yes", 4, received=21)])
    assert log.add_feedback([_said("yes", 6, received=22)]) == FeedbackCounts(0, 0, 1, 0)
    assert _seen(log, 1, 2, 4, 5, 6) == [None, "no", "no", "no", "yes"]
    assert log.add_feedback([_said("no", 8, received=23)]) == FeedbackCounts(0, 0, 1, 0)
    assert _seen(log, 2, 6, 7, 8) == ["no", "yes", "yes", "no"]


def test_a_label_without_a_time_says_that_it_is_known_by_now(log: InferenceLog) -> None:
    """So one sent again is no correction, but for one that was said to be of later."""
    append(log, [_prediction(0)])
    log.add_feedback([_said("yes", 900, received=20)])
    assert _seen(log, 21) == [None]
    assert log.add_feedback([_said("yes", 21, received=21)]) == FeedbackCounts(0, 0, 1, 0)
    assert log.add_feedback([_said("yes", 22, received=22)]) == FeedbackCounts(0, 1, 0, 0)
    assert _seen(log, 20, 21) == [None, "yes"]


def test_labelled_rows_alone(log: InferenceLog) -> None:
    """`labelled_only` selects before it cuts, so the newest labelled rows are found behind unlabelled ones."""
    append(log, [_prediction(number) for number in range(6)])
    log.add_feedback([_label(number, "yes", 9) for number in (0, 2, 3)])
    assert log.frame(labelled_only=True, newest=2)["__id__"].tolist() == ["id002", "id003"]
    assert log.counts() == (6, 3)
    assert log.counts(start=_hour(2), end=_hour(4)) == (2, 2)


def test_from_when_on_rows_lack_their_labels(log: InferenceLog) -> None:
    """Of the newest ones, by what was known at a moment; a shadow's rows are none."""
    append(log, [*(_prediction(number) for number in range(6)), _prediction(3, role="shadow", id="beside")])
    log.add_feedback([_label(number, "yes", 10 + number) for number in (0, 1, 2, 5)])

    def first(start: float = 0, end: float = 6, by: float = 20, newest: int = 100) -> datetime | None:
        return log.unlabelled_from(_hour(start), end=_hour(end), labels_by=_hour(by), newest=newest)

    assert (first(), first(end=3), first(start=5), first(start=4)) == (_hour(3), None, None, _hour(4))
    assert (first(by=11), first(newest=2), first(newest=1), first(end=0)) == (_hour(2), _hour(4), None, None)


def test_one_row_in_so_many(log: InferenceLog) -> None:
    """Evenly spaced in time, of the rows asked for, with their labels."""
    append(log, [_prediction(number) for number in (7, 0, 3, 1, 2, 6, 5, 4)])
    append(log, [_prediction(2, role="shadow", version="2")])
    log.add_feedback([_label(3, "yes", 9), _label(4, "yes", 9)])
    found = log.frame(step=3)
    assert found["__id__"].tolist() == ["id000", "id003", "id006"]
    assert _labels(found) == [None, "yes", None]
    assert log.frame(start=_hour(1), end=_hour(6), step=2)["__id__"].tolist() == ["id001", "id003", "id005"]
    assert log.frame(step=100)["__id__"].tolist() == ["id000"]


def test_versions_and_roles_are_told_apart(log: InferenceLog) -> None:
    """A champion and a shadow answer under one id, and share its label."""
    append(log, [_prediction(0), _prediction(0, role="shadow", version="2"), _prediction(1, version="2")])
    log.add_feedback([_label(0, "yes", 1)])
    assert log.frame(role="shadow")["__version__"].tolist() == ["2"]
    assert _labels(log.frame(role="shadow")) == ["yes"]
    assert len(log.frame(role=None)) == 3
    assert log.versions() == {"1": 1, "2": 1}
    assert log.frame(version="2")["__id__"].tolist() == ["id001"]
    assert log.counts(version="2") == (1, 0)


def test_tasks_share_a_database(engine: Engine, log: InferenceLog) -> None:
    """The same id in another task is another prediction."""
    other = InferenceLog(engine, "loans")
    assert append(log, [_prediction(0)]) == append(other, [_prediction(0, prediction="yes")]) == 1
    other.add_feedback([_label(0, "yes", 1)])
    assert log.counts() == (1, 0)
    assert log.frame()["__prediction__"].tolist() == ["no"]


@pytest.mark.parametrize("name", ["", "a\x00b"])
def test_an_id_no_database_keeps(log: InferenceLog, name: str) -> None:
    """Refused alike on both, and nothing of the call is stored."""
    with pytest.raises(RowError, match="id: expected text without NUL"):
        append(log, [_prediction(0), _prediction(1, id=name)])
    with pytest.raises(RowError, match="id: expected text without NUL"):
        log.append_batches([_batch(range(2), ids=["id000", name])])
    with pytest.raises(RowError, match="id: expected text without NUL"):
        log.add_feedback([replace(_label(0, "yes", 1), id=name)])
    assert log.counts() == (0, 0)


def test_threads_append_and_read_at_once(log: InferenceLog) -> None:
    """Overlapping batches from four threads are stored once each, while others read."""
    batches = [[_prediction(number) for number in range(first, first + 40)] for first in range(0, 160, 20)]
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(log.counts) for _ in range(5)]
        new = sum(pool.map(lambda some: append(log, some), batches))
        assert all(read.result().predictions <= 180 for read in reads)
    assert new == log.counts().predictions == 180


def test_more_ids_than_one_statement_takes(log: InferenceLog) -> None:
    """Databases bound the number of values in a statement; a call is not bounded by it."""
    append(log, [_prediction(number) for number in range(1_200)])
    assert log.add_feedback([_label(number, "yes", 1) for number in range(1_300)]) == FeedbackCounts(1200, 0, 0, 100)
    assert log.counts() == (1200, 1200)


def test_a_broken_database_is_a_store_error(engine: Engine, log: InferenceLog) -> None:
    """Every method says so, and the log works again when it is mended."""
    with writing(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE batches RENAME TO elsewhere")
        connection.exec_driver_sql("ALTER TABLE places RENAME TO away")
    writes = (lambda: log.append_batches([_batch(range(1))]),)
    for call in (*writes, log.frame, log.span, log.counts, log.versions):
        with pytest.raises(StoreError, match=r"batches|places"):
            call()
    with pytest.raises(StoreError, match=r"batches|places"):
        log.add_feedback([_label(0, "yes", 1)])
    with writing(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO batches")
        connection.exec_driver_sql("ALTER TABLE away RENAME TO places")
    assert append(log, [_prediction(0)]) == 1
    assert _labels(log.frame()) == [None]


def test_the_newest_event_passes_over_rows_that_lie_ahead_or_at_their_arrival(log: InferenceLog) -> None:
    arrival = datetime(2026, 1, 1)
    assert log.newest(arrival, timed=True) == (None, Astray(0, 0, None, 0))
    append(log, [_prediction(0, time=arrival, received=arrival)])
    assert log.newest(arrival, timed=True) == (arrival, Astray(1, 0, None, 0))  # there is no other
    append(log, [_prediction(3, received=arrival)])
    append(log, [_prediction(4, time=datetime(2124, 1, 1), received=arrival)])
    found = log.newest(arrival, timed=True)
    assert found == (_hour(3), Astray(3, 1, datetime(2124, 1, 1), 1))
    assert log.newest(arrival, timed=False) == (arrival, Astray(3, 1, datetime(2124, 1, 1), 0))
