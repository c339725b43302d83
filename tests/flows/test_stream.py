"""A file as a stream: order, ids, JSON records, windows, arrivals of labels."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from flows.stream import Stream, is_whole, learnt, open_stream, plain_values, steps
from registry.errors import DataError
from registry.task import RowWindows, TimeWindows
from tests.handmade import make_frame, make_task

DAY = timedelta(days=1)


def stream_of(rows: int = 300, *, name: str = "one", every: str = "1h") -> Stream:
    return open_stream(make_frame(rows, every=every), make_task(), name=name)


def test_rows_come_in_time_order_whatever_the_files_order() -> None:
    frame = make_frame(200, every="1h")
    shuffled = frame.sample(frac=1, random_state=3)
    stream = open_stream(shuffled, make_task(), name="one")
    assert (np.diff(stream.times) >= np.timedelta64(0)).all()
    pd.testing.assert_series_equal(stream.rows["amount"], frame["amount"])
    assert stream.labels.tolist() == frame["late"].tolist()


def test_the_target_and_excluded_columns_are_never_sent() -> None:
    task = make_task(columns={"exclude": ["weight"]})
    stream = open_stream(make_frame(5), task, name="one")
    assert set(stream.records(0, 1)[0]) == {"when", "amount", "member", "carrier"}


def test_ids_are_those_of_the_rows_and_the_replay() -> None:
    assert stream_of().ids(10, 20) == stream_of().ids(0, 300)[10:20]
    assert len(set(stream_of().ids(0, 300))) == 300
    assert not set(stream_of().ids(0, 300)) & set(stream_of(name="two").ids(0, 300))
    other = open_stream(make_frame(300, every="1h", seed=1), make_task(), name="one")
    assert not set(stream_of().ids(0, 300)) & set(other.ids(0, 300))


def test_records_are_json_with_null_for_what_is_missing() -> None:
    frame = make_frame(4)
    frame.loc[1, "amount"], frame.loc[2, "weight"], frame.loc[3, "carrier"] = np.nan, np.inf, None
    records = open_stream(frame, make_task(), name="one").records(0, 4)
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert records[1]["amount"] is None
    assert records[2]["weight"] is None
    assert records[3]["carrier"] is None
    assert records[0]["when"] == "2024-01-01T00:00:00"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([True, None], dtype=object), [True, None]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Series(pd.to_datetime(["2024-01-01", None])), ["2024-01-01T00:00:00", None]),
    ],
)
def test_every_kind_of_column_becomes_plain(values: pd.Series, expected: list) -> None:
    assert plain_values(values) == expected


def test_no_label_exists_before_its_delay_has_passed() -> None:
    stream = stream_of()
    now = datetime(2024, 1, 3)
    due = stream.due(now, DAY)
    assert due == 25  # the rows of the first day, and that of the second midnight exactly
    arrivals = [datetime.fromisoformat(one["time"]) for one in stream.feedback(0, due, DAY)]
    assert max(arrivals) == now
    assert stream.due(datetime(2023, 12, 1), DAY) == 0


def test_rows_without_label_give_no_feedback() -> None:
    frame = make_frame(10)
    frame.loc[[2, 5], "late"] = None
    assert len(open_stream(frame, make_task(), name="one").feedback(0, 10, DAY)) == 8


def test_steps_are_whole_windows_without_gaps_or_overlap() -> None:
    stream = stream_of(500)
    found = steps(stream.times, TimeWindows(every="7d"))
    assert [step.index for step in found] == list(range(len(found)))
    assert found[0].start == 0
    assert found[-1].stop == 500
    for one, other in itertools.pairwise(found):
        assert one.stop == other.start
        assert one.end == other.begin
    for step in found:
        inside = stream.times[step.start : step.stop]
        assert np.datetime64(step.begin) <= inside.min()
        assert inside.max() < np.datetime64(step.end)


def test_windows_without_rows_are_left_out() -> None:
    frame = pd.concat([make_frame(5), make_frame(5, start="2024-06-01")])
    stream = open_stream(frame, make_task(), name="one")
    assert [step.stop - step.start for step in steps(stream.times, TimeWindows(every="7d"))] == [5, 5]


@pytest.mark.parametrize(
    ("rows", "every", "whole"),
    [(20, "1h", False), (165, "1h", True), (20, "12h", False), (14, "12h", True), (336, "1h", True), (4, "100h", True)],
)
def test_a_last_window_is_whole_where_rows_come_up_to_its_end(rows: int, every: str, whole: bool) -> None:
    """Weeks from Monday on; where rows are seldom, a long silence tells nothing."""
    times = open_stream(make_frame(rows, start="2024-03-04", every=every), make_task(), name="one").times
    weeks = TimeWindows(every="7d")
    assert is_whole(times, steps(times, weeks)[-1], weeks) is whole


@pytest.mark.parametrize(("rows", "whole"), [(80, True), (95, False)])
def test_a_last_window_by_rows_is_whole_when_it_is_full(rows: int, whole: bool) -> None:
    times, windows = stream_of(rows).times, RowWindows(rows=40)
    assert is_whole(times, steps(times, windows)[-1], windows) is whole


def test_row_windows_hold_so_many_rows() -> None:
    found = steps(stream_of(95).times, RowWindows(rows=40))
    assert [(step.start, step.stop) for step in found] == [(0, 40), (40, 80), (80, 95)]
    assert found[0].end > found[0].begin


@pytest.mark.parametrize(
    ("frame", "changes", "words"),
    [
        (make_frame(5), {"time": None}, "has no time column"),
        (make_frame(5).rename(columns={"late": "lat"}), {}, "'late'.*did you mean 'lat'"),
        (make_frame(5).drop(columns="when"), {}, "'when'.*missing"),
        (make_frame(5).assign(when=[None, *pd.date_range("2024", periods=4)]), {}, "1 of 5 rows have no time"),
        (make_frame(5).head(0), {}, "no rows"),
    ],
)
def test_rows_that_cannot_be_replayed_are_refused(frame: pd.DataFrame, changes: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_stream(frame, make_task(**changes), name="one")


def test_rows_that_a_version_has_learnt_are_told() -> None:
    stream = stream_of(100)
    begin = stream.times[0].item()
    assert learnt(stream, "3", begin - timedelta(hours=1)) is None
    said = learnt(stream, "3", begin + timedelta(hours=9, minutes=30))
    assert said is not None
    assert said.startswith(f"warning: 10 of 100 rows are from before {begin:%Y-%m-%d} 09:30, up to when version 3 was")
    assert (learnt(stream, "3", begin + DAY * 99) or "").startswith("warning: all rows are")
