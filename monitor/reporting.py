"""When a report is made: at a pass that enters an alarm, at every pass, or when somebody asks for one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from monitor.measurements import Window, WindowRecord
from monitor.report import write_report
from monitor.segment_table import segment_table
from monitor.shelf import Shelf, Subject
from monitor.views import View, read_window, reference_side
from registry.bundle import ModelBundle
from registry.decisions import Decision
from registry.errors import InputError, OutsideError, StateError
from registry.inference_log import InferenceLog
from registry.ledger import Entry, Ledger
from registry.task import TaskSpec

REPORT = "report"
"""Kind of the ledger's entry for a report that a pass made."""

_LOG = logging.getLogger("everfit")


def wanted(task: TaskSpec, decision: Decision, version: str, ledger: Ledger) -> bool:
    """Whether a pass that measured something makes a report.

    With `alarms`: when the severity is not `ok`, and was another one, or another version's, at some decision since the
    last report. A report that failed is so made up for by the next pass that measures.
    """
    if task.monitor.report != "alarms" or decision.severity == "ok":
        return task.monitor.report == "always"
    last = ledger.read(kinds={REPORT}, last=1)
    if not last:
        return True
    since = [*last, *ledger.read(kinds={"decision"}, since=last[0].id or 0)]
    return any((entry.version, entry.severity) != (version, decision.severity) for entry in since)


def report_of_pass(
    view: Callable[[Window], View], record: WindowRecord, decision: Decision, ledger: Ledger, shelf: Shelf
) -> Path | None:
    """The report of a pass, in the ledger too; None when there is nothing to show, or when it could not be made.

    A pass is not broken by that: what it measured and decided stands in the ledger already.
    """
    subject = Subject(record.window, record.version, decision.severity)
    try:
        path = write_report(view(record.window), subject, shelf, _segments(record))
    except OutsideError as error:
        _LOG.warning("%s", error)
        return None
    if path is not None:
        ledger.write(_entry(subject, path, shelf.task))
    return path


def _segments(record: WindowRecord) -> str:
    """What Everfit measured by segment, as HTML; empty where it did not."""
    table = segment_table(record)
    said = (
        "<p><b>By segment, as Everfit measured it</b>; in brackets the reference: of the calibration error what chance "
        "shows, of answers how far they moved elsewhere.</p>"
        "<style>.segments th, .segments td { padding: 2px 14px 2px 0; text-align: left }</style>"
    )
    return said + table if table else ""


def _entry(subject: Subject, path: Path, task: str) -> Entry:
    return Entry(
        task=task,
        kind=REPORT,
        at=subject.window.end,
        version=subject.version,
        severity=subject.severity,
        details={"window": subject.window.model_dump(mode="json"), "page": path.name},
    )


def measured(ledger: Ledger, which: datetime | int | None = None) -> WindowRecord:
    """The record of a window, named by a moment in it or by its number; by default of the newest that has rows its
    version answered, or of the newest. Raises `StateError` when none was measured yet, `InputError` when this one was
    not."""
    newest, oldest, seen = None, None, set[int]()
    for details in (entry.details for entry in ledger.newest_first("window")):
        oldest = Window.model_validate(details["window"])
        if oldest.index in seen:  # it was measured again since
            continue
        seen.add(oldest.index)
        newest = newest or details
        if _is_meant(oldest, which) and (which is not None or _answered(WindowRecord.model_validate(details))):
            return WindowRecord.model_validate(details)
    if newest is None or oldest is None:
        raise StateError("no window was measured yet; `everfit monitor TASK` measures those that are over")
    record = WindowRecord.model_validate(newest)
    if which is None:
        return record
    asked = f"window {which}" if isinstance(which, int) else f"window with {which:%Y-%m-%d %H:%M} in it"
    raise InputError(f"no {asked} was measured: expected one from {oldest.name} to {record.window.name}")


def _is_meant(window: Window, which: datetime | int | None) -> bool:
    """Whether it has this number, or this moment in it."""
    if which is None:
        return True
    return window.index == which if isinstance(which, int) else window.start <= which < window.end


def _answered(record: WindowRecord) -> bool:
    """Whether its version answered any row."""
    return any(one.subject == "own" and one.value for one in record.named("volume"))


def report_on_demand(
    record: WindowRecord, bundle: ModelBundle, log: InferenceLog, ledger: Ledger, shelf: Shelf, *, as_of: datetime
) -> Path:
    """The report of a window that was measured; `bundle` is that of the record's version.

    Raises `InputError` when that version answered no row in it, `OutsideError` when it cannot be made.
    """
    window, version = record.window, record.version
    read = read_window(log, window.start, window.end, {version}, bundle.manifest, as_of)
    view = read.view(reference_side(bundle, read.manifest))
    path = write_report(view, Subject(window, version, _severity(ledger, record)), shelf, _segments(record))
    if path is None:
        raise InputError(f"the window from {window.name} has no rows that version {version} answered: nothing to show")
    return path


def _severity(ledger: Ledger, record: WindowRecord) -> str | None:
    """How the window was judged when it was the newest one."""
    window = record.window.model_dump(mode="json", include={"start", "end"})
    for entry in reversed(ledger.read(kinds={"decision"}, version=record.version)):
        seen = entry.details.get("window") or {}
        if window.items() <= seen.items():
            return entry.severity
    return None
