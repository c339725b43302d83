"""Tasks by name, and the stores behind them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
import yaml

from flows.watch import watch
from flows.workplace import Workplace, enter, find_task, load_task, register_task, task_names
from registry.database import utc_now
from registry.errors import TaskError
from registry.settings import Settings
from registry.task import FileSource, SqlSource
from tests.flows.conftest import fill
from tests.handmade import make_frame, make_task


def write_yaml(path: Path, source: dict[str, str]) -> Path:
    task = make_task(source=source).model_dump(mode="json")
    path.write_text(yaml.safe_dump(task))
    return path


def test_a_relative_source_is_taken_from_the_file_of_the_task(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "task.yaml", {"kind": "file", "path": "data/rows-*.csv"})
    assert load_task(path).source == FileSource(path=f"{tmp_path}/data/rows-*.csv")


def test_a_query_is_taken_as_it_is(tmp_path: Path) -> None:
    source = {"kind": "sql", "url": "postgresql://${USER}@db/rows", "query": "select 1"}
    assert load_task(write_yaml(tmp_path / "task.yaml", source)).source == SqlSource(**source)


def test_a_registered_task_is_found_by_name_and_replaced(settings: Settings) -> None:
    for metric in ("auc", "brier"):
        register_task(settings, make_task(source={"kind": "file", "path": "/rows.csv"}, metric=metric))
    assert task_names(settings) == ("handmade",)
    assert find_task(settings, "handmade").metric == "brier"
    assert os.listdir(settings.folder / "tasks") == ["handmade.yaml"]


def test_a_task_file_is_found_by_path_without_being_registered(settings: Settings, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "task.yaml", {"kind": "file", "path": "rows.csv"})
    assert find_task(settings, path).name == "handmade"
    assert task_names(settings) == ()


def test_a_relative_source_is_not_registered(settings: Settings) -> None:
    with pytest.raises(TaskError, match=r"must be absolute to be registered, got 'handmade\.csv'"):
        register_task(settings, make_task())


def test_an_unknown_name_tells_the_known_ones(settings: Settings) -> None:
    with pytest.raises(TaskError, match=r"no task is registered in .*home"):
        find_task(settings, "handmade")
    register_task(settings, make_task(source={"kind": "file", "path": "/rows.csv"}))
    with pytest.raises(TaskError, match="did you mean 'handmade'"):
        find_task(settings, "hand-made")


def test_the_moment_is_the_newest_event_that_is_not_after_the_clock(place: Workplace, tmp_path: Path) -> None:
    assert utc_now() - place.now() < timedelta(seconds=5)
    fill(place.log, make_frame(1, start="2124-03-02"), tmp_path / "bundle")
    assert utc_now() - place.now() < timedelta(seconds=5)  # nothing else says what time it is
    fill(place.log, make_frame(3, start="2024-03-02"), tmp_path / "bundle")
    assert place.now() == datetime(2024, 3, 2, 0, 20)


def test_a_row_of_no_moment_or_of_the_future_does_not_move_the_clock(place: Workplace, tmp_path: Path) -> None:
    """A history of 2024, logged now: one row without a moment lies at its arrival, one a century ahead."""
    rows = make_frame(1440, seed=3, start="2024-03-01", flip=0.5)
    fill(place.log, rows, tmp_path / "bundle", received=utc_now())
    before = watch.fn("handmade", repair=False)
    assert (before["windows"], place.now(), place.astray()) == (2, datetime(2024, 3, 11), None)
    stray = make_frame(2, start="2024-03-09").assign(when=[pd.Timestamp(utc_now()), pd.Timestamp("2124-03-02")])
    fill(place.log, stray.iloc[:1], tmp_path / "bundle", received=stray["when"][0].to_pydatetime())
    fill(place.log, stray.iloc[1:], tmp_path / "bundle", received=utc_now())
    assert place.now() == datetime(2024, 3, 11)
    assert watch.fn("handmade", repair=False)["windows"] == 0
    fill(place.log, make_frame(144, start="2024-03-12"), tmp_path / "bundle", received=utc_now())
    fill(place.log, make_frame(1, start="2024-03-18 12:00"), tmp_path / "bundle", received=utc_now())
    after = watch.fn("handmade", repair=False)
    assert after["windows"] == 2  # the new one, and the one whose last labels have come
    assert after["reasons"][-1] == (
        "rows that the task's time passes over: without a moment in 'when', which count as of their arrival: 1; "
        "after the clock, up to 2124-03-02 00:00: 1"
    )


@pytest.mark.parametrize(("windows", "due"), [({"kind": "rows", "rows": 300}, 2), ({"kind": "time", "every": "1d"}, 4)])
def test_without_a_time_column_all_labels_that_have_come_are_known(
    make_place: Callable[..., Workplace], tmp_path: Path, windows: dict[str, object], due: int
) -> None:
    """They come after the last prediction; windows are over as far as the rows go, however long ago that was."""
    place = make_place(time=None, monitor={"windows": windows, "report": "never"})
    fill(place.log, make_frame(600, seed=3, start="2024-03-01", flip=0.5), tmp_path / "bundle", delay=timedelta(days=9))
    assert watch.fn("handmade", as_of=datetime(2024, 3, 5, 4), repair=False)["windows"] == due
    records = [entry.details["measurements"] for entry in place.ledger.read(kinds={"window"})]
    assert not any(one.get("subject") == "labelled" and one["value"] for one in chain(*records))
    found = watch.fn("handmade", repair=False)
    assert (found["windows"], found["severity"]) == (due, "degraded")
    assert utc_now() - place.now() < timedelta(seconds=5)
    assert watch.fn("handmade", repair=False)["windows"] == 0


def test_a_pass_after_one_of_a_later_moment_says_the_same(place: Workplace, tmp_path: Path) -> None:
    """The last row of a week comes before its end: a pass as of the end judges it, and so does the one after that."""
    fill(place.log, make_frame(1440, seed=3, start="2024-03-01", flip=0.5), tmp_path / "bundle")
    later = watch.fn("handmade", as_of=datetime(2024, 3, 11), repair=False)
    assert later["windows"] == 2
    assert place.now() == datetime(2024, 3, 11)
    again = watch.fn("handmade", repair=False)
    assert again == {**later, "windows": 0}


def test_a_flow_enters_with_the_settings_of_the_environment(place: Workplace) -> None:
    found = enter("handmade")
    assert found.settings == place.settings
    assert found.versions.get("handmade", "champion") == "1"


def test_a_moment_with_a_zone_is_taken_as_event_times_are_written(place: Workplace) -> None:
    zoned = datetime(2024, 3, 9, 2, tzinfo=timezone(timedelta(hours=2)))
    assert place.moment(zoned) == place.moment(datetime(2024, 3, 9)) == datetime(2024, 3, 9)
    assert place.moment(zoned).tzinfo is None
    assert abs(place.moment(None) - utc_now()) < timedelta(minutes=1)
