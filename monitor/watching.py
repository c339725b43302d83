"""One monitoring pass: measure what is due, remember it, decide, remember that.

The ledger is the memory: a "window" entry holds a `WindowRecord` (the newest entry of a window counts), a "decision"
entry the decision on the newest state. A pass that finds nothing new writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from monitor.acts import Act, ActKind
from monitor.attainable import fit_fresh
from monitor.findings import broken
from monitor.kept import Common, common_of
from monitor.measurements import Window, WindowRecord
from monitor.measures import measure_all
from monitor.policy import decide, faulty_level
from monitor.reporting import report_of_pass, wanted
from monitor.shelf import Shelf
from monitor.upkeep import upkeep
from monitor.views import Fresh, View, read_window, window_side
from monitor.windows import Span, due
from registry.bundle import Manifest, ModelBundle
from registry.decisions import Decision, Outcome, Remedy
from registry.inference_log import InferenceLog
from registry.ledger import Entry, Ledger
from registry.log_frame import having
from registry.plurals import counted
from registry.policies import PerformancePolicy
from registry.task import TaskSpec
from registry.watched import watched_manifest

HISTORY = 64
"""Windows that a policy looks back over, and within which late labels are still looked for."""

MOST_ENTRIES = 1_000
GROWTH = 1.1
"""A window is measured again when its labels (or rows) have grown by a tenth, or all labels are there."""

WINDOW, DECISION = "window", "decision"
_ACTS: dict[str, ActKind] = {"promotion": "promotion", "rollback": "promotion", "remedy": "remedy", "gate": "remedy"}


@dataclass(frozen=True)
class WatchReport:
    """What a pass did: the windows it measured in time order, its decision, and its report's HTML if one was made;
    `judged`: there was a window, new or old, to decide on."""

    records: list[WindowRecord]
    decision: Decision
    seconds: float
    report: Path | None
    judged: bool


def watch(
    task: TaskSpec,
    bundle: ModelBundle,
    version: str,
    log: InferenceLog,
    ledger: Ledger,
    *,
    as_of: datetime,
    until: datetime | None = None,
    shelf: Shelf | None = None,
    followed: Collection[str] = (),
    noted: Sequence[str] = (),
) -> WatchReport:
    """Measure every complete window that is new, or whose rows or labels have grown, as known at `as_of`; then decide.

    A window is complete at its end, unless that is after `until`: from then on rows are known to be missing.
    `bundle` is the champion's, `version` its number in the registry. `shelf` is where the report of the newest
    window goes, None for none; one that cannot be made breaks no pass. `followed` are the versions of a champion that
    learns the labels as they come: their windows count as its own, and all that they have answered. `noted` is what
    else is said among the reasons. Raises `StoreError` when log or ledger fail; what was written until then is not
    redone.
    """
    began = time.perf_counter()
    windows, recent = _remembered(ledger, as_of)
    kin = {version, *followed}
    reads_images = bundle.manifest.data_schema.image is not None  # of which each version sees something else
    places = [
        found
        for record in recent
        if (found := _again(record, version, kin, log, as_of, apart=reads_images)) is not None
    ]
    places += [(version, span) for span in due(task.monitor.windows, log, windows, min(as_of, until or as_of))]
    reader = _Reader(bundle, version, log, as_of)
    records = []
    for own, place in sorted(places, key=lambda one: one[1].start):
        records.append(record := reader.record(place, own, {own} if reads_images else kin))
        ledger.write(_window_entry(task, record))
    history = {_place(record.window): record for record in (*recent, *records)}
    told = [_as_of_kin(history[place], version, kin) for place in sorted(history)][-HISTORY:]
    missed = _missed(told[-1], version, log) if told else ()
    decision = _decide(task, version, told, ledger, as_of, noted, missed, followed)
    report = None
    if records and shelf is not None and wanted(task, decision, version, ledger):
        report = report_of_pass(reader.view, records[-1], decision, ledger, shelf)
    return WatchReport(records, decision, time.perf_counter() - began, report, judged=bool(told))


@dataclass
class _Known:
    """What windows of the same columns have in common: the manifest, what is kept from pass to pass, the yardstick."""

    manifest: Manifest
    common: Common
    fresh: Fresh | None = None


class _Reader:
    """Reads windows out of the log, for one champion."""

    def __init__(self, bundle: ModelBundle, version: str, log: InferenceLog, as_of: datetime) -> None:
        self._bundle, self._version, self._log, self._as_of = bundle, version, log, as_of
        self._known: dict[tuple[tuple[str, ...], frozenset[str]], _Known] = {}

    def view(self, place: Span | Window) -> View:
        return self._read(place, {self._version})[0]

    def _read(self, place: Span | Window, versions: Collection[str]) -> tuple[View, _Known]:
        """A window, and what is known of its columns: that of those that the log hides differs from window to window
        where the task has changed."""
        bundle = self._bundle
        read = read_window(self._log, place.start, place.end, versions, bundle.manifest, self._as_of)
        key = read.manifest.data_schema.names, read.sealed
        if key not in self._known:
            self._known[key] = _Known(read.manifest, common_of(bundle, read.manifest, read.sealed))
        known = self._known[key]
        return read.view(known.common.reference, known.common.memory), known

    def _yardstick(self, place: Span, known: _Known) -> Fresh | None:
        """Fitted once, for the first window that has enough labelled rows before it: windows come in time order."""
        manifest, start = known.manifest, place.start
        if (rows := manifest.task.monitor.yardstick_rows) and known.fresh is None:
            plain, seen = watched_manifest(manifest), manifest.data_schema.image is not None
            names = plain.data_schema.names
            past = self._log.frame(end=start, labels_by=start, labelled_only=True, newest=rows, columns=names)
            side = window_side(having(past, names), self._version if seen else None, manifest)
            known.fresh = fit_fresh(side, plain)
        return known.fresh

    def record(self, place: Span, version: str, versions: Collection[str]) -> WindowRecord:
        """Of the version's name, by what these have answered."""
        view, known = self._read(place, versions)
        view = replace(view, fresh=self._yardstick(place, known))
        rows = view.logged.rows if view.logged is not None else len(view.window)
        window = Window(index=place.index, start=place.start, end=place.end, rows=rows)
        metric = self._bundle.manifest.task.metric
        return WindowRecord(window=window, version=version, metric=metric, measurements=measure_all(view))


