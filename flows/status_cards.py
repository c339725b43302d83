"""The tiles of the status page, and why the newest window is judged as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from flows.chart import figures
from flows.overview import judged_as, window_from
from flows.spending import Spending
from flows.status_snapshot import ABSENT, LOCKED, Snapshot
from monitor.alerts import from_entry
from monitor.comparison import reference_level
from monitor.measurements import WindowRecord
from monitor.told import figure
from registry.deliveries import Outage
from registry.ledger import Entry
from registry.plurals import counted

UNLOCKED = "it answers; `everfit down`, then `everfit up` with EVERFIT_API_KEY, shows its version here"
_DAY, _UNBROKEN = re.compile(r"\d{4}-\d\d-\d\d"), r"<time>\g<0></time>"


def cards(snapshot: Snapshot) -> str:
    """The tiles, as HTML."""
    decision = snapshot.decision
    severity = judged_as(decision)
    begun = window_from(decision) if decision else None
    where = f", window from {begun:%Y-%m-%d}" if begun else ""
    of = f"version {decision.version}{where}, as of {decision.at:%Y-%m-%d %H:%M}" if decision else ""
    mode = "" if snapshot.mode == "auto" else f"mode {snapshot.mode}; "
    judged = f"{mode}remedy {decision.outcome}; {of}" if decision else f"{mode}nothing was watched yet"
    made = [
        _card("Endpoint", snapshot.served, _of_endpoint(snapshot)),
        _card("Newest window", severity, judged, mood=severity),
        _alert_card(snapshot.alert),
        *(_outage_card(one, snapshot.task) for one in snapshot.outages),
        *_waiting_card(snapshot),
        _card(f"Newest {snapshot.metric}", *_newest(snapshot.records)),
        _card("Predictions logged", f"{snapshot.predictions:,}", f"{snapshot.labelled:,} with a label"),
        _spent_card(snapshot.spent),
    ]
    return f'<div class="cards">{"".join(made)}</div>'


def reasons(snapshot: Snapshot) -> str:
    """Why the newest window is judged as it is, as a list of HTML."""
    decision = snapshot.decision
    items = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons) if decision else ""
    return f'<ul class="reasons">{items}</ul>{_SIGNS if items else ""}'


_SIGNS = (
    '<p class="quiet signs">(a to b): 95 % interval of its own rows, the band below; reference: on test rows, the '
    "dashed line; +/-: standard error; luck: how windows differ while nothing changes</p>"
)


def _of_endpoint(snapshot: Snapshot) -> str:
    if snapshot.served == LOCKED:
        return UNLOCKED
    return f"champion: {snapshot.champion}" + f"; everfit up {snapshot.task} has it served" * (
        snapshot.served == ABSENT
    )


def _alert_card(alert: Entry | None) -> str:
    if alert is None:
        return _card("Alert", "none", "nothing is open")
    since = f"{alert.outcome}, since {from_entry(alert).alert.opened_at:%Y-%m-%d}"
    return _card("Alert", alert.severity or "open", since, mood=alert.severity or "")


def _outage_card(one: Outage, task: str) -> str:
    note = f"no alert arrives since {one.since:%Y-%m-%d %H:%M}: {one.why}; everfit alerts {task}"
    return _card("Alerts are not heard", one.channel, note, mood="faulty")


def _waiting_card(snapshot: Snapshot) -> Iterator[str]:
    if (asked := snapshot.asked) is not None:
        since = "" if asked.written is None else f", since {asked.written:%Y-%m-%d %H:%M}"
        note = f"everfit approve {snapshot.task}{since}"
        yield _card("Waits for a person", f"version {asked.version}", note, mood="shifted")


def _spent_card(spent: Spending) -> str:
    counts = (spent.challengers, "challenger"), (spent.steps, "step"), (spent.looks, "look")
    note = ", ".join(counted(number, noun) for number, noun in counts if number) or "no challenger made by a remedy"
    note += " whether steps would pay" if spent.looks else ""
    return _card("Spent on models", f"{spent.cpu:,.0f} CPU-s", note)


def _card(title: str, value: str, note: str, *, mood: str = "") -> str:
    mood = mood if mood in ("ok", "shifted", "faulty", "degraded") else ""
    return (
        f'<div class="card {mood}"><h3>{escape(title)}</h3><p class="big">{escape(value)}</p>'
        f"<p>{_DAY.sub(_UNBROKEN, escape(note))}</p></div>"
    )


def _newest(records: Sequence[WindowRecord]) -> tuple[str, str]:
    judged = [(record, one) for record in records if (one := figure(record)) is not None]
    if not judged:
        return "none yet", "no labels yet" if records else "no window measured yet"
    record, told = judged[-1]
    interval = "" if told.low is None or told.high is None else f"{figures(told.low)} to {figures(told.high)}, "
    reference = "unknown" if (test := reference_level(record)) is None else figures(test.value)
    of = f"version {record.version} on {told.level.basis}, window from {record.window.start:%Y-%m-%d}"
    return figures(told.level.value), f"{of}; {interval}reference {reference}"
