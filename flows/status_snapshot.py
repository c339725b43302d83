"""What the status page shows of a task, read at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import httpx

from flows.alerting import written
from flows.approval import pending
from flows.following import CONTINUED
from flows.following import KIND as STEP
from flows.ledger_table import ELSEWHERE, ENTRIES
from flows.overview import judged_first
from flows.services import Running, running
from flows.spending import KINDS, Spending, spending
from flows.workplace import Workplace
from monitor.alerts import from_entry
from monitor.measurements import WindowRecord
from registry.deliveries import ALERT, NOTICE, Outage, outages
from registry.errors import InputError
from registry.ledger import Entry
from registry.metrics import metrics_for
from registry.task import TaskSpec
from serving.presence import secret_for
from serving.tls import trusted

LOCKED = "needs a key"
ABSENT = "not served"
"""Of a task that is not among those of the endpoint that runs."""

_REPORTS = 8
_NEWEST = 400
"""So many measurements of windows are read, and decisions: a page that is read every ten seconds does not grow with a
task's age."""


@dataclass(frozen=True)
class Snapshot:
    """All that the page shows, read at one moment: of windows and decisions the newest, of the ledger its end."""

    task: str
    metric: str
    meant: str
    bounds: tuple[float, float]
    mode: str
    served: str
    champion: str
    predictions: int
    labelled: int
    decision: Entry | None
    alert: Entry | None
    outages: tuple[Outage, ...]
    spent: Spending
    moves: tuple[Entry, ...]
    steps: tuple[Entry, ...]
    decisions: tuple[Entry, ...]
    told: tuple[Entry, ...]
    records: tuple[WindowRecord, ...]
    asked: Entry | None
    services: tuple[Running, ...]
    reports: tuple[str, ...]


def read(place: Workplace) -> Snapshot:
    """Read everything. An endpoint that is down is a text on the page; raises `StoreError`."""
    ledger, logged = place.ledger, place.log.counts()
    moves, steps = ledger.read(kinds={"promotion", "rollback"}), ledger.read(kinds={STEP}, last=_NEWEST)
    steps = [one for one in steps if one.outcome == CONTINUED]
    decisions = ledger.read(kinds={"decision"}, last=_NEWEST, timely=True)
    last_alert, messages = ledger.read(kinds={ALERT}, last=1), written(ledger, (ALERT, NOTICE))
    return Snapshot(
        task=place.task.name,
        metric=place.task.metric,
        meant=meant(place.task),
        bounds=metrics_for(place.task.problem)[place.task.metric].bounds,
        mode=place.task.mode,
        served=_served(place),
        champion=_champion(moves, steps),
        predictions=logged.predictions,
        labelled=logged.labelled,
        decision=max(judged_first(decisions), key=lambda entry: (entry.at, entry.id), default=None),
        alert=next((one for one in last_alert if from_entry(one).alert.is_open), None),
        outages=tuple(outages(*messages)),
        spent=spending(ledger.costs(KINDS)),
        moves=tuple(moves),
        steps=tuple(steps),
        decisions=tuple(decisions),
        told=tuple(ledger.read(without=ELSEWHERE, last=ENTRIES)),
        records=_newest_records(ledger.read(kinds={"window"}, last=_NEWEST, timely=True)),
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
    for record in (WindowRecord.model_validate(entry.details) for entry in entries):
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
        if answer.status_code == 404:
            return ABSENT
        told = answer.raise_for_status().json()
        beside = told["canary"]
        return f"version {told['version']}" + (f", {beside['share']:.0%} by {beside['version']}" if beside else "")
    except (httpx.HTTPError, InputError, ValueError, KeyError):
        return "not answering"


def _champion(moves: Sequence[Entry], steps: Sequence[Entry]) -> str:
    """The version last promoted, gone back to or learnt on, by the ledger: a page needs no registry for it."""
    last = max((*moves[-1:], *steps[-1:]), key=lambda one: one.id or 0, default=None)
    return "none yet" if last is None else f"version {last.version}"
