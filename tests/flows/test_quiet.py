"""Blocks change places and nothing drifts any more; alarms are counted; and the command from end to end."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from flows import backtest
from flows.backtest import moments, place_of, progress_of, settings_of
from flows.cli import main
from flows.quiet import Alarms, Quiet, block_of, budget_of, count, describe, permuted, prepare
from registry.errors import DataError, StateError
from registry.policies import DriftPolicy, FalseAlarms, NeverPolicy, PerformancePolicy
from registry.task import RowWindows, TaskSpec, TimeWindows
from tests.flows.conftest import TINY_SEARCH
from tests.flows.playing import played_here
from tests.handmade import make_bundle, make_frame, make_task

DAYS, TURN, DAY, HOUR = 20, 15, timedelta(days=1), timedelta(hours=1)
"""The relation turns round after fifteen days of twenty, 144 rows a day."""


def history(folder: Path, **changes: object) -> TaskSpec:
    """Rows of twenty days from a Monday on, the last five with the relation reversed; windows of a day. Moments are no
    input: time moves on in every order."""
    path = folder / "all.parquet"
    late = make_frame(144 * (DAYS - TURN), seed=2, start=f"{datetime(2024, 1, 1) + TURN * DAY}", flip=1.0)
    pd.concat([make_frame(144 * TURN, seed=1), late]).to_parquet(path)
    base: dict[str, object] = {
        "source": {"kind": "file", "path": str(path)},
        "search": {**TINY_SEARCH, "max_epochs": 8},
        "monitor": {"windows": {"kind": "time", "every": "1d"}},
        "columns": {"exclude": ["when"]},
    }
    return make_task(**{**base, **changes})


def test_blocks_change_places_and_keep_their_rows_hours_and_lags() -> None:
    frame = make_frame(144 * 30, start="2024-01-02").assign(ordered=lambda rows: rows["when"] - pd.Timedelta(hours=5))
    moved = permuted(frame, frame["when"], 2 * DAY, seed=3)
    assert set(moved["when"]) == set(frame["when"])
    assert (moved["when"].dt.time == frame["when"].dt.time).all()
    assert (moved["when"] - moved["ordered"] == pd.Timedelta(hours=5)).all()
    far = (moved["when"] - frame["when"]).groupby((frame["when"] - datetime(1970, 1, 5)) // (2 * DAY))
    assert (far.nunique() == 1).all()
    assert far.first().nunique() > 8
    pd.testing.assert_frame_equal(moved.drop(columns=["when", "ordered"]), frame.drop(columns=["when", "ordered"]))
    assert moved.equals(permuted(frame, frame["when"], 2 * DAY, seed=3))
    assert not moved.equals(permuted(frame, frame["when"], 2 * DAY, seed=4))


@pytest.mark.parametrize(("never", "unit"), [("2262-04-10", "ns"), ("1677-09-22", "ns"), ("9999-12-31", "us")])
def test_a_moment_that_stands_for_never_stays_where_it_is(never: str, unit: str) -> None:
    frame = make_frame(144 * 20)
    far = pd.Series(np.datetime64(never)).astype(f"datetime64[{unit}]").repeat(len(frame)).set_axis(frame.index)
    ends = far.where(frame["amount"] > 0, frame["when"].dt.as_unit("s")).where(frame["amount"] < 1)
    moved = permuted(frame.assign(ends=ends), frame["when"], DAY, seed=3)
    assert moved["ends"].isna().equals(ends.isna())
    assert set(moved["ends"][frame["amount"].between(0, 1, inclusive="neither")]) == {pd.Timestamp(never)}
    assert (moved["ends"] == moved["when"])[frame["amount"] <= 0].all()
    aware = permuted(frame.assign(ends=ends.dt.tz_localize("UTC")), frame["when"], DAY, seed=3)
    assert aware["ends"].dt.tz_localize(None).equals(moved["ends"])


def test_a_block_is_a_window_in_whole_weeks_or_in_days_where_weeks_are_few() -> None:
    hours = pd.Series(pd.date_range("2024-01-01", periods=24 * 365, freq="h"))
    assert block_of(hours, TimeWindows(every="1d")) == timedelta(days=7)
    assert block_of(hours, TimeWindows(every="8d")) == timedelta(days=8)  # 26 of two weeks would be few
    assert block_of(hours, RowWindows(rows=100)) == timedelta(days=7)
    assert block_of(hours[: 24 * 60], RowWindows(rows=100)) == timedelta(days=5)
    assert block_of(hours[:1], RowWindows(rows=100)) == timedelta(days=1)


def test_the_first_model_and_its_reference_come_from_the_same_pool(tmp_path: Path) -> None:
    """Of the rows whose relation is reversed, the quiet order has as many among the first as among the last."""
    task = history(tmp_path)
    size, (quiet, real) = prepare(tmp_path / "out", task, orders=1, windows=100, block=HOUR, delay=HOUR)
    assert size == HOUR
    turned = set(pd.read_parquet(tmp_path / "all.parquet")["amount"].iloc[144 * TURN :])
    shares = {}
    for order in (quiet, real):
        parts = [pd.read_parquet(order.folder / name) for name in ("history.parquet", "stream.parquet")]
        assert len(parts[0]) == 0.4 * 144 * DAYS
        assert parts[0]["when"].max() < parts[1]["when"].min()
        shares[order.name] = [float(part["amount"].isin(turned).mean()) for part in parts]
    assert np.allclose(shares["quiet 1"], 1 / 4, atol=0.05)
    assert shares["real"] == [0.0, pytest.approx(5 / 12)]


def test_it_is_judged_by_the_task_s_own_policy_and_nothing_is_done(tmp_path: Path) -> None:
    policy = PerformancePolicy(false_alarms=FalseAlarms(number=1, windows=50), tolerate=0.3)
    task = history(tmp_path, policy=policy.model_dump())
    _, made = prepare(tmp_path / "out", task, orders=2, windows=6, block=None, delay=DAY)
    assert [order.name for order in made] == ["quiet 1", "quiet 2", "real"]
    for order in made:
        place = place_of(order.folder, order.plan, 0)
        assert (place.task.policy, place.task.mode) == (policy, "observe")
        assert len(pd.read_parquet(order.folder / "stream.parquet")) == 6 * 144


def test_what_a_policy_without_a_budget_is_paid_from() -> None:
    own = FalseAlarms(number=2, windows=100)
    assert budget_of(make_task(policy=DriftPolicy(false_alarms=own).model_dump())) == own
    assert budget_of(make_task(policy=NeverPolicy().model_dump())) == PerformancePolicy().false_alarms


def test_blocks_that_the_history_cuts_off_are_left_out_and_rows_without_time(tmp_path: Path) -> None:
    """Half a day at either end; a row without time belongs nowhere."""
    frame = make_frame(144 * 20, start="2024-01-01T12:00")
    frame.loc[200, "when"] = pd.NaT
    frame.to_parquet(tmp_path / "all.parquet")
    task = history(tmp_path)
    frame.to_parquet(tmp_path / "all.parquet")
    _, (quiet, _) = prepare(tmp_path / "out", task, orders=1, windows=100, block=DAY, delay=HOUR)
    parts = [pd.read_parquet(quiet.folder / name) for name in ("history.parquet", "stream.parquet")]
    times = moments(pd.concat(parts), task)
    assert (times.min(), times.max()) == (datetime(2024, 1, 2), datetime(2024, 1, 20, 23, 50))
    assert len(times) == 144 * 19 - 1


def test_a_history_of_few_blocks_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    task, sheet = history(tmp_path), tmp_path / "task.yaml"
    sheet.write_text(yaml.safe_dump(task.model_dump(mode="json")), encoding="utf-8")
    arguments = ["quiet", str(sheet), "--block", "4d", "--folder", str(tmp_path / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "only 4 whole blocks of 4d, 12 are needed" in done.output
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="needs the column"):
        prepare(tmp_path / "a", task.model_copy(update={"time": None}), orders=1, windows=9, block=None, delay=DAY)
    make_frame(400).assign(when=pd.NaT).to_parquet(tmp_path / "all.parquet")
    with pytest.raises(DataError, match="no row has a time"):
        prepare(tmp_path / "b", task, orders=1, windows=9, block=None, delay=DAY)


def test_alarms_are_counted_by_their_worst_verdict() -> None:
    found = count("a", ["shifted", "shifted", "ok", "shifted", "degraded", "faulty", "ok", "ok", "faulty"])
    assert found.entered == {"shifted": 1, "faulty": 1, "degraded": 1}
    assert (found.windows, found.on, found.total) == (9, 6, 3)


def test_the_interval_is_poisson_s() -> None:
    """Garwood's table: none has 0 to 3.69, five have 1.62 to 11.67."""
    none, five = alarms(0, 100), alarms(5, 100)
    assert none.rate == pytest.approx((0.0, 0.0, 0.03689), abs=1e-5)
    assert five.rate == pytest.approx((0.05, 0.01623, 0.11668), abs=1e-5)


