"""A replay against a real endpoint in its own process, a real registry and a real log; killed, and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from click.testing import CliRunner

from flows.approval import ask
from flows.bake import bake, rolled_back
from flows.cli import main
from flows.judging import flow_judge
from flows.offline import Offline
from flows.overview import task_lines
from flows.replay import Judge, Judged, Pace, Progress, _Run, _served, replay, told
from flows.results import describe, gather
from flows.stream import Stream, open_stream
from flows.traffic import Counts, Endpoint
from flows.turns import replaying
from flows.workplace import Workplace, register_task
from registry.errors import InputError, OutsideError, StateError
from registry.ledger import Entry
from registry.locks import holder
from registry.plurals import counted
from registry.settings import Settings
from tests.flows.house import House, open_house
from tests.handmade import make_bundle, make_frame, make_task

QUIET_WEEKS = {"severity": "ok", "remedy": "none"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house"), empty_registry) as opened:
        yield opened


def test_every_row_and_every_label_once_and_none_too_early(house: House, tmp_path: Path) -> None:
    stream, seen = house.stream(500, seed=1, every="1h"), []

    def judge(as_of: datetime, until: datetime | None) -> Mapping[str, Any]:
        logged = house.logged(stream)
        arrived = logged["__label_time__"].dropna()
        seen.append((as_of, until, len(logged), len(arrived)))
        assert (arrived <= pd.Timestamp(as_of)).all()
        return QUIET_WEEKS

    progress = replay(
        stream,
        house.place.task,
        house.place.versions,
        server=Endpoint(house.url),
        checkpoint=tmp_path / "a.json",
        judge=judge,
        pace=Pace(batch=50, delay=timedelta(days=1)),
    )
    weeks = [datetime(2024, 3, 11), datetime(2024, 3, 18), datetime(2024, 3, 26)]
    assert [one[0] for one in seen] == weeks  # the last waits until its labels are there
    assert [one[1] for one in seen] == [None, None, datetime(2024, 3, 25)]  # 164 of 168 hours are as good as whole
    assert [one[2] for one in seen] == [168, 336, 500]
    assert [one[3] for one in seen] == [145, 313, 500]
    logged = house.logged(stream)
    assert logged["__id__"].is_unique
    assert (logged["__label_time__"] - logged["__time__"] == pd.Timedelta(days=1)).all()
    by_id = dict(zip(stream.ids(0, 500), stream.labels, strict=True))
    assert logged["__label__"].tolist() == [by_id[one] for one in logged["__id__"]]
    assert progress.finished
    assert progress.requests.failed == progress.background.failed == progress.requests.retried == 0
    assert progress.labels_sent == 500
    assert progress.background.sent > 0


@pytest.mark.parametrize(
    ("rows", "whole"),
    [
        ((504, {"kind": "time", "every": "7d"}), True),
        ((100, {"kind": "rows", "rows": 40}), False),
    ],
)
def test_a_last_window_is_judged_where_the_rows_end_with_it_and_not_where_they_cut_it_off(
    rows: tuple[int, dict[str, Any]],
    whole: bool,
    tmp_path: Path,
    empty_registry: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path))
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    source = {"kind": "file", "path": str(tmp_path / "history.csv")}
    task = make_task(source=source, monitor={"windows": rows[1], "min_labels": 30})
    register_task(Settings(), task)
    place = Workplace.open(Settings(), task)
    place.versions.publish(make_bundle(tmp_path / "bundle"))
    place.versions.promote(task.name, "1")
    stream = open_stream(make_frame(rows[0], every="1h", start="2024-03-04"), task, name="x")
    done = replay(
        stream,
        task,
        place.versions,
        server=Offline(place),
        checkpoint=tmp_path / "c.json",
        judge=flow_judge(task.name),
    )
    judged = {one.details["window"]["index"] for one in place.ledger.read(kinds={"window"})}
    assert judged == ({0, 1, 2} if whole else {0, 1})
    last = done.steps[-1]
    assert last.severity == ("ok" if whole else "")
    assert last.not_run == ("" if whole else "cut off by the end of the rows, not judged")
    assert all(step.severity == "ok" for step in done.steps[:-1])


def test_what_was_decided_before_a_break_is_told_after_it(
    tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay is killed when all is done about its first window, and nothing of that is in its checkpoint yet."""
    monkeypatch.setenv("EVERFIT_HOME", str(tmp_path))
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    source = {"kind": "file", "path": str(tmp_path / "history.csv")}
    task = make_task(source=source, monitor={"windows": {"kind": "time", "every": "7d"}, "min_labels": 30})
    register_task(Settings(), task)
    place = Workplace.open(Settings(), task)
    for name in ("first", "second"):
        place.versions.publish(make_bundle(tmp_path / name))
    place.versions.promote(task.name, "1")
    stream = open_stream(make_frame(504, every="1h", start="2024-03-04"), task, name="x")

    def go_on(judge: Judge) -> Progress:
        return replay(stream, task, place.versions, server=Offline(place), checkpoint=tmp_path / "c.json", judge=judge)

    def killed(as_of: datetime, until: datetime | None) -> Mapping[str, Any]:
        place.versions.promote(task.name, "2")
        done = {"tried": [{"remedy": "fine_tune", "version": "2"}], "champion": "1", "intent": "i"}
        for kind, version, outcome, details in (
            ("decision", "1", "fine_tune", {"seen": -1}),
            ("promotion", "2", "promoted", {"previous": "1", "intent": "i"}),
            ("improvement", "2", "promote", done),
        ):
            place.ledger.write(
                Entry(
                    task=task.name,
                    kind=kind,
                    at=as_of,
                    version=version,
                    severity="degraded" if kind == "decision" else None,
                    outcome=outcome,
                    details=details,
                )
            )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_on(killed)
    first, second, *_ = go_on(flow_judge(task.name)).steps
    assert (first.version, first.champion, first.severity) == ("1", "2", "degraded")
    assert told(first).endswith("fine_tune: promote  now serving version 2")
    assert (second.version, second.outcome) == ("2", "")
    assert sum(line.endswith("degraded  fine_tune: promote") for line in task_lines(place)) == 1


