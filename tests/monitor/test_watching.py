"""A pass over a real log and a real ledger: measures once, decides once, and knows nothing of the future."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.measurements import WindowRecord
from monitor.shelf import Shelf
from monitor.watching import WatchReport, _acts, faulty_windows, watch
from registry.bundle import ModelBundle
from registry.decisions import Diagnosis, Remedy
from registry.inference_log import InferenceLog
from registry.ledger import Entry, Ledger
from registry.task import TaskSpec
from tests.handmade import make_frame, make_task
from tests.monitor.logged import write_labels, write_rows

WEEK = 7 * 24 * 6  # rows of ten minutes
FIRST = "2024-03-04"


def moment(day: str) -> datetime:
    return datetime.fromisoformat(f"2024-{day}")


@pytest.fixture
def task() -> TaskSpec:
    return make_task()


class Room:
    """A task, its champion and its stores."""

    def __init__(self, task: TaskSpec, bundle: ModelBundle, log: InferenceLog, ledger: Ledger) -> None:
        self.task, self.bundle, self.log, self.ledger = task, bundle, log, ledger

    def watch(self, day: str, version: str = "1", **options: Any) -> WatchReport:
        return watch(self.task, self.bundle, version, self.log, self.ledger, as_of=moment(day), **options)

    def act(self, kind: str, day: str) -> None:
        self.ledger.write(Entry(task=self.task.name, kind=kind, at=moment(day)))


@pytest.fixture
def room(task: TaskSpec, bundle: ModelBundle, log: InferenceLog, ledger: Ledger) -> Room:
    return Room(task, bundle, log, ledger)


def indices(report: WatchReport) -> list[int]:
    return [record.window.index for record in report.records]


def test_nothing_logged_is_nothing_measured(room: Room) -> None:
    found = room.watch("03-11")
    assert found.records == []
    assert found.decision.remedy is Remedy.NONE
    assert [entry.kind for entry in room.ledger.read()] == ["decision"]
    room.watch("03-11")
    assert [entry.kind for entry in room.ledger.read()] == ["decision"]


def test_a_second_pass_measures_and_writes_nothing(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(3 * WEEK, start=FIRST))
    first = room.watch("03-26")
    assert indices(first) == [0, 1, 2]
    written = room.ledger.read()
    assert [entry.kind for entry in written] == ["window"] * 3 + ["decision"]
    second = room.watch("03-26")
    assert (second.records, second.decision) == ([], first.decision)
    assert room.ledger.read() == written


def test_what_stands_in_the_ledger_is_what_was_measured(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST))
    found = room.watch("03-12")
    window, decision = room.ledger.read()
    assert WindowRecord.model_validate(window.details) == found.records[0]
    assert (window.at, window.version) == (moment("03-11"), "1")
    assert (decision.severity, decision.outcome) == ("ok", "none")
    assert decision.reasons == found.decision.reasons
    assert decision.details["window"]["index"] == 0


def test_concept_drift_asks_for_a_research_and_covariate_shift_does_not(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(2 * WEEK, start=FIRST), tag="a")
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-18", shift=0.6), tag="b")
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-25", flip=0.3), tag="c")
    quiet, shifted, degraded = room.watch("03-18"), room.watch("03-25"), room.watch("04-01")
    assert (quiet.decision.severity, quiet.decision.remedy) == ("ok", Remedy.NONE)
    assert (shifted.decision.severity, shifted.decision.remedy) == ("shifted", Remedy.NONE)
    assert any(reason.startswith("amount: distribution moved") for reason in shifted.decision.reasons)
    assert (degraded.decision.severity, degraded.decision.remedy) == ("degraded", Remedy.FOLLOW)
    room.task = room.task.model_copy(update={"time": None})
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-04-01", flip=0.3), tag="d")
    timeless = room.watch("04-08").decision  # nobody can tell which labels are new
    assert (timeless.remedy, Remedy.FOLLOW in timeless.then) == (Remedy.FINE_TUNE, False)


def test_the_ledger_holds_the_diagnosis(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(2 * WEEK, start=FIRST), tag="a")
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-18", flip=0.3), tag="b")
    decided = [room.watch("03-18").decision, room.watch("03-25").decision]
    kept = [entry.details["diagnosis"] for entry in room.ledger.read(kinds={"decision"})]
    assert kept[0] is None
    told = Diagnosis.model_validate(kept[1])
    assert told == decided[1].diagnosis
    assert told.onset_from is not None
    assert told.onset_to is not None


def test_a_broken_column_is_faulty_and_not_trained_on(room: Room) -> None:
    frame = make_frame(WEEK, start=FIRST)
    frame.loc[::2, "amount"] = float("nan")
    write_rows(room.log, room.bundle, frame)
    found = room.watch("03-12").decision
    assert (found.severity, found.remedy) == ("faulty", Remedy.ALERT)
    assert found.reasons[0].startswith("Data fault: amount")
    assert found.reasons[1] == "amount: missing in 50 % of the rows, 0 % in the reference"


def test_labels_of_tomorrow_do_not_exist_and_are_looked_for_again(room: Room) -> None:
    frame = make_frame(WEEK, start=FIRST)
    write_rows(room.log, room.bundle, frame, delay=3)
    early = room.watch("03-11")
    assert early.records[0].performance.rows == 4 * 24 * 6 + 1
    assert indices(room.watch("03-11")) == []
    assert [record.performance.rows for record in room.watch("03-12").records] == [5 * 24 * 6 + 1]
    assert [record.performance.rows for record in room.watch("03-15").records] == [WEEK]
    assert indices(room.watch("03-20")) == [1]
    decisions = [entry for entry in room.ledger.read() if entry.kind == "decision"]
    assert len(decisions) == 4
    assert [one.details["answered"]["labels"] for one in decisions] == [4 * 24 * 6 + 1, 5 * 24 * 6 + 1, WEEK, 0]
    assert [one.details["answered"]["rows"] for one in decisions] == [WEEK, WEEK, WEEK, 0]


def test_a_window_without_any_label_waits_for_them(room: Room) -> None:
    frame = make_frame(WEEK, start=FIRST, flip=0.5)
    write_rows(room.log, room.bundle, frame, delay=None)
    found = room.watch("03-11")
    assert found.decision.severity == "ok"
    assert "estimated without labels, in the window from 2024-03-04 00:00" in found.decision.reasons[0]
    assert found.decision.reasons[1].startswith("the window from 2024-03-04 00:00 is not judged yet: 0 labels")
    write_labels(room.log, frame, delay=8)
    late = room.watch("03-18")
    assert indices(late) == [0, 1]
    assert late.decision.severity == "degraded"


def test_an_act_is_mapped_to_its_windows(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(5 * WEEK, start=FIRST, flip=0.3))
    room.act("promotion", FIRST[5:])
    assert room.watch("03-11").decision.remedy is Remedy.NONE  # warm-up
    assert room.watch("03-18").decision.remedy is Remedy.FOLLOW
    room.act("remedy", "03-18")
    assert room.watch("03-18").decision.remedy is Remedy.NONE
    assert [room.watch(day).decision.remedy.value for day in ("03-25", "04-01", "04-08")] == [
        "none",
        "none",
        "follow",
    ]
    assert len(room.ledger.read(kinds={"decision"})) == 5


def test_an_act_of_the_future_has_not_happened(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(2 * WEEK, start=FIRST, flip=0.3))
    room.act("promotion", "12-31")
    assert room.watch("03-18").decision.remedy is Remedy.FOLLOW


def test_a_new_champion_is_judged_on_its_own_rows(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(2 * WEEK, start=FIRST, flip=0.4), tag="a")
    assert room.watch("03-18").decision.severity == "degraded"
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-18"), version="2", tag="b")
    found = room.watch("03-25", version="2")
    assert indices(found) == [2]
    assert found.decision.severity == "ok"
    assert found.records[0].version == "2"


def test_windows_by_rows(task: TaskSpec, bundle: ModelBundle, log: InferenceLog, ledger: Ledger) -> None:
    monitor = {"windows": {"kind": "rows", "rows": 300}, "report": "never"}
    room = Room(make_task(monitor=monitor), bundle, log, ledger)
    write_rows(log, bundle, make_frame(1000, start=FIRST))
    assert indices(room.watch("04-01")) == [0, 1, 2]
    write_rows(log, bundle, make_frame(300, start="2024-03-20"), tag="more")
    found = room.watch("04-02")
    assert [(record.window.index, record.window.rows) for record in found.records] == [(3, 300)]


def test_of_a_window_too_large_to_read_one_row_in_so_many_is(
    task: TaskSpec, bundle: ModelBundle, log: InferenceLog, ledger: Ledger
) -> None:
    """What is counted is all of it; what is judged is spread over it; and nothing is measured twice."""
    monitor = {"windows": {"kind": "rows", "rows": 2_500}, "report": "never", "most_rows": 1_000}
    task = make_task(monitor=monitor)
    manifest = bundle.manifest.model_copy(update={"task": task})
    room = Room(task, ModelBundle(bundle.folder, manifest), log, ledger)
    frame = make_frame(2_500, start=FIRST)
    frame.loc[1_500:, "amount"] += 3
    write_rows(log, bundle, frame)
    (record,) = room.watch("04-01").records
    assert record.window.rows == 2_500
    assert {one.subject: one.value for one in record.named("volume")} == {"all": 2_500, "own": 2_500, "labelled": 2_500}
    (moved,) = (one for one in record.named("shift") if one.subject == "amount")
    assert moved.rows == 834
    assert moved.value == pytest.approx(0.4, abs=0.08)
    assert room.watch("04-02").records == []


def test_an_empty_week_between_is_a_record_like_any(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-18"), tag="b")
    found = room.watch("03-18")
    assert [record.window.rows for record in found.records] == [WEEK, 0]
    assert "no rows in the window from 2024-03-11 00:00" in found.decision.reasons
    assert [record.window.rows for record in room.watch("03-26").records] == [WEEK]


@pytest.mark.parametrize("version", ["1", "2"])  # an empty window is filled, whoever answered its rows
def test_rows_that_reach_the_log_late_are_looked_for_again(room: Room, version: str) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    assert [record.window.rows for record in room.watch("03-18").records] == [WEEK, 0]
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-11"), tag="b")
    found = room.watch("03-18", version=version)
    assert [(one.window.index, one.window.rows, one.version) for one in found.records] == [(1, WEEK, version)]
    assert not any(reason.startswith("no rows") for reason in found.decision.reasons)


def test_late_rows_that_another_version_answers_are_measured_for_it(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    assert [record.window.rows for record in room.watch("03-18").records] == [WEEK, 0]
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-11"), version="2", tag="b", delay=5)
    early = room.watch("03-18", version="2")
    assert [(one.window.index, one.version, one.performance.rows) for one in early.records] == [(1, "2", 289)]
    late = room.watch("03-25", version="2", until=moment("03-18"))
    assert [one.performance.rows for one in late.records] == [WEEK]
    written = room.ledger.read()
    assert room.watch("03-25", version="2", until=moment("03-18")).records == []
    assert room.ledger.read() == written


def test_late_rows_are_measured_for_whichever_version_of_a_chain_answered_them(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    room.watch("03-18", followed=("1",))
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-11"), version="2", tag="b")
    write_rows(room.log, room.bundle, make_frame(60, start="2024-03-04T00:05"), version="3", tag="c")
    found = room.watch("03-19", version="3", followed=("1", "2", "3"))
    assert [(one.window.index, one.version) for one in found.records] == [(0, "1"), (1, "2")]
    assert found.records[0].performance.rows == WEEK + 60  # what any of them answered
    assert "the window from 2024-03-11 00:00," in found.decision.reasons[0]
    assert room.watch("03-19", version="3", followed=("1", "2", "3")).records == []


def test_a_few_late_rows_take_no_window_from_the_version_that_answered_it_and_are_told(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    room.watch("03-11")
    assert room.watch("03-11", version="2").records == []
    write_rows(room.log, room.bundle, make_frame(60, start="2024-03-04T00:05"), version="2", tag="b")
    (*_, said) = room.watch("03-11", version="2").decision.reasons
    assert (
        said == "60 rows of the window from 2024-03-04 00:00 came after it was measured for version 1, and not measured"
    )
    written = room.ledger.read()
    assert (written[-1].kind, written[-1].reasons[-1]) == ("decision", said)
    assert (room.watch("03-11", version="2").records, room.ledger.read()) == ([], written)


def test_a_window_of_too_few_rows_is_measured_again_when_the_others_come(room: Room) -> None:
    for week in range(9):
        start = datetime(2024, 3, 4) + week * timedelta(days=7)
        write_rows(room.log, room.bundle, make_frame(250 if week < 8 else 10, start=str(start)), tag=str(week))
    assert room.watch("05-07").decision.severity == "faulty"
    write_rows(room.log, room.bundle, make_frame(240, start="2024-04-29T00:05"), tag="late")
    found = room.watch("05-07")
    assert ([one.window.rows for one in found.records], found.decision.severity) == ([250], "ok")
    assert faulty_windows(room.task, room.ledger, moment("05-07")) == []


def test_which_windows_are_broken_is_what_their_newest_measurement_says(room: Room) -> None:
    """Also where no decision has been about the window since, and by what was known then."""
    for week in range(10):
        start = datetime(2024, 3, 4) + week * timedelta(days=7)
        write_rows(room.log, room.bundle, make_frame(10 if week == 8 else 250, start=str(start)), tag=str(week))
        if week > 7:
            room.watch(f"{start + timedelta(days=7, hours=1):%m-%d}")
    (window,) = faulty_windows(room.task, room.ledger, moment("05-14"))
    assert (window.index, window.rows) == (8, 10)
    write_rows(room.log, room.bundle, make_frame(240, start="2024-04-29T00:05"), tag="late")
    assert [one.window.index for one in room.watch("05-15").records] == [8]
    assert faulty_windows(room.task, room.ledger, moment("05-15")) == []
    assert faulty_windows(room.task, room.ledger, moment("05-14")) == [window]
    assert faulty_windows(room.task, room.ledger, moment("05-01")) == []


def test_a_pass_as_of_the_past_knows_no_later_window(room: Room) -> None:
    write_rows(room.log, room.bundle, make_frame(WEEK, start=FIRST), tag="a")
    write_rows(room.log, room.bundle, make_frame(WEEK, start="2024-03-11", flip=0.5), tag="b")
    assert room.watch("03-19").decision.severity == "degraded"
    assert room.watch("03-12").decision.severity == "ok"


def test_a_window_cut_off_by_the_end_of_the_rows_is_not_judged(room: Room) -> None:
    """Without the moment up to which windows are whole, its few rows would be an alarm."""
    for week in range(9):
        start = datetime(2024, 3, 4) + week * timedelta(days=7)
        write_rows(room.log, room.bundle, make_frame(WEEK if week < 8 else 40, start=str(start)), tag=str(week))
    report = room.watch("05-07", until=moment("04-29"))
    assert indices(report) == list(range(8))
    assert report.decision.severity == "ok"
    assert room.watch("05-07").decision.severity == "faulty"


def test_an_alarm_that_is_entered_gets_its_report(
    bundle: ModelBundle, log: InferenceLog, ledger: Ledger, tmp_path: Path
) -> None:
    monitor = {"windows": {"kind": "time", "every": "7d"}, "report": "alarms"}
    room = Room(make_task(monitor=monitor), bundle, log, ledger)
    shelf = Shelf("handmade", tmp_path / "reports", tmp_path / "evidently", days=90)
    write_rows(log, bundle, make_frame(2 * WEEK, start=FIRST, flip=0.3))
    first = room.watch("03-11", shelf=shelf)
    assert first.decision.severity == "degraded"
    assert first.report == tmp_path / "reports" / "window-20240304T000000-v1.html"
    assert [path.parent for path in tmp_path.glob("evidently/*/snapshots/*.json")] == [shelf.runs]
    written = ledger.read(kinds={"report"})
    assert [(entry.version, entry.severity, entry.details["page"]) for entry in written] == [
        ("1", "degraded", first.report.name)
    ]
    assert room.watch("03-11", shelf=shelf).report is None
    second = room.watch("03-18", shelf=shelf)
    assert (indices(second), second.decision.severity, second.report) == ([0, 1], "degraded", None)


def test_a_report_that_fails_breaks_no_pass(
    bundle: ModelBundle, log: InferenceLog, ledger: Ledger, tmp_path: Path
) -> None:
    room = Room(make_task(monitor={"windows": {"kind": "time", "every": "7d"}}), bundle, log, ledger)
    (tmp_path / "full").write_text("no folder can be made below this")
    write_rows(log, bundle, make_frame(WEEK, start=FIRST, flip=0.3))
    found = room.watch("03-11", shelf=Shelf("handmade", tmp_path / "full" / "reports", tmp_path, days=90))
    assert (found.decision.severity, found.report) == ("degraded", None)
    assert [entry.kind for entry in ledger.read()] == ["window", "decision"]


def test_watching_is_imported_without_evidently_or_torch() -> None:
    code = "import sys, monitor.watching; print(sorted({'evidently', 'torch', 'sklearn', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_remedy_that_was_rolled_back_has_come_to_nothing() -> None:
    at = datetime(2024, 3, 2)

    def entry(kind: str, version: str, outcome: str = "", **details: object) -> Entry:
        return Entry(task="handmade", kind=kind, at=at, version=version, outcome=outcome, details=details)

    done = [
        entry("remedy", "2", cpu=9.0),
        entry("gate", "2", "promote", remedy="fine_tune", cpu=1.0),
        entry("gate", "3", "promote", remedy="research", cpu=2.0),
        entry("rollback", "1", previous="2"),
        entry("remedy", "", "refused", remedy="search"),
    ]
    found = [(act.remedy, act.promoted, act.cpu) for act in _acts(done) if act.remedy]
    assert found == [(Remedy.FINE_TUNE, False, 10.0), (Remedy.RESEARCH, True, 2.0), (Remedy.SEARCH, None, 0.0)]
