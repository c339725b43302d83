"""When a report is made: at a pass that enters an alarm, at every pass, or when somebody asks for one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from monitor.measurements import Window, WindowRecord
from monitor.report import write_report
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
        path = write_report(view(record.window), subject, shelf)
    except OutsideError as error:
        _LOG.warning("%s", error)
        return None
    if path is not None:
        ledger.write(_entry(subject, path, shelf.task))
    return path


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
    entries = ledger.read(kinds={"window"})
    if not entries:
        raise StateError("no window was measured yet; `everfit monitor TASK` measures those that are over")
    newest = {int(entry.details["window"]["index"]): entry for entry in entries}
    ordered = [newest[number].details for number in sorted(newest, reverse=True)]
    if which is not None:
        windows = [Window.model_validate(one["window"]) for one in ordered]
        return WindowRecord.model_validate(ordered[_place(windows, which)])
    records = map(WindowRecord.model_validate, ordered)
    return next((one for one in records if _answered(one)), WindowRecord.model_validate(ordered[0]))


def _place(windows: Sequence[Window], which: datetime | int) -> int:
    """Where among windows, newest first, the one of this number is, or the one that holds this moment."""
    for place, one in enumerate(windows):
        if one.index == which if isinstance(which, int) else one.start <= which < one.end:
            return place
    asked = f"window {which}" if isinstance(which, int) else f"window with {which:%Y-%m-%d %H:%M} in it"
    raise InputError(f"no {asked} was measured: expected one from {windows[-1].name} to {windows[0].name}")


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
    path = write_report(view, Subject(window, version, _severity(ledger, record)), shelf)
    if path is None:
        raise InputError(f"the window from {window.name} has no rows that version {version} answered: nothing to show")
    return path


def _severity(ledger: Ledger, record: WindowRecord) -> str | None:
    """How the window was judged when it was the newest one."""
    window = record.window.model_dump(mode="json", include={"start", "end"})
    for entry in reversed(ledger.read(kinds={"decision"})):
        seen = entry.details.get("window") or {}
        if entry.version == record.version and window.items() <= seen.items():
            return entry.severity
    return None