def alarms(entered: int, windows: int, name: str = "quiet 1") -> Alarms:
    """So many shifts told in so many windows."""
    return Alarms(name=name, windows=windows, entered={"shifted": entered, "faulty": 0, "degraded": 0}, on=entered)


@pytest.mark.parametrize(
    ("entered", "said"),
    [
        (0, "INSIDE the budget (surely): 0 false alarms; stated 1 per 10 windows: 0.1000 a window, 20.0 in these."),
        (18, "INSIDE the budget (as counted; so few windows do not show it for sure): 18 false alarms"),
        (24, "OVER the budget (as counted; chance alone may do that in so few windows): 24 false alarms"),
        (60, "OVER the budget (surely): 60 false alarms"),
    ],
)
def test_whether_the_budget_holds_is_said_plainly(entered: int, said: str) -> None:
    one, other, real = alarms(0, 100), alarms(entered, 100, "quiet 2"), alarms(7, 50, "real")
    found = Quiet(task="a", block="1w", stated="1 per 10 windows", budget=0.1, orders=(one, other), real=real)
    text = describe(found)
    assert said in text
    assert f"Real order: 7 alarms, on in 7 of 50 windows; a quiet one as long: {entered / 4:.1f}" in text


def test_the_command_plays_counts_and_goes_on(
    tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of an hour spread the reversed relation over all days: what the real order is degraded by is no news. Its
    first model is there already, as after a break: only the quiet order's is searched."""
    monkeypatch.setattr(backtest, "_process", played_here)
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    task, sheet, folder = history(tmp_path), tmp_path / "task.yaml", tmp_path / "out"
    sheet.write_text(yaml.safe_dump(task.model_dump(mode="json")), encoding="utf-8")
    _, (_, real) = prepare(folder, task, orders=1, windows=1000, block=HOUR, delay=HOUR)
    make_bundle(real.folder / "first" / "bundle", **real.plan.task.model_dump(exclude={"name", "problem"}))
    for name in ("quiet-1", "real"):
        settings_of(folder / name, 0).folder.mkdir(parents=True)
        shutil.copy(empty_registry, settings_of(folder / name, 0).folder / "mlflow.db")
    arguments = ["quiet", str(sheet), "--orders", "1", "--block", "1h", "--delay", "1h", "--folder", str(folder)]
    done = CliRunner().invoke(main, [*arguments, "--seconds", "20"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "quiet 1: 12 windows, real: 12 windows" in done.output
    found = Quiet.model_validate_json((folder / "quiet.json").read_bytes())
    assert (found.block, found.stated) == ("1h", "1 per 90d")
    assert found.budget == pytest.approx(1 / 90)
    assert found.real.entered["degraded"] >= 1
    assert found.real.on >= 4
    assert found.together.on < found.real.on / 2
    assert "the budget (" in done.output
    steps = progress_of(folder / "real", 0).steps
    assert not any(step.by or step.stepped or step.promoted for step in steps)
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "searching" not in again.output
    assert not [line for line in again.output.splitlines() if line.startswith("real  ") and "/12" in line]
    assert again.output.endswith((folder / "quiet.txt").read_text(encoding="utf-8"))
    other = CliRunner().invoke(main, [*arguments, "--block", "2h"])
    assert other.exit_code == 3
    assert "holds another back-test" in other.output


def test_a_history_that_has_grown_is_another_one(tmp_path: Path) -> None:
    """Of so few windows as many rows follow as before: other rows taught the first model."""
    task, folder = history(tmp_path), tmp_path / "out"
    asked: dict[str, Any] = {"orders": 1, "windows": 4, "block": DAY, "delay": HOUR}
    prepare(folder, task, **asked)
    prepare(folder, task, **asked)
    grown = pd.concat([pd.read_parquet(tmp_path / "all.parquet"), make_frame(144 * 10, start="2024-01-21")])
    grown.to_parquet(tmp_path / "all.parquet")
    with pytest.raises(StateError, match=r"holds another back-test \(first rows \(1152 -> 1728\)\)"):
        prepare(folder, task, **asked)