def faulty_windows(task: TaskSpec, ledger: Ledger, as_of: datetime, last: int = MOST_ENTRIES) -> list[Window]:
    """The windows whose data were broken by what was known at a moment: by the newest decision about each, of the
    newest `last` decisions; one that was measured again since, as its rows came late, is judged by what it is now."""
    decided = [one for one in ledger.read(kinds={DECISION}, last=last, until=as_of) if one.details.get("window")]
    newest = {_place(window := Window.model_validate(one.details["window"])): (window, one) for one in decided}
    found = [(window, one) for window, one in newest.values() if one.severity == "faulty"]
    if not found:
        return []
    seen = max(int(one.details.get("seen", 0)) for one in decided)
    measured = {
        _place(Window.model_validate(one.details["window"])): one
        for one in ledger.read(kinds={WINDOW}, last=MOST_ENTRIES)
        if (one.id or 0) <= seen
    }
    out = []
    for window, decision in found:
        again = measured.get(_place(window))
        if again is not None and (again.id or 0) > decision.details.get("seen", 0):
            before = sorted(place for place in measured if place <= _place(window))[-HISTORY:]
            history = [WindowRecord.model_validate(measured[place].details) for place in before]
            if not broken(history, faulty_level(task.policy, history)):
                continue
        out.append(window)
    return out


def _remembered(ledger: Ledger, as_of: datetime) -> tuple[list[Window], list[WindowRecord]]:
    """The windows measured already that were complete at `as_of`, and the newest HISTORY of them in full."""
    entries = ledger.read(kinds={WINDOW}, last=MOST_ENTRIES)
    found = [(Window.model_validate(entry.details["window"]), entry.details) for entry in entries]
    newest = {_place(window): (window, details) for window, details in found if window.end <= as_of}
    ordered = [newest[place] for place in sorted(newest)]
    recent = [WindowRecord.model_validate(details) for _, details in ordered[-HISTORY:]]
    return [window for window, _ in ordered], recent


def _place(window: Window) -> tuple[datetime, datetime]:
    return window.start, window.end


def _as_of_kin(record: WindowRecord, version: str, kin: Collection[str]) -> WindowRecord:
    """A window of a version that another one follows counts as the other's."""
    return record.model_copy(update={"version": version}) if record.version in kin else record


def _again(
    record: WindowRecord, version: str, kin: Collection[str], log: InferenceLog, as_of: datetime, *, apart: bool
) -> tuple[str, Span] | None:
    """The place of a window that is to be measured again, and for which version: another one of the champion's where
    these have answered more of the rows that came late than it was measured for, or where there were none. `apart`:
    each version is measured by itself."""
    window, had = record.window, _answered(record)
    inside: dict[str, Any] = {"start": window.start, "end": window.end}
    place, rows = Span(window.index, window.start, window.end), log.number(**inside)
    if rows > window.rows:
        answered = {one: log.number(**inside, version=one) for one in kin}
        own = max((version, *kin), key=answered.__getitem__)
        theirs = answered[own] if apart or record.version in kin else sum(answered.values())
        if own != record.version and (theirs > had["rows"] or not window.rows):
            return own, place
    if record.version not in kin or 0 < had["rows"] == had["labels"] == window.rows >= rows:
        return None
    told = [log.counts(**inside, version=one, labels_by=as_of) for one in ({record.version} if apart else kin)]
    predictions, labelled = sum(one.predictions for one in told), sum(one.labelled for one in told)
    complete = labelled == predictions and labelled > had["labels"]
    more = labelled > GROWTH * had["labels"] or predictions > GROWTH * had["rows"]
    return (record.version, place) if complete or more or rows > GROWTH * window.rows else None