def test_while_a_replay_judges_nobody_else_does(house: House) -> None:
    """A second replay and a pass by hand are told who does."""
    place, rows = house.place, str(Path(house.place.task.source.path))
    with replaying(place):
        for arguments in (["monitor", "handmade"], ["replay", rows, "--task", "handmade"]):
            done = CliRunner().invoke(main, arguments, env=house.environment)
            assert done.exit_code == 3
            assert f"process {os.getpid()}" in done.stderr
            assert "a replay for task handmade" in done.stderr
    assert holder(place.lock.with_name("replay-handmade.lock")) is None


def test_a_sabotaged_champion_is_gone_within_its_bake_time_and_no_request_fails(house: House, tmp_path: Path) -> None:
    """It was taught permuted labels, say. Rows go on being answered while it is found out and taken back."""
    stream, place = house.stream(700, seed=6, start="2024-06-03", every="1h"), house.place
    sabotaged = place.versions.publish(make_bundle(tmp_path / "sabotaged", quality=0.0))
    done = place.versions.promote("handmade", sabotaged)
    at, details = datetime(2024, 6, 2), {"previous": done.previous}
    place.ledger.write(Entry(task="handmade", kind="promotion", at=at, version=sabotaged, details=details))
    looks: list[dict[str, Any] | None] = []

    def judge(as_of: datetime, until: datetime | None) -> Mapping[str, Any]:
        looks.append(bake(place, as_of))
        return {**QUIET_WEEKS, "improvement": looks[-1]}

    pace = Pace(batch=50, delay=timedelta(days=1))
    while httpx.get(f"{house.url}/model").json()["version"] != sabotaged:
        time.sleep(0.05)
    progress = replay(
        stream, place.task, place.versions, server=Endpoint(house.url), checkpoint=tmp_path / "s.json", judge=judge,
        pace=pace,
    )  # fmt: skip
    served = [step.version for step in progress.steps]
    gone = served.index("1")
    assert served == [sabotaged] * gone + ["1"] * (len(served) - gone)
    assert 1 <= gone <= place.task.gate.bake
    assert rolled_back(looks[gone - 1])
    assert progress.requests.failed == progress.background.failed == 0
    assert len(house.logged(stream)) == 700


