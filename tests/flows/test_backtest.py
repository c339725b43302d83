"""A back-test with real monitoring, re-searches and gates in processes of their own; broken off, and gone on with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from click.testing import CliRunner
from matplotlib.figure import Figure

from flows import backtest
from flows.backtest import (
    Plan,
    environment_of,
    place_of,
    play,
    policies_of,
    prepare,
    progress_of,
    run,
    settings_of,
    stream_of,
)
from flows.cli import main
from flows.frontier import Backtest, Result, _played, _recommended, _result, describe, gather
from flows.frontier_picture import _middles, _time_line, draw
from flows.replay import Judged
from flows.spending import Spending
from registry.errors import BusyError, DataError, InputError, StateError
from registry.locks import exclusive
from registry.metrics import metrics_for
from registry.policies import DriftPolicy, NeverPolicy, PerformancePolicy, PeriodicPolicy
from registry.task import TaskSpec
from tests.flows.conftest import TINY_SEARCH
from tests.flows.playing import played_here
from tests.handmade import make_bundle, make_frame, make_task

START, TURN = "2024-03-02", 2 * 1008
"""The first model knows the rows before the one; the relation turns round after two weeks."""


def history(folder: Path) -> TaskSpec:
    """400 rows to learn from, then four weeks of them, the last two with the relation reversed."""
    path = folder / "all.parquet"
    frames = [make_frame(400, start="2024-02-26"), make_frame(TURN, seed=1, start=START)]
    frames.append(make_frame(TURN, seed=2, start="2024-03-16", flip=1.0))
    pd.concat(frames).to_parquet(path)
    return make_task(
        source={"kind": "file", "path": str(path)},
        search=TINY_SEARCH,
        research={"trials": 2, "seconds": 20, "history": "7d"},
        gate={"min_rows": 150, "latency_ratio": 100},
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> tuple[Path, Plan, list[str]]:
    """Two policies to the end, the second of them in processes, broken off in between; what was told."""
    base = tmp_path_factory.mktemp("backtest")
    task, folder, told = history(base), base / "out", []
    policies = {"never": NeverPolicy(), "periodic every=3": PeriodicPolicy(every=3)}
    plan = prepare(folder, task, policies, start=datetime.fromisoformat(START), delay=timedelta(hours=1))
    make_bundle(folder / "first" / "bundle", source=task.source.model_dump(), research=task.research.model_dump())

    for number in range(2):
        settings_of(folder, number).folder.mkdir(parents=True)
        shutil.copy(empty_registry, settings_of(folder, number).folder / "mlflow.db")

    def tell(name: str, step: Judged) -> None:
        told.append(f"{name}: {step.begin:%m-%d}")
        if told[-2:] == ["periodic every=3: 02-26", "periodic every=3: 03-04"]:
            raise ConnectionAbortedError("somebody pulled the plug")

    played_here(folder, 0, "never", tell)
    with pytest.raises(ConnectionAbortedError):
        run(folder, plan, parallel=1, tell=tell)
    assert not progress_of(folder, 1).finished
    run(
        folder,
        prepare(folder, task, policies, start=datetime.fromisoformat(START), delay=plan.delay),
        parallel=1,
        tell=tell,
    )
    return folder, plan, told


def test_every_window_is_judged_once_under_each_policy(played: tuple[Path, Plan, list[str]]) -> None:
    folder, plan, _ = played
    for number in range(2):
        progress, place = progress_of(folder, number), place_of(folder, plan, number)
        rows = len(stream_of(folder, place.task))
        assert progress.finished
        assert [step.index for step in progress.steps] == list(range(5))
        assert place.log.counts() == (rows, rows)
        assert progress.requests.failed == 0
    assert any(step.severity == "degraded" for step in progress_of(folder, 1).steps)
    assert not list(folder.rglob("reports/**/*.html")), "nobody reads a report of a past that was not"


def test_what_was_broken_off_is_not_told_twice(played: tuple[Path, Plan, list[str]]) -> None:
    assert len(played[2]) == len(set(played[2])) == 10


def test_no_label_is_used_before_it_arrived(played: tuple[Path, Plan, list[str]]) -> None:
    folder, plan, _ = played
    place = place_of(folder, plan, 1)
    logged = place.log.frame(columns=())
    assert (logged["__label_time__"] - logged["__time__"] == pd.Timedelta(hours=1)).all()
    for entry in place.ledger.read(kinds={"remedy"}):
        assert entry.version, entry
        lineage = place.versions.fetch("handmade", entry.version).manifest.lineage
        assert lineage.known_until <= entry.at


def test_a_repair_pays_once_the_relation_has_turned(played: tuple[Path, Plan, list[str]], tmp_path: Path) -> None:
    folder, plan, _ = played
    found = gather(folder, plan)
    never, periodic = found.policies
    assert (never.researches, never.promotions, never.cpu) == (0, 0, 0.0)
    assert periodic.researches >= 1
    assert periodic.cpu > 0
    assert all(one.served == one.frozen for one in never.windows)
    best = np.array(found.oracle)
    for one in found.policies:
        assert (best >= [window.served for window in one.windows]).all()
        assert one.mean == pytest.approx(np.mean([window.served for window in one.windows]))
    assert never.windows[1].served > 0.85
    assert never.windows[-1].served < 0.2
    text = describe(found)
    assert "Recommended: " in text
    assert draw(found, tmp_path / "a.png").stat().st_size > 20_000
    assert Backtest.model_validate_json(found.model_dump_json()) == found


def test_another_back_test_in_the_same_folder_is_refused(played: tuple[Path, Plan, list[str]]) -> None:
    folder, plan, _ = played
    task = plan.task.model_copy(update={"source": file_source(folder.parent / "all.parquet")})
    same = task.model_copy(update={"policy": DriftPolicy()})  # as a recommendation that was written would change it
    assert prepare(folder, same, plan.policies, start=datetime.fromisoformat(START), delay=plan.delay) == plan
    with pytest.raises(StateError, match=r"another back-test \(delay \(.* -> 3h\), policies.*, rows \(\d+ -> \d+\)\)"):
        prepare(folder, task, {"never": NeverPolicy()}, start=datetime(2024, 3, 9), delay=timedelta(hours=3))


def file_source(path: Path) -> Any:
    """A file source."""
    return make_task(source={"kind": "file", "path": str(path)}).source


def test_results_of_an_unfinished_one_are_refused(tmp_path: Path) -> None:
    plan = prepare(tmp_path / "out", history(tmp_path), {"never": NeverPolicy()}, start=None, delay=timedelta(hours=1))
    with pytest.raises(StateError, match="'never' is not finished"):
        gather(tmp_path / "out", plan)


@pytest.mark.parametrize(("start", "said"), [("2020-01-01", "no rows before"), ("2030-01-01", "no rows after")])
def test_a_start_outside_the_history_is_refused(tmp_path: Path, start: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepare(tmp_path, history(tmp_path), {}, start=datetime.fromisoformat(start), delay=timedelta(0))


def test_a_task_without_time_and_a_short_history_are_refused(tmp_path: Path) -> None:
    task = history(tmp_path)
    with pytest.raises(DataError, match="needs the column"):
        prepare(tmp_path / "a", task.model_copy(update={"time": None}), {}, start=None, delay=timedelta(0))
    plan = prepare(tmp_path / "b", task, {}, start=datetime(2024, 3, 20), delay=timedelta(0))
    with pytest.raises(DataError, match=r"only \d windows after"):
        stream_of(tmp_path / "b", plan.task)


def test_nothing_of_the_users_installation_reaches_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts about the past would wake somebody, and its log would end in the real one."""
    for name, value in {"ALERT_URLS": "https://pager.example", "STORE_URL": "postgresql://db", "HOME": "/srv"}.items():
        monkeypatch.setenv(f"EVERFIT_{name}", value)
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example")
    made = environment_of(settings_of(tmp_path, 3))
    assert "EVERFIT_ALERT_URLS" not in made
    assert "PREFECT_API_URL" not in made
    assert made["EVERFIT_STORE_URL"] == ""
    assert made["EVERFIT_HOME"] == str(tmp_path / "policies" / "3")