def _missed(newest: WindowRecord, version: str, log: InferenceLog) -> tuple[str, ...]:
    """What is said of rows that came to a window after it was measured for a version that is judged no longer."""
    window = newest.window
    more = 0 if newest.version == version else log.number(start=window.start, end=window.end) - window.rows
    said = f"{counted(more, 'row')} of the window from {window.name} came after it was measured"
    return (f"{said} for version {newest.version}, and not measured",) if more > 0 else ()


def _window_entry(task: TaskSpec, record: WindowRecord) -> Entry:
    details = record.model_dump(mode="json", exclude_defaults=True)
    return Entry(task=task.name, kind=WINDOW, at=record.window.end, version=record.version, details=details)


def _decide(
    task: TaskSpec,
    version: str,
    history: Sequence[WindowRecord],
    ledger: Ledger,
    as_of: datetime,
    noted: Sequence[str],
    missed: Sequence[str],
    followed: Collection[str],
) -> Decision:
    """The decision on this history; written down unless the newest one is about the same."""
    entries = ledger.read(kinds=_ACTS, last=HISTORY)
    acts = _acts([entry for entry in entries if entry.at <= as_of])
    least, policy = task.monitor.min_labels, task.policy
    if task.time is None and isinstance(policy, PerformancePolicy):
        policy = policy.timeless()
    follows = upkeep(ledger, followed, as_of) if followed else None
    decision = decide(policy, history, acts, version=version, min_labels=least, follows=follows)
    decision = decision.model_copy(update={"reasons": (*decision.reasons, *missed, *noted)})
    newest = max((entry.id or 0 for entry in ledger.read(kinds={WINDOW}, last=1)), default=0)
    before = ledger.read(kinds={DECISION}, last=1)
    same = before and before[-1].version == version and before[-1].details.get("seen") == newest
    if same and set(missed) <= set(before[-1].reasons):
        return decision
    told = decision.diagnosis
    details = {
        "seen": newest,
        "window": history[-1].window.model_dump(mode="json") if history else None,
        "answered": _answered(history[-1]) if history else {},
        "then": list(decision.then),
        "diagnosis": None if told is None else told.model_dump(mode="json", exclude_defaults=True),
    }
    ledger.write(
        Entry(
            task=task.name,
            kind=DECISION,
            at=as_of,
            version=version,
            severity=decision.severity,
            outcome=decision.remedy.value,
            reasons=decision.reasons,
            details=details,
        )
    )
    return decision


def _answered(record: WindowRecord) -> dict[str, int]:
    """How many rows the version answered, and how many of these have their label."""
    had = {one.subject: int(one.value or 0) for one in record.named("volume")}
    return {"rows": had.get("own", 0), "labels": had.get("labelled", 0)}


def _acts(entries: Sequence[Entry]) -> list[Act]:
    """What was done, with what each remedy that a gate has judged came to, and cost with its gate. One whose champion
    was rolled back has come to nothing."""
    undone = {entry.details.get("previous") for entry in entries if entry.kind == "rollback"}
    made = {entry.version: entry.details.get("cpu", 0.0) for entry in entries if entry.kind == "remedy"}
    kinds = {entry.version: entry.details.get("remedy") for entry in entries if entry.kind == "remedy"}
    acts = []
    for entry in entries:
        act = Act(kind=_ACTS[entry.kind], at=entry.at)
        if entry.kind == "remedy" and (remedy := entry.details.get("remedy")):
            act = act.model_copy(update={"remedy": Remedy(remedy)})
        if entry.kind == "promotion" and (remedy := kinds.get(entry.version)):
            act = act.model_copy(update={"remedy": Remedy(remedy)})
        if entry.kind == "gate" and (remedy := entry.details.get("remedy")):
            cpu = made.get(entry.version, 0.0) + entry.details.get("cpu", 0.0)
            promoted = entry.outcome == Outcome.PROMOTE and entry.version not in undone
            act = act.model_copy(update={"remedy": Remedy(remedy), "promoted": promoted, "cpu": cpu})
        acts.append(act)
    return acts
