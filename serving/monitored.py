"""What monitoring found, for `/metrics`: the ledger's newest windows and decision, read in the background.

A scrape never waits for the store. Every so many seconds the keeper asks for what is new in the ledger, so that
SQLAlchemy, 15 MB, is not in the process that answers, and tells the endpoint; while the store is away the last values
stay, and `everfit_monitoring_age_seconds` says how old they are. What becomes of a window is decided by `monitor/`;
here its numbers are only picked out of the entries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from registry.decisions import DISTANCE, Severity
from registry.deliveries import ALERT, NOTICE, SENT, Deliveries
from registry.errors import words_of
from serving.catalogue import Sample

if TYPE_CHECKING:
    from registry.ledger import Entry, Ledger

WINDOWS = 24
"""Windows that are read at the start, and remembered: among them is the newest one with labels, if labels are late."""

_MESSAGES = 200
"""Entries about alerts and their delivery that are read at the start."""

MOST_COLUMNS = 100
"""Columns that are shown each; of more the furthest."""

MOST_SEGMENTS = 20
"""Segments that are shown each, of those that a task watches apart: the most frequent. A slice that is found is another
one each window, and is none of them."""

SURE = 0.01
"""The p-value up to which a column that moved counts as shifted. What monitoring names needs evidence over windows
beside it."""

_BESIDE = {
    "coverage": {"value": "everfit_window_coverage", "reference": "everfit_window_coverage_promised"},
    "calibration": {
        "value": "everfit_window_calibration_error",
        "reference": "everfit_window_calibration_error_expected",
    },
}
"""What is told beside the performance of a window, by measure."""

_OF_ROWS = {"segment_share": "everfit_segment_share", "segment_shift": "everfit_segment_shift"}
_OF_LABELS = {
    "segment_performance": "everfit_segment_performance",
    "segment_coverage": "everfit_segment_coverage",
    "segment_calibration": "everfit_segment_calibration_error",
}
"""What is told by segment."""

_TOLD = (ALERT, NOTICE, SENT)
_SEVERITIES: tuple[str, ...] = get_args(Severity)
_LOG = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Window:
    """The numbers of one window. `written` is when it was measured last, in seconds since 1970."""

    written: float
    samples: tuple[Sample, ...]
    performance: tuple[Sample, ...]
    """And coverage and calibration, by segment too; nothing while no label has arrived."""


@dataclass
class Findings:
    """What is known of one task."""

    last: int = 0
    windows: dict[float, Window] = field(default_factory=dict)
    """By the end of the window, in event time."""
    decision: Entry | None = None
    """On the newest window; what a replay of an older time decides is none."""
    decided: float = 0.0
    """When the last decision was written."""
    passed: float | None = None
    """When the last pass over the newest rows came to its end."""

    deliveries: Deliveries = field(default_factory=Deliveries)

    def take(self, entries: Iterable[Entry]) -> None:
        """Take in entries, oldest first of each kind."""
        for entry in entries:
            written = _seconds(entry.written or entry.at)
            if entry.kind == "decision":
                self.decided = written
                if self.decision is None or _order(entry) >= _order(self.decision):
                    self.decision = entry
            elif entry.kind in _TOLD:
                self.deliveries.take(entry)
            else:
                self.windows[_seconds(entry.at)] = _window(entry, written)
            self.last = max(self.last, entry.id or 0)
        for end in sorted(self.windows)[:-WINDOWS]:
            del self.windows[end]

    def told(self) -> dict[str, Any]:
        """What the endpoint is told: metrics, and the moments at which what they say was written."""
        stands = self.deliveries.stands().items()
        samples = [Sample("everfit_alert_channel_up", outage is None, (channel,)) for channel, outage in stands]
        ages: dict[str, float] = {} if self.passed is None else {"everfit_pass_age_seconds": self.passed}
        if self.decision is not None:
            samples.append(Sample("everfit_decision_timestamp_seconds", self.decided))
            if _is_judged(self.decision):  # else `ok` is no good news
                samples += (Sample("everfit_severity", one == self.decision.severity, (one,)) for one in _SEVERITIES)
        if self.windows:
            newest = max(self.windows)
            samples += (Sample("everfit_window_end_timestamp_seconds", newest), *self.windows[newest].samples)
            ages["everfit_window_age_seconds"] = self.windows[newest].written
        labelled = max((end for end, window in self.windows.items() if window.performance), default=None)
        if labelled is not None:
            samples += self.windows[labelled].performance
            ages["everfit_performance_age_seconds"] = self.windows[labelled].written
        return {"samples": [tuple(one) for one in samples], "ages": ages}


class Lookout:
    """The keeper's end: what it finds in the ledger, looked up every so many seconds."""

    def __init__(self, ledger: Ledger, seconds: float) -> None:
        self._ledger, self._seconds, self._found, self._look_at = ledger, seconds, Findings(), 0.0

    def look(self) -> dict[str, Any] | None:
        """What the endpoint is told, or None while it is not time to look. No fault of the store, of whatever kind, and
        no entry that cannot be read may end the looking."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + self._seconds
        ledger, found = self._ledger, self._found
        try:
            if found.last:
                entries = ledger.read(kinds=("window", "decision", *_TOLD), since=found.last)
            else:
                first = (("window",), WINDOWS), (("decision",), 1), (_TOLD, _MESSAGES)
                entries = [one for kinds, last in first for one in ledger.read(kinds=kinds, last=last)]
            found.take(entries)
            found.passed = None if (ended := ledger.last_pass()) is None else _seconds(ended)
        except Exception as error:  # noqa: BLE001 - an entry that cannot be read is the operator's business too
            return {"fault": words_of(error)}
        return found.told()


class Monitored:
    """The endpoint's end: what it was told of a task."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._told: dict[str, Any] = {"samples": [], "ages": {}}
        self._heard_at: float | None = None
        self._up = False

    def hear(self, told: dict[str, Any]) -> None:
        """Take in what the keeper tells."""
        if "fault" in told:
            self.fail(told["fault"])
        else:
            self._told, self._heard_at, self._up = told, time.monotonic(), True

    def fail(self, why: str) -> None:
        """The ledger is not read now."""
        if self._up or self._heard_at is None:
            _LOG.warning("task %r: the ledger cannot be read for /metrics: %s", self._task, why)
            self._heard_at = self._heard_at or time.monotonic()
        self._up = False

    def samples(self) -> Iterator[Sample]:
        """The metrics of this moment."""
        yield Sample("everfit_monitoring_up", self._up)
        if self._heard_at is not None:
            yield Sample("everfit_monitoring_age_seconds", time.monotonic() - self._heard_at)
        for name, written in self._told["ages"].items():
            yield Sample(name, max(0.0, time.time() - written))
        for name, value, labels in self._told["samples"]:
            yield Sample(name, value, tuple(labels))