def test_two_back_tests_at_once_keep_out_of_each_others_way(tmp_path: Path) -> None:
    home = settings_of(tmp_path, 0).folder
    home.mkdir(parents=True)
    with exclusive(home / "backtest.lock", "the other"), pytest.raises(BusyError, match="a back-test in"):
        play(tmp_path, 0, lambda _: None)


def test_policies_are_read_from_words() -> None:
    task = make_task(policy={"kind": "performance", "tolerate": 0.01})
    found = policies_of(["never", "periodic:every=8", "performance:tolerate=0.05,refresh=3", "drift", "task"], task)
    assert list(found) == ["never", "periodic every=8", "performance tolerate=0.05 refresh=3", "drift", "task"]
    assert found["periodic every=8"] == PeriodicPolicy(every=8)
    assert found["performance tolerate=0.05 refresh=3"] == PerformancePolicy(tolerate=0.05, refresh=3)
    assert (found["drift"], found["task"]) == (DriftPolicy(), task.policy)
    assert policies_of([], task)["performance"] == task.policy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("often", "policy: unknown kind: expected one of 'performance', 'never'"),
        ("nevr", r"did you mean 'never'\?"),
        ("periodic:every=0", "policy.every: expected greater than or equal to 1, got '0'"),
        ("periodic:every=often", "policy.every: expected a whole number, got 'often'"),
        ("performance:tolerat=0.1", r"policy.tolerat: unknown key \(did you mean 'tolerate'\?\)"),
        ("periodic:x=1", "policy.x: unknown key: expected one of every, kind, remedy"),
    ],
)
def test_words_that_are_no_policy_are_explained(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        policies_of([text], make_task())


def result(name: str, served: list[float], cpu: float) -> Result:
    """A policy with windows of these scores."""
    day = {"rows": 9, "version": "1", "frozen": 0.0, "gain": 0.0, "severity": "ok", "remedy": "", "outcome": ""}
    begin, end = datetime(2024, 1, 1), datetime(2024, 1, 2)
    window: Mapping[str, Any] = {"begin": begin, "end": end, "champion": "1", **day}
    windows = [{"index": index, "served": value, **window} for index, value in enumerate(served)]
    counts = dict.fromkeys(("researches", "promotions", "wasted", "regretted", "behind"), 0)
    means = {"mean": float(np.mean(served)), "gain": 0.0, "gain_error": 0.0, "pooled": 0.0}
    return Result.model_validate(
        {"name": name, "policy": {}, "windows": windows, "cpu": cpu, "seconds": 0.0, **counts, **means}
    )


def test_the_cheapest_within_one_standard_error_is_recommended() -> None:
    """Half a standard error below the best is as good; a difference in every window is not."""
    dear, near, far = [0.70, 0.72, 0.74, 0.70], [0.71, 0.70, 0.75, 0.69], [0.60, 0.62, 0.64, 0.60]
    auc, rmse = metrics_for("binary")["auc"], metrics_for("regression")["rmse"]
    three = [result("dear", dear, 90.0), result("near", near, 20.0), result("far", far, 0.0)]
    name, reason = _recommended(three, auc)
    assert name == "near"
    assert "20 CPU-seconds instead of 90" in reason
    assert _recommended(three, rmse)[0] == "far"
    assert "nothing cheaper" in _recommended([three[0], three[2]], auc)[1]


@pytest.mark.parametrize(
    ("arguments", "rows", "said"),
    [
        (["--policy", "periodc"], 4000, "did you mean 'periodic'?"),
        (["--start", "2030-01-01"], 4000, "no rows after"),
        (["--start", "2024-03-09"], 4000, "only 1 window after the first rows, 4 are needed"),
        (["--start", "2024-02-12T03:00:00"], 6000, "18 rows, at least 200 are needed"),
        (["--start", "2024-02-12T03:00:00", "--seconds", "7"], 6000, "that all begin with: 7 s at most (--seconds)"),
    ],
)
def test_a_back_test_that_is_refused_leaves_nothing(
    arguments: list[str], rows: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    make_frame(rows, start="2024-02-12", every="10min").to_parquet(tmp_path / "all.parquet")
    task = make_task(source={"kind": "file", "path": str(tmp_path / "all.parquet")}, search=TINY_SEARCH)
    sheet, stood = tmp_path / "task.yaml", tmp_path / "stood"
    sheet.write_text(task_text(task), encoding="utf-8")
    stood.mkdir()
    (stood / "mine.txt").touch()
    for folder in (tmp_path / "new", stood):
        done = CliRunner().invoke(main, ["backtest", str(sheet), "--folder", str(folder), *arguments])
        assert done.exit_code == 2, done.output
        assert said in done.output
    assert not (tmp_path / "new").exists()
    assert [path.name for path in stood.iterdir()] == ["mine.txt"]


def test_steps_of_a_champion_that_follows_are_no_promotions(played: tuple[Path, Plan, list[str]]) -> None:
    """Each is a training all the same: they are counted, and so is what they took."""
    folder, plan, _ = played
    one, first = (_played(folder, plan, number) for number in (1, 0))
    steps = [replace_version(step, str(2 + step.index), str(3 + step.index)) for step in one.steps]
    told = replace(one, steps=steps, spent=Spending(1, len(steps), 0, 9.0, 4.0, 0.0))
    metric = metrics_for("binary")["auc"]
    made = _result(told, first, np.array([0.9] * len(steps)), metric, 0.02)
    assert (made.promotions, made.steps, made.regretted, made.cpu) == (0, len(steps), 0, 13.0)
    assert (made.researches, made.wasted) == (one.improvements, one.wasted)
    text = describe(Backtest.model_validate({**gather(folder, plan).model_dump(), "policies": (made,)}))
    assert re.search(rf"remedies promoted steps wasted.*\n.* 0 +{len(steps)} +{one.wasted} ", text)


def test_a_roll_back_is_drawn_as_one_and_not_as_a_promotion(played: tuple[Path, Plan, list[str]]) -> None:
    found = gather(*played[:2])
    for place, (outcome, mark) in enumerate({"promote": "^", "rollback": "v"}.items()):
        windows = list(found.policies[0].windows)
        windows[place] = windows[place].model_copy(update={"outcome": outcome, "promoted": True})
        one = found.policies[0].model_copy(update={"windows": tuple(windows)})
        axes = Figure().subplots()
        _time_line(axes, found.model_copy(update={"policies": (one,)}))
        x = _middles(windows)[place]
        marks = [line.get_marker() for line in axes.lines if np.array_equal(line.get_xdata(), [x])]
        assert marks == [mark]
        told = axes.get_legend_handles_labels()[1]
        assert ("rolled back" in told) == (outcome == "rollback")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_told_as_one_and_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Met by a library where nobody foresaw it: here by pyarrow, as it writes the history."""
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    sheet, folder = tmp_path / "task.yaml", tmp_path / "out"
    sheet.write_text(task_text(history(tmp_path)), encoding="utf-8")
    folder.mkdir()
    (folder / "history.parquet").symlink_to("/dev/full")
    done = CliRunner().invoke(main, ["backtest", str(sheet), "--start", START, "--folder", str(folder)])
    assert done.exit_code == 4, done.output
    assert "No space left on device" in done.output
    assert "bug" not in done.output


@pytest.mark.parametrize(
    ("text", "said"), [("name: other", "it is of task 'other', the back-test of"), ("x", "got str")]
)
def test_a_file_that_cannot_take_the_recommendation_is_told_before_anything_is_played(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    task, sheet, other = history(tmp_path), tmp_path / "task.yaml", tmp_path / "other.yaml"
    sheet.write_text(task_text(task), encoding="utf-8")
    other.write_text(text if text == "x" else task_text(task).replace(f"name: {task.name}", text), encoding="utf-8")
    arguments = ["backtest", str(sheet), "--folder", str(tmp_path / "out"), "--write", str(other)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not (tmp_path / "out").exists()


def replace_version(step: Judged, version: str, champion: str) -> Judged:
    """A window after which the champion, one that follows, has learnt its labels."""
    more = {"version": version, "champion": champion, "stepped": True, "outcome": ""}
    return step.model_copy(update=more)


def test_the_command_plays_prints_draws_and_writes(
    tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(backtest, "_process", played_here)
    task = history(tmp_path)
    sheet, folder = tmp_path / "task.yaml", tmp_path / "out"
    sheet.write_text("# mine\n" + task_text(task) + "policy:\n  kind: periodic\n# the end\n", encoding="utf-8")
    make_bundle(folder / "first" / "bundle")
    settings_of(folder, 0).folder.mkdir(parents=True)
    shutil.copy(empty_registry, settings_of(folder, 0).folder / "mlflow.db")
    arguments = [str(sheet), "--start", "2024-03-09", "--policy", "never", "--folder", str(folder), "--delay", "1h"]
    done = CliRunner().invoke(main, ["backtest", *arguments, "--write", str(sheet)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [line.split()[1] for line in done.output.splitlines() if line.startswith("never  ")][:4] == [
        "1/4",
        "2/4",
        "3/4",
        "4/4",
    ]
    assert f"kept in {folder}" in done.output
    assert "searching" not in done.output, "the first model is there"
    assert "Recommended: never" in done.output
    assert {"backtest.json", "backtest.txt", "backtest.png"} <= {path.name for path in folder.iterdir()}
    text = sheet.read_text(encoding="utf-8")
    assert text.startswith("# mine\n")
    assert text.endswith(
        "policy:\n  # performance (act when it degrades), never, periodic (act every so many windows), or drift\n"
        "  # (act when inputs move). `everfit backtest` says what each would have done.\n  kind: never\n# the end\n"
    )
    again = CliRunner().invoke(main, ["backtest", *arguments, "--write", str(sheet)], catch_exceptions=False)
    assert f"{sheet}: its policy stays as it is" in again.output
    assert sheet.read_text(encoding="utf-8") == text


def test_a_policy_s_process_ends_with_its_parent_whatever_it_does(tmp_path: Path, empty_registry: Path) -> None:
    """Killed alone (the system's memory killer spares its children), the parent takes them along, amid a window."""
    sheet, folder = tmp_path / "task.yaml", tmp_path / "out"
    sheet.write_text(task_text(history(tmp_path)), encoding="utf-8")
    make_bundle(folder / "first" / "bundle")
    settings_of(folder, 0).folder.mkdir(parents=True)
    shutil.copy(empty_registry, settings_of(folder, 0).folder / "mlflow.db")
    code = "import sys; from flows.cli import main; sys.exit(main())"
    arguments = ["backtest", str(sheet), "--start", "2024-03-09", "--policy", "never", "--folder", str(folder)]
    environment = {**os.environ, "EVERFIT_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        while not (children := psutil.Process(parent.pid).children()):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
    assert not psutil.wait_procs(children, timeout=60)[1]
    done = progress_of(folder, 0)
    assert done is None or not done.steps


def task_text(task: TaskSpec) -> str:
    """A task's YAML without a policy."""
    return yaml.safe_dump(task.model_dump(mode="json", exclude={"policy"}), sort_keys=False)