def test_the_next_rows_wait_for_the_promoted_version_and_nothing_is_dropped(house: House, tmp_path: Path) -> None:
    stream, versions, task = house.stream(400, seed=2, every="1h"), house.place.versions, house.place.task

    def judge(as_of: datetime, until: datetime | None) -> Mapping[str, Any]:
        if as_of != datetime(2024, 3, 11):
            return QUIET_WEEKS
        versions.promote(task.name, "2")
        return {"severity": "degraded", "remedy": "research", "improvement": {"outcome": "promote", "version": "2"}}

    seen: list[str] = []
    try:
        progress = replay(
            stream,
            task,
            versions,
            server=Endpoint(house.url),
            checkpoint=tmp_path / "b.json",
            judge=judge,
            pace=Pace(batch=50),
            tell=lambda step: seen.append(f"{step.version}>{step.champion}"),
        )
    finally:
        versions.promote(task.name, "1")
    assert seen == ["1>2", "2>2", "2>2"]
    assert progress.steps[0].outcome == "promote"
    assert progress.first_version == "1"
    by_version = house.logged(stream).groupby("__version__").size().to_dict()
    assert by_version == {"1": 168, "2": 232}
    results = gather(stream, progress, house.place)  # of this replay, whatever else the task's log holds
    assert (results.predictions, results.rows, results.labelled, results.labels_sent) == (400, 400, 400, 400)
    assert progress.background.failed == 0
    assert "waits" not in describe(results)
    versions.set(task.name, "challenger", "2")
    try:
        ask(house.place, "2", "1", ("better",), datetime(2024, 3, 11))
        assert describe(gather(stream, progress, house.place)).endswith(
            "\nversion 2 is proved and waits for a person: everfit approve handmade"
        )
    finally:
        versions.unset(task.name, "challenger")


def test_a_killed_replay_goes_on_without_loss_or_repetition(house: House, tmp_path: Path) -> None:
    file = tmp_path / "later.csv"
    make_frame(600, seed=3, every="1h", start="2024-03-04").to_csv(file, index=False)
    command = [sys.executable, "-c", "from flows.cli import main; main()", "replay", str(file)]
    command += ["--task", "handmade", "--batch", "20", "--rate", "150", "--watch-only", "--output", str(tmp_path)]
    checkpoint = house.place.settings.folder / "replays" / "handmade-later.json"
    wait_for_version(house.url, "1")
    process = subprocess.Popen(command, env=house.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not checkpoint.is_file() or json.loads(checkpoint.read_text())["rows"] < 250:
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    stopped = Progress.model_validate_json(checkpoint.read_bytes())
    assert 250 <= stopped.rows < 600
    assert not stopped.finished
    arguments = command[command.index("replay") :]
    arguments[arguments.index("150")] = "5000"
    done = CliRunner().invoke(main, arguments, env=house.environment)
    assert done.exit_code == 0, done.output
    progress = Progress.model_validate_json(checkpoint.read_bytes())
    assert progress.finished
    assert progress.rows == 600
    stream = open_stream(pd.read_csv(file), house.place.task, name="later")
    logged = house.logged(stream)
    assert sorted(logged["__id__"]) == sorted(stream.ids(0, 600))
    assert logged["__label__"].notna().all()
    windows = counted(len(stopped.steps), "window")
    assert done.stdout.startswith(f"it goes on where it stopped: {stopped.rows} rows were sent, {windows} judged\n")
    again = CliRunner().invoke(main, arguments, env=house.environment)
    assert again.stdout.startswith("all 4 windows were replayed before; another --name sends the same rows anew\n")
    assert "requests failed             0" in done.output
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "replay.json").read_text())["labels_sent"] >= 600


def wait_for_version(url: str, version: str) -> None:
    for _ in range(200):
        if httpx.get(f"{url}/model").json()["version"] == version:
            return
        time.sleep(0.05)
    raise AssertionError(f"version {version} is never served")


def test_promote_and_rollback_by_hand_are_in_the_ledger_and_status_shows_them(house: House) -> None:
    def everfit(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, env=house.environment)
        assert done.exit_code == 0, done.output
        return done.output

    assert "version 2 is the champion (previous: 1)" in everfit("promote", "handmade", "2")
    assert "champion" in next(line for line in everfit("status", "handmade").splitlines() if line.startswith("  2 "))
    assert "version 1 is the champion again (instead of 2)" in everfit("rollback", "handmade")
    entries = house.place.ledger.read(kinds={"promotion", "rollback"}, last=2)
    assert [(one.kind, one.version, one.reasons) for one in entries] == [
        ("promotion", "2", ("by hand",)),
        ("rollback", "1", ("by hand",)),
    ]


def test_a_version_that_is_not_there_is_wrong_input(house: House) -> None:
    done = CliRunner().invoke(main, ["promote", "handmade", "77"], env=house.environment)
    assert done.exit_code == 2
    assert "77" in done.stderr


