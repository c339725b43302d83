"""When a report is made, and that a failure of it breaks nothing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from monitor.measurements import Measurement, Window, WindowRecord
from monitor.reporting import REPORT, measured, report_of_pass, report_on_demand, wanted
from monitor.shelf import Shelf
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.decisions import Decision, Remedy
from registry.errors import InputError, StateError
from registry.inference_log import InferenceLog
from registry.ledger import Entry, Ledger
from tests.handmade import make_frame, make_task
from tests.monitor.logged import write_rows

START = datetime(2024, 3, 4)


def write(ledger: Ledger, kind: str, severity: str | None, version: str = "1", **details: object) -> None:
    ledger.write(Entry(task="handmade", kind=kind, at=START, version=version, severity=severity, details=details))


def record_of(number: int, version: str = "1") -> WindowRecord:
    start = START + timedelta(days=7 * number)
    window = Window(index=number, start=start, end=start + timedelta(days=7), rows=200)
    return WindowRecord(window=window, version=version, metric="auc", measurements=())


def asks(ledger: Ledger, severity: str, version: str = "1", choice: str = "alarms") -> bool:
    """Whether the pass that has just decided so makes a report; the decision is in the ledger by then."""
    write(ledger, "decision", severity, version)
    task = make_task(monitor={"report": choice})
    return wanted(task, Decision(remedy=Remedy.NONE, severity=severity, reasons=("so",)), version, ledger)


@pytest.mark.parametrize("severity", ["ok", "degraded"])
def test_always_and_never_ask_nobody(ledger: Ledger, severity: str) -> None:
    for _ in range(2):
        assert asks(ledger, severity, choice="always")
        assert not asks(ledger, severity, choice="never")


def test_an_alarm_that_is_entered_is_reported_once(ledger: Ledger) -> None:
    assert not asks(ledger, "ok")
    assert asks(ledger, "shifted")
    write(ledger, REPORT, "shifted")
    assert [asks(ledger, one) for one in ("shifted", "shifted", "ok")] == [False, False, False]
    assert asks(ledger, "shifted")


def test_another_severity_is_another_alarm(ledger: Ledger) -> None:
    assert asks(ledger, "shifted")
    write(ledger, REPORT, "shifted")
    assert asks(ledger, "degraded")
    write(ledger, REPORT, "degraded")
    assert not asks(ledger, "degraded")
    assert asks(ledger, "shifted")


def test_another_version_has_alarms_of_its_own(ledger: Ledger) -> None:
    assert asks(ledger, "degraded")
    write(ledger, REPORT, "degraded")
    assert asks(ledger, "degraded", version="2")


def test_an_alarm_without_a_report_is_made_up_for(ledger: Ledger) -> None:
    assert [asks(ledger, "degraded") for _ in range(3)] == [True, True, True]
    write(ledger, REPORT, "degraded")
    assert not asks(ledger, "degraded")


def test_a_report_that_cannot_be_written_is_a_line_in_the_log(
    bundle: ModelBundle, log: InferenceLog, ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(log, bundle, make_frame(50))
    view = View(window_side(log.frame(), "1", bundle.manifest), reference_side(bundle), bundle.manifest)
    (tmp_path / "file").write_text("no folder can be made below this")
    shelf = Shelf("handmade", tmp_path / "file" / "reports", tmp_path / "evidently", days=90)
    decision = Decision(remedy=Remedy.NONE, severity="degraded", reasons=("so",))
    with caplog.at_level(logging.WARNING, "everfit"):
        assert report_of_pass(lambda _: view, record_of(3), decision, ledger, shelf) is None
    assert "the report of the window from 2024-03-25 00:00 could not be made: NotADirectoryError" in caplog.text
    assert ledger.read() == []


def test_the_newest_record_of_a_window_is_found(ledger: Ledger) -> None:
    for one in (record_of(0), record_of(1), record_of(1, "2"), record_of(0, "2")):
        ledger.write(Entry(task="handmade", kind="window", at=one.window.end, details=one.model_dump(mode="json")))
    assert measured(ledger) == record_of(1, "2")
    assert measured(ledger, 0) == record_of(0, "2")
    assert measured(ledger, START) == measured(ledger, START + timedelta(days=3)) == record_of(0, "2")
    with pytest.raises(InputError, match="no window 7 was measured: expected one from 2024-03-04 00:00 to 2024-03-11"):
        measured(ledger, 7)
    with pytest.raises(InputError, match="no window with 2024-03-18 00:00 in it was measured"):
        measured(ledger, START + timedelta(days=14))


def test_an_empty_window_is_passed_over_unless_asked_for(ledger: Ledger) -> None:
    rows = [200, 150, 0]
    records = [
        record_of(number).model_copy(update={"measurements": (Measurement(name="volume", subject="own", value=own),)})
        for number, own in enumerate(rows)
    ]
    for one in records:
        ledger.write(Entry(task="handmade", kind="window", at=one.window.end, details=one.model_dump(mode="json")))
    assert measured(ledger) == records[1]
    assert measured(ledger, 2) == records[2]


def test_before_anything_is_measured_there_is_nothing_to_show(ledger: Ledger) -> None:
    with pytest.raises(StateError, match="everfit monitor TASK"):
        measured(ledger)


def test_a_window_without_rows_has_no_report(
    bundle: ModelBundle, log: InferenceLog, ledger: Ledger, tmp_path: Path
) -> None:
    shelf = Shelf("handmade", tmp_path / "reports", tmp_path / "evidently", days=90)
    with pytest.raises(InputError, match="window from 2024-03-18 00:00 has no rows that version 1 answered"):
        report_on_demand(record_of(2), bundle, log, ledger, shelf, as_of=datetime(2024, 5, 1))
