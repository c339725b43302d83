"""A proposed task fits the data, is explained key by key, and comes back from its file unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from registry.durations import format_duration
from registry.errors import DataError, RowError, TaskError
from registry.inference import infer_kinds
from registry.proposal import propose, task_name, to_yaml, write
from registry.task import FileSource, SqlSource, TaskSpec, load
from retrain.checks import examine, require
from tests.handmade import make_frame, make_task

SOURCE = FileSource(path="data/flights.parquet")


@pytest.mark.parametrize(("problem", "metric"), [("binary", "auc"), ("multiclass", "log_loss"), ("regression", "rmse")])
def test_problem_and_metric_follow_the_target(problem: Any, metric: str) -> None:
    task = propose(make_frame(2_000, problem=problem), SOURCE, target="late", time="when")
    assert (task.name, task.problem, task.metric) == ("flights", problem, metric)


@pytest.mark.parametrize(
    ("every", "rows", "expected"),
    [
        ("2s", 60_000, "1h"),  # 33 hours
        ("10s", 60_000, "6h"),  # a week
        ("2min", 60_000, "1d"),  # 83 days
        ("10min", 60_000, "1w"),  # 417 days
        ("1h", 60_000, "4w"),  # 7 years
        ("1h", 8_760, "1w"),  # a year
        ("2h", 8_760, "2w"),  # 2 years; a week would hold too few rows
        ("4h", 8_760, "4w"),  # 4 years
        ("1ms", 60_000, "1300 rows"),  # a minute
        ("1D", 250, "200 rows"),
    ],
)
def test_windows_follow_the_datas_rate(every: str, rows: int, expected: str) -> None:
    task = propose(make_frame(rows, every=every), SOURCE, target="late", time="when")
    found = task.monitor.windows
    assert expected == (format_duration(found.every) if found.kind == "time" else f"{found.rows} rows")


def test_without_time_windows_count_rows() -> None:
    task = propose(make_frame(60_000).drop(columns="when"), SOURCE, target="late")
    assert task.time is None
    assert task.monitor.windows.model_dump() == {"kind": "rows", "rows": 1_300}


SPECS = [
    make_task(),
    make_task("regression", time=None, columns={"kinds": {"a: b": "categorical", "#ü": "numeric"}, "exclude": ["no"]}),
    make_task(source=SqlSource(url="postgresql://me:${PW}@db/x", query="select *\nfrom t -- 'all'"), target="yes: #"),
    make_task(policy={"kind": "periodic", "every": 3}, monitor={"windows": {"kind": "rows", "rows": 500}}),
    make_task(policy={"kind": "never"}, research={"history": "90d"}, constraints={"latency_ms": 2.5}),
]


@pytest.mark.parametrize("task", SPECS)
def test_the_file_reads_back_equal_and_explains_every_key(task: TaskSpec, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    write(task, path)
    assert load(path) == task
    lines = path.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\s*[a-z_]+:( |$)", line)]
    assert len(keys) > 40
    assert [lines[number] for number in keys if not lines[number - 1].lstrip().startswith("# ")] == []


def test_the_file_shows_what_was_seen_of_the_columns() -> None:
    frame = make_frame(100).assign(row=range(100), **{"odd\nname": 1})
    kinds = infer_kinds(frame, make_task().columns, target="late", time="when")
    text = to_yaml(propose(frame, SOURCE, target="late", time="when"), kinds=kinds)
    assert "# seen as numeric: amount, weight\n" in text
    assert "# left out: row (identifier-like: whole numbers that run without repetition)\n" in text
    assert "# left out: odd name (constant: every value is 1)\n" in text


def test_a_file_with_names_of_any_characters_reads_back(tmp_path: Path) -> None:
    frame = make_frame(300).assign(**{"a\0b\x1b": 1.5, "new\nline": range(300)})
    task = propose(frame, SOURCE, target="late")
    path = tmp_path / "task.yaml"
    write(task, path, kinds=infer_kinds(frame, task.columns, target="late"))
    assert load(path) == task


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("mine")
    with pytest.raises(TaskError, match="already exists"):
        write(make_task(), path)
    assert path.read_text() == "mine"
    with pytest.raises(TaskError, match="cannot be written"):
        write(make_task(), tmp_path / "no" / "task.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"target": "lat"}, r"no column 'lat' \(did you mean 'late'\?\)"),
        ({"target": "late", "time": "wen"}, r"no column 'wen' \(did you mean 'when'\?\)"),
        ({"target": "late", "time": "late"}, "the same column"),
        ({"target": "late", "name": "No Name"}, "name: expected lower case letters, digits and dashes"),
        ({"target": "empty"}, "'empty' is missing in all 300 rows"),
        ({"target": "lists"}, "the target 'lists': values of type list are not supported"),
        ({"target": "bytes"}, "'bytes': values of type bytes are not supported; decode them"),
    ],
)
def test_wrong_wishes_are_task_errors(arguments: dict[str, str], expected: str) -> None:
    frame = make_frame(300).assign(empty=np.nan, lists=[[1, 2]] * 300, bytes=[b"a", b"b"] * 150)
    if arguments.get("time") == "late":
        frame["late"] = pd.date_range("2024-01-01", periods=300)
    with pytest.raises(TaskError, match=expected):
        propose(frame, SOURCE, **arguments)  # type: ignore[arg-type]


def test_a_time_column_without_times() -> None:
    with pytest.raises(RowError, match="'carrier', row 0: expected an ISO 8601"):
        propose(make_frame(300), SOURCE, target="late", time="carrier")


@pytest.mark.parametrize(
    ("written", "how"),
    [
        (lambda at: at.astype("int64") // 10**6, {"unit": "s"}),
        (lambda at: at.astype("int64") // 10**3, {"unit": "ms"}),
        (lambda at: at.dt.strftime("%d/%m/%Y %H:%M"), {"dayfirst": True}),
        (lambda at: at.dt.strftime("%m/%d/%Y %H:%M"), {"dayfirst": False}),
    ],
)
def test_a_time_column_that_is_none_yet_is_told_how_to_become_one(
    written: Callable[[pd.Series], pd.Series], how: dict[str, Any]
) -> None:
    """What is told works, by init and by a search in the same words."""
    frame = make_frame(300, start="2024-01-20")
    moments = frame["when"].dt.floor("min").astype("datetime64[us]")
    other = frame.assign(when=written(moments))
    said = re.escape(f"pd.to_datetime(frame['when'], {', '.join(f'{key}={value!r}' for key, value in how.items())})")
    with pytest.raises(RowError, match=said):
        propose(other, SOURCE, target="late", time="when")
    with pytest.raises(DataError, match=said):
        require(examine(other, make_task()))
    assert (pd.to_datetime(other["when"], **how).astype("datetime64[us]") == moments).all()


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/B c.csv", "b-c"), ("2013.parquet", "task-2013"), ("x/*.csv", "x"), ("*.csv", "task"), ("ü.csv", "task")],
)
def test_a_name_from_a_path(path: str, name: str) -> None:
    assert task_name(FileSource(path=path), "late") == name
