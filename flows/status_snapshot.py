"""What the status page shows of a task, read at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import httpx

from flows.approval import pending
from flows.overview import judged_first
from flows.services import Running, running
from flows.workplace import Workplace
from monitor.alerts import ALERT, from_entry
from monitor.measurements import WindowRecord
from registry.errors import InputError
from registry.ledger import Entry
from registry.metrics import metrics_for
from registry.task import TaskSpec
from serving.presence import secret_for
from serving.tls import trusted

LOCKED = "needs a key"

_REPORTS = 8


@dataclass(frozen=True)
class Snapshot:
    """All that the page shows, read at one moment."""

    task: str
    metric: str
    meant: str
    bounds: tuple[float, float]
    served: str
    champion: str
    predictions: int
    labelled: int
    entries: tuple[Entry, ...]
    records: tuple[WindowRecord, ...]
    asked: Entry | None
    services: tuple[Running, ...]
    reports: tuple[str, ...]

    @property
    def decision(self) -> Entry | None:
        """The decision on the newest window."""
        decisions = judged_first([entry for entry in self.entries if entry.kind == "decision"])
        return max(decisions, key=lambda entry: (entry.at, entry.id), default=None)

    @property
    def alert(self) -> Entry | None:
        """The alert that is open."""
        last = next((entry for entry in reversed(self.entries) if entry.kind == ALERT), None)
        return last if last and from_entry(last).alert.is_open else None


def read(place: Workplace) -> Snapshot:
    """Read everything. An endpoint that is down is a text on the page; raises `StoreError`."""
    entries = place.ledger.read()
    counts = place.log.counts()
    return Snapshot(
        task=place.task.name,
        metric=place.task.metric,
        meant=meant(place.task),
        bounds=metrics_for(place.task.problem)[place.task.metric].bounds,
        served=_served(place),
        champion=_champion(entries),
        predictions=counts.predictions,
        labelled=counts.labelled,
        entries=tuple(entries),
        records=_newest_records(entries),
        asked=pending(place),
        services=running(place.settings),
        reports=tuple(sorted((path.name for path in place.reports.glob("*.html")), reverse=True)[:_REPORTS]),
    )


def meant(task: TaskSpec) -> str:
    """How the task's metric is read: its unit, where it has one, and which way is better."""
    better = "higher" if metrics_for(task.problem)[task.metric].greater_is_better else "lower"
    unit = f"in units of {task.target}, " if task.metric in ("rmse", "mae") else ""
    return f"{unit}{better} is better"


def _newest_records(entries: Iterable[Entry]) -> tuple[WindowRecord, ...]:
    """The newest record of each window, in time order: windows are measured again when labels arrive. What was realised
    stays until the labels of another version, which answered rows that came late, are there."""
    newest: dict[tuple[datetime, datetime], WindowRecord] = {}
    for record in (WindowRecord.model_validate(entry.details) for entry in entries if entry.kind == "window"):
        place = record.window.start, record.window.end
        before = newest.get(place)
        if before is None or before.version == record.version or record.performance or not before.performance:
            newest[place] = record
    return tuple(newest[place] for place in sorted(newest))


def _served(place: Workplace) -> str:
    settings = place.settings
    key = secret_for(settings)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        url = f"{settings.endpoint_url}/models/{place.task.name}"
        answer = httpx.get(url, headers=headers, timeout=1.0, trust_env=False, verify=trusted(settings))
        if answer.status_code in (401, 403):
            return LOCKED
        return f"version {answer.raise_for_status().json()['version']}"
    except (httpx.HTTPError, InputError, ValueError, KeyError):
        return "not answering"


def _champion(entries: Sequence[Entry]) -> str:
    """The version last promoted or gone back to, by the ledger: a page needs no registry for it."""
    found = [entry.version for entry in entries if entry.kind in ("promotion", "rollback")]
    return f"version {found[-1]}" if found else "none yet"
