"""Windows: a grid that stays, complete ones only, every row in exactly one."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from monitor.measurements import Window
from monitor.windows import Span, due, seen, spans
from registry.bundle import ModelBundle
from registry.inference_log import InferenceLog
from registry.task import RowWindows, TimeWindows
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

WEEK = TimeWindows(every=timedelta(days=7))


def known(found: list[Span]) -> list[Window]:
    return [Window(index=one.index, start=one.start, end=one.end, rows=1) for one in found]


@pytest.mark.parametrize("first", ["2024-03-04", "2024-03-06T11:30", "2024-03-10T23:59:59.999999"])
def test_the_grid_does_not_depend_on_where_in_its_span_the_first_row_lies(first: str) -> None:
    found = list(spans(datetime.fromisoformat(first), WEEK.every, datetime(2024, 3, 25)))
    assert [(one.index, one.start.day) for one in found] == [(0, 4), (1, 11), (2, 18)]


def test_a_window_is_due_once_its_end_has_passed_and_not_before(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(300, start="2024-03-04", every="1h"))
    assert due(WEEK, log, [], datetime(2024, 3, 10, 23, 59)) == []
    assert [one.index for one in due(WEEK, log, [], datetime(2024, 3, 11))] == [0]


@pytest.mark.parametrize(("rows", "windows"), [(504, WEEK), (120, RowWindows(rows=40))])
def test_a_history_that_ends_with_a_window_has_it_judged_and_one_that_is_cut_off_has_not(
    rows: int, windows: TimeWindows | RowWindows, bundle: ModelBundle, log: InferenceLog
) -> None:
    frame = make_frame(rows + 1, start="2024-03-04", every="1h")
    write_rows(log, bundle, frame.head(rows - 20))
    assert [one.index for one in due(windows, log, [], seen(windows, frame["when"].iloc[rows - 21]))] == [0, 1]
    write_rows(log, bundle, frame.head(rows))
    assert [one.index for one in due(windows, log, [], seen(windows, frame["when"].iloc[rows - 1]))] == [0, 1, 2]


def test_known_windows_are_not_due_and_numbers_go_on(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(300, start="2024-03-04", every="1h"))
    first = due(WEEK, log, [], datetime(2024, 3, 11))
    later = due(WEEK, log, known(first), datetime(2024, 3, 26))
    assert [one.index for one in later] == [1, 2]
    write_rows(log, bundle, make_frame(5, start="2024-01-01"), tag="late")
    assert due(WEEK, log, known(first), datetime(2024, 3, 26)) == later


def test_an_empty_log_has_no_windows(log: InferenceLog) -> None:
    assert due(WEEK, log, [], datetime(2024, 3, 11)) == []
    assert due(RowWindows(rows=30), log, [], datetime(2024, 3, 11)) == []


def test_row_windows_hold_every_row_once_ties_together(bundle: ModelBundle, log: InferenceLog) -> None:
    frame = make_frame(200, start="2024-03-04")
    frame["when"] = frame["when"].dt.floor("1h")  # six rows a moment
    write_rows(log, bundle, frame)
    found = due(RowWindows(rows=40), log, [], datetime(2024, 4, 1))
    sizes = [log.counts(start=one.start, end=one.end).predictions for one in found]
    assert sizes == [42, 42, 42, 42]
    assert [one.start for one in found[1:]] == [one.end for one in found[:-1]]


def test_row_windows_go_on_where_the_last_ended(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(100, start="2024-03-04"))
    rows = RowWindows(rows=40)
    every = due(rows, log, [], datetime(2024, 4, 1))
    assert due(rows, log, known(every[:1]), datetime(2024, 4, 1)) == every[1:]
    assert len(every) == 2
    assert due(rows, log, [], every[0].end - timedelta(microseconds=1)) == []
