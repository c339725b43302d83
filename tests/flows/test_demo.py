"""The demo's frame: its folder, its settings, and that nothing of it is left when it fails. The demo as a whole is
played by `make demo` and, for several seeds, by `benchmarks/demo_seeds.py`."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from flows.comparison import ByWindow, Comparison, Pooled, WindowScore
from flows.demo import MARKER, DemoResult, Plan, flights_plan, run, summary
from flows.results import Results
from flows.traffic import Counts
from flows.workplace import find_task
from registry.errors import DataError, InputError
from registry.settings import Settings
from registry.task import TimeWindows
from tests.handmade import make_frame


def broken_plan(rows: int = 1500) -> Plan:
    """A plan whose task is made and registered, and whose data then fail."""

    def data(folder: Path) -> tuple[Path, Path]:
        folder.mkdir(parents=True)
        make_frame(rows, every="1h").to_parquet(folder / "history.parquet")
        if rows < 1000:
            raise DataError("too few rows to play with")
        return folder / "history.parquet", folder / "stream.parquet"

    return replace(flights_plan(3), name="tiny", data=data, target="late", time="when")


def test_a_folder_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a demo's folder: choose another with --folder"):
        run(broken_plan(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failure_leaves_no_process_and_no_variable_behind(tmp_path: Path) -> None:
    before, children = dict(os.environ), psutil.Process().children(recursive=True)
    with pytest.raises(DataError, match="too few rows"):
        run(broken_plan(rows=10), tmp_path / "demo", say=lambda _: None)
    assert dict(os.environ) == before
    assert psutil.Process().children(recursive=True) == children


def test_the_folder_of_an_earlier_demo_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / MARKER).touch()
    (folder / "replay.txt").write_text("old")
    with pytest.raises(DataError, match="too few rows"):
        run(broken_plan(rows=10), folder, say=lambda _: None)
    assert not (folder / "replay.txt").exists()
    assert (folder / MARKER).is_file()


def test_the_plans_task_is_what_is_proposed_with_the_plans_changes(tmp_path: Path) -> None:
    from flows.demo import _task

    plan = broken_plan()
    settings = Settings(home=tmp_path / "home")
    history, _ = plan.data(tmp_path / "data")
    task = _task(plan, history, settings, lambda _: None)
    assert find_task(settings, "tiny") == task
    assert (task.problem, task.metric, task.search.seed) == ("binary", "auc", 3)
    assert task.monitor.windows == TimeWindows(every=timedelta(days=7))


def made_comparison() -> Comparison:
    """One week, of which a period's figures are told."""
    week = WindowScore(
        index=0,
        begin=datetime(2013, 5, 6),
        end=datetime(2013, 5, 13),
        rows=100,
        version="1",
        served=0.7,
        frozen=0.7,
        gain=0.0,
        severity="degraded",
        remedy="research",
        outcome="promote",
        champion="2",
        promoted=True,
    )
    pooled = Pooled(begin=week.begin, end=week.end, rows=100, served=0.74, frozen=0.7, gain=0.04)
    return Comparison(
        task="flights",
        metric="auc",
        greater_is_better=True,
        first_version="1",
        references={"1": 0.72},
        tolerate=0.02,
        windows=(week,),
        pooled=pooled,
        by_window=ByWindow(windows=17, served=0.71, frozen=0.7, gain=0.01, changed=15, ahead=14),
    )


def test_the_summary_says_what_was_asked_for(tmp_path: Path) -> None:
    results = Results(
        comparison=made_comparison(),
        rows=100,
        predictions=100,
        labels_sent=99,
        labelled=99,
        promotions=1,
        requests=Counts(sent=5),
        background=Counts(sent=7),
        seconds=3.0,
    )
    result = DemoResult(
        seed=0,
        results=results,
        stages={"search": 61.0, "replay": 120.0},
        seconds=181.0,
        peak_bytes=2**31,
        at_peak={},
        picture="demo-output/replay.png",
    )
    text = summary(result)
    for words in (
        "research: version 2 promoted",
        "auc 0.7400 served, 0.7000 frozen, gain +0.0400",
        "mean of 17 windows: auc 0.7100 served, 0.7000 frozen, gain +0.0100; ahead in 14 of 15 since",
        "requests sent              12",
        "requests failed             0",
        "predictions logged        100  of 100 rows",
        "labels joined              99  of 99 sent",
        "181 s  (search 61, replay 120)",
        "2.00 GiB",
        "demo-output/replay.png",
    ):
        assert words in text