def test_a_checkpoint_of_other_rows_is_refused(house: House, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.json"
    checkpoint.write_text(Progress(key="other", task="handmade", first_version="1").model_dump_json())
    with pytest.raises(StateError, match="belongs to other rows"):
        run_quietly(house, house.stream(5, seed=4), checkpoint)


def test_an_endpoint_of_another_task_is_refused(house: House, tmp_path: Path) -> None:
    stream, task = house.stream(5, seed=5), make_task(name="another")
    with pytest.raises(StateError, match="serves task 'handmade', expected 'another'"):
        replay(
            stream,
            task,
            house.place.versions,
            server=Endpoint(house.url),
            checkpoint=tmp_path / "d",
            judge=lambda *_: QUIET_WEEKS,
        )


class Loading:
    """An endpoint that has no model yet when it is first asked."""

    def __init__(self, *versions: str | None) -> None:
        self._versions = list(versions)

    def model(self, *, patient: bool = True) -> dict[str, Any]:
        """The next version; the last one for ever."""
        version = self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]
        return {"task": "handmade", "version": version, "last_error": None}


def test_an_endpoint_that_loads_its_model_is_waited_for() -> None:
    server: Any = Loading(None, "3")
    assert _served(server, "handmade", patience=5) == "3"
    empty: Any = Loading(None)
    with pytest.raises(StateError, match="no model of task 'handmade' yet"):
        _served(empty, "handmade", patience=0)


def test_a_step_is_told_with_what_acted() -> None:
    step = Judged(index=0, begin=datetime(2024, 3, 4), end=datetime(2024, 3, 11), rows=9, version="1", champion="1")
    assert told(step) == "2024-03-04        9 rows  version 1               0.0 s"
    look = step.model_copy(update={"remedy": "none", "by": "second look", "outcome": "hold"})
    assert told(look).endswith("second look: hold")
    swapped = step.model_copy(update={"remedy": "fine_tune", "by": "research", "outcome": "promote", "champion": "2"})
    assert told(swapped).endswith("research: promote  now serving version 2")
    learnt = step.model_copy(update={"stepped": True, "champion": "2"})
    assert told(learnt).endswith(" s  a step of follow, now serving version 2")
    held = learnt.model_copy(update={"by": "research", "outcome": "hold"})
    assert told(held).endswith("research: hold; a step of follow, now serving version 2")
    idle = step.model_copy(update={"no_step": "one class alone"})
    assert told(idle).endswith(" s  no step of follow: one class alone")
    assert [one.promoted for one in (step, look, swapped, learnt, held)] == [False, False, True, False, False]
    assert swapped.model_copy(update={"stepped": True}).promoted


def test_rows_the_endpoint_refuses_stop_the_replay_with_its_words(house: House, tmp_path: Path) -> None:
    stream = house.stream(5, seed=6)
    stream.rows["amount"] = "much"
    with pytest.raises(InputError, match=r"422.*amount"):
        run_quietly(house, stream, tmp_path / "e.json")


def test_an_endpoint_that_is_away_is_named(house: House, tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"127\.0\.0\.1:9.*no answer.*; to start the endpoint: everfit up handmade"):
        replay(
            house.stream(5, seed=7),
            house.place.task,
            house.place.versions,
            server=Endpoint("http://127.0.0.1:9", "handmade"),
            checkpoint=tmp_path / "f.json",
            judge=lambda *_: QUIET_WEEKS,
        )


def run_quietly(house: House, stream: Stream, checkpoint: Path) -> Progress:
    return replay(
        stream,
        house.place.task,
        house.place.versions,
        server=Endpoint(house.url),
        checkpoint=checkpoint,
        judge=lambda *_: QUIET_WEEKS,
    )


def test_no_request_has_more_labels_than_an_endpoint_takes(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Mailbox:
        counts = Counts()

        def post(self, path: str, body: Mapping[str, Any]) -> None:
            sizes.append(len(body["labels"]))

    stream, task = open_stream(make_frame(25_000, every="1min"), make_task(), name="many"), make_task()
    progress, mailbox, nobody = Progress(key="", task="", first_version="1", rows=25_000), Mailbox(), None
    pace, judge = Pace(batch=10_000), lambda *_: QUIET_WEEKS
    run = _Run(stream, task, nobody, mailbox, tmp_path / "g.json", judge, pace, progress)  # type: ignore[arg-type]
    run._send_labels(datetime(2025, 1, 1), whole=True)
    assert sizes == [10_000, 10_000, 5_000]