def _is_judged(decision: Entry) -> bool:
    """Whether there was a window to decide on."""
    return decision.details.get("window", True) is not None


def _order(decision: Entry) -> tuple[bool, datetime]:
    """A decision on a window counts before all that found none."""
    return _is_judged(decision), decision.at


def _window(entry: Entry, written: float) -> Window:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in entry.details.get("measurements", ()):
        by_name.setdefault(one["name"], []).append(one)
    labels = (entry.version or "", str(entry.details.get("metric", "")))
    samples = (*_volume(entry.details, by_name), *_shift(by_name), *_expected(by_name, labels), *_strange(by_name))
    performance = tuple(_performance(by_name, labels))
    if performance:
        performance += tuple(_segments(by_name, _OF_LABELS))
    return Window(written, (*samples, *_segments(by_name, _OF_ROWS)), performance)


def _volume(details: Mapping[str, Any], by_name: Mapping[str, list[dict[str, Any]]]) -> Iterator[Sample]:
    counts = {one.get("subject"): one.get("value") for one in by_name.get("volume", ())}
    yield Sample("everfit_window_rows", details["window"]["rows"])
    yield Sample("everfit_window_labelled_rows", counts.get("labelled") or 0.0)


def _shift(by_name: Mapping[str, list[dict[str, Any]]]) -> Iterator[Sample]:
    found = [one for one in by_name.get("shift", ()) if one.get("value") is not None]
    moved = [one for one in found if one["value"] >= DISTANCE and one.get("p_value", 1.0) < SURE]
    yield Sample("everfit_window_columns", len(found))
    yield Sample("everfit_window_shifted_columns", len(moved))
    for one in sorted(found, key=lambda one: -one["value"])[:MOST_COLUMNS]:
        yield Sample("everfit_window_column_shift", one["value"], (str(one.get("subject")),))
    for one in by_name.get("domain_shift", ()):
        if one.get("value") is not None:
            yield Sample("everfit_window_domain_shift", one["value"])


def _expected(by_name: Mapping[str, list[dict[str, Any]]], labels: tuple[str, ...]) -> Iterator[Sample]:
    for one in by_name.get("estimated", ())[:1]:
        if one.get("value") is not None:
            yield Sample("everfit_performance_estimated", one["value"], labels)


def _strange(by_name: Mapping[str, list[dict[str, Any]]]) -> Iterator[Sample]:
    for one in by_name.get("out_of_distribution", ())[:1]:
        if one.get("value") is not None:
            yield Sample("everfit_window_out_of_distribution", one["value"])


def _segments(by_name: Mapping[str, list[dict[str, Any]]], names: Mapping[str, str]) -> Iterator[Sample]:
    found = {one.get("subject") for one in by_name.get("slice_performance", ())}
    watched = [one["subject"] for one in by_name.get("segment_share", ()) if one["subject"] not in found]
    shown = set(watched[:MOST_SEGMENTS])
    for measure, name in names.items():
        for one in by_name.get(measure, ()):
            if one["subject"] in shown and one.get("value") is not None:
                yield Sample(name, one["value"], (one["subject"],))


def _performance(by_name: Mapping[str, list[dict[str, Any]]], labels: tuple[str, ...]) -> Iterator[Sample]:
    found = next((one for one in by_name.get("performance", ()) if one.get("value") is not None), None)
    if found is None:
        return
    parts = {"value": "", "error": "_error", "reference": "_reference"}
    for key, suffix in parts.items():
        if found.get(key) is not None:
            yield Sample(f"everfit_performance{suffix}", found[key], labels)
    for measure, names in _BESIDE.items():
        for one in by_name.get(measure, ())[:1]:
            yield from (Sample(name, one[key]) for key, name in names.items() if one.get(key) is not None)


def _seconds(moment: datetime) -> float:
    """Seconds since 1970 of a moment in UTC without zone."""
    return moment.replace(tzinfo=UTC).timestamp()
