"""Alerts: what was told before and the newest judgements in, what is to be told now out. Nothing here sends.

A task has at most one open alert. Its level is the worst of the newest `resolve_after` windows, so that it rises with
one window and falls after as many quiet ones; a window below `least` is quiet, whatever else the ledger says of it.

    opened      a window reaches `least`, and no alert ended within `reopen_within`
    reopened    the same soon after an end: the same alert goes on, counted
    escalated   worse than what was told last
    ongoing     a reminder, or a level that fell without reaching quiet
    resolved    `resolve_after` quiet windows in a row

A window that was judged `degraded` is no quiet one because it is looked at again: labels that come in between move a
figure within its error. It takes labels of most of its rows, twice as many as then, or all of them.

What is told follows from what was told last, not from what happened: an alert whose opening fell into the cooldown is
told when that is over if it is still on, and its end is not told if its beginning was not. Within `cooldown` a severity
is told once; an escalation and an end are told at once. All times are event time.

The ledger is the only memory. An entry "alert" is written before anything is sent and names the channels that must hear
it; an entry "alert_sent" tells what became of that at one channel (`registry/deliveries.py`). Between a kill and the
next pass a message is thus pending, never lost; it may arrive twice, with the same id. What has reached no channel, as
the process that wrote it had none, or none that answers, is for the channels of the next one (`unheard`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from registry.decisions import Diagnosis, Severity
from registry.deliveries import ALERT, ARRIVED, FAILED, by_message, meant, reached
from registry.ledger import Entry
from registry.schema import Frozen
from registry.task import Alerts

State: TypeAlias = Literal["opened", "ongoing", "escalated", "resolved", "reopened"]

_SAID = {"severity", "reasons", "version"}
_LEVELS: tuple[Severity, ...] = ("ok", "shifted", "faulty", "degraded")
_WORDS: dict[Severity, str] = {
    "ok": "all is well",
    "shifted": "the inputs moved",
    "faulty": "the data are broken",
    "degraded": "performance is degraded",
}
_SINCE: dict[State, str] = {
    "opened": "",
    "ongoing": ", still",
    "escalated": ", worse",
    "resolved": ", over",
    "reopened": ", again",
}


class Alert(Frozen):
    """An alert as it stood at the moment `at`. `key` is the same from opening to the last end, re-openings included.

    `severity` of one that is resolved is what it was until then. `reasons` and `diagnosis` are the newest decision's.
    """

    key: str
    severity: Severity
    state: State
    title: str
    reasons: tuple[str, ...]
    opened_at: datetime
    at: datetime
    version: str | None = None
    reopened: int = 0
    diagnosis: Diagnosis | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return self.state != "resolved"


@dataclass(frozen=True)
class News:
    """A change of an alert, and whether it is told to anybody."""

    alert: Alert
    told: bool


class Judged(Frozen):
    """What was decided about a window, by so many labels of so many rows that the version answered."""

    end: datetime
    severity: Severity
    reasons: tuple[str, ...]
    version: str | None = None
    labels: int = 0
    rows: int = 0
    diagnosis: Diagnosis | None = None

    def overrules(self, former: Judged) -> bool:
        """Whether it counts instead of a former decision on the same window."""
        if former.severity != "degraded" or self.severity == "degraded" or self.version != former.version:
            return True
        whole = self.labels >= self.rows and self.labels > former.labels
        return whole or (2 * self.labels >= self.rows and self.labels >= 2 * max(1, former.labels))


def news(task: str, spec: Alerts, former: Sequence[News], windows: Sequence[Judged], as_of: datetime) -> News | None:
    """What is new about a task's alert at `as_of`, or None.

    `former` is all that was written before, oldest first; `windows` are in time order, the last one the newest. A
    moment before that of the last news has none: what was told is not told anew when the past is judged again.
    """
    last = former[-1].alert if former else None
    if not windows or (last is not None and as_of < last.at):
        return None
    level, newest = _level(spec, windows), windows[-1]
    if last is None or not last.is_open:
        return None if _level(spec, windows[-1:]) == "ok" else _begin(task, spec, former, newest, as_of)
    if level == "ok":
        end = _changed(task, last, "resolved", last.severity, newest, as_of)
        return News(end, told=_heard(former) is not None)
    return _go_on(task, spec, former, level, newest, as_of)


def _level(spec: Alerts, windows: Sequence[Judged]) -> Severity:
    """The worst of the windows that count, `ok` when none reaches `least`."""
    worst = max((one.severity for one in windows[-spec.resolve_after :]), key=_LEVELS.index)
    return "ok" if _below(worst, spec.least) else worst


def _below(one: Severity, other: Severity) -> bool:
    return _LEVELS.index(one) < _LEVELS.index(other)


def _begin(task: str, spec: Alerts, former: Sequence[News], newest: Judged, as_of: datetime) -> News:
    told = _cooled(spec, former, newest.severity, as_of)
    last = former[-1].alert if former else None
    if last is not None and as_of - last.at <= spec.reopen_within:
        again = last.model_copy(update={"reopened": last.reopened + 1})
        return News(_changed(task, again, "reopened", newest.severity, newest, as_of), told)
    alert = Alert(
        key=f"{task}-{as_of:%Y%m%dT%H%M%S}",
        severity=newest.severity,
        state="opened",
        title=_title(task, "opened", newest.severity),
        reasons=newest.reasons,
        opened_at=as_of,
        at=as_of,
        version=newest.version,
        diagnosis=newest.diagnosis,
    )
    return News(alert, told)


def _go_on(
    task: str, spec: Alerts, former: Sequence[News], level: Severity, newest: Judged, as_of: datetime
) -> News | None:
    """News of an open alert that stays open. Nothing is told again on the word of a quiet window."""
    last, heard = former[-1].alert, _heard(former)
    if _below(last.severity, level) and (heard is None or _below(heard.severity, level)):
        return News(_changed(task, last, "escalated", level, newest, as_of), told=True)
    due = _below("ok", _level(spec, [newest])) and _cooled(spec, former, level, as_of)
    if heard is None and due:
        state: State = "reopened" if last.reopened else "opened"
        return News(_changed(task, last, state, level, newest, as_of), told=True)
    if heard is not None and due and spec.remind is not None and as_of - heard.at >= spec.remind:
        return News(_changed(task, last, "ongoing", level, newest, as_of), told=True)
    return None if level == last.severity else News(_changed(task, last, "ongoing", level, newest, as_of), told=False)


def _heard(former: Sequence[News]) -> Alert | None:
    """The open alert as it was told last, None when nobody was told that one is open."""
    told = next((one.alert for one in reversed(former) if one.told), None)
    return told if told is not None and told.is_open else None


def _cooled(spec: Alerts, former: Sequence[News], severity: Severity, as_of: datetime) -> bool:
    told = (one.alert.at for one in former if one.told and one.alert.is_open and one.alert.severity == severity)
    return all(as_of - at >= spec.cooldown for at in told)


def _changed(task: str, alert: Alert, state: State, severity: Severity, newest: Judged, as_of: datetime) -> Alert:
    changes = {"state": state, "severity": severity, "title": _title(task, state, severity), "at": as_of}
    told = {"reasons": newest.reasons, "version": newest.version, "diagnosis": newest.diagnosis}
    return alert.model_copy(update=changes | told)


def _title(task: str, state: State, severity: Severity) -> str:
    return f"{task}{_SINCE[state]}: {_WORDS[severity]}"


def judged(decisions: Iterable[Entry], as_of: datetime) -> list[Judged]:
    """The decision that counts on each window as known at `as_of`, in time order: the newest one, or the last that said
    `degraded` where nothing much has come in since. Decisions without a window say nothing."""
    found: dict[datetime, Judged] = {}
    for entry in decisions:
        if entry.at <= as_of and (window := entry.details.get("window")):
            told = entry.details.get("diagnosis")
            known = {"end": window["end"], "diagnosis": told, **entry.details.get("answered", {})}
            one = Judged.model_validate({**known, **entry.model_dump(include=_SAID)})
            if one.end not in found or one.overrules(found[one.end]):
                found[one.end] = one
    return [found[end] for end in sorted(found)]


def to_entry(task: str, one: News, channels: Sequence[str]) -> Entry:
    """The ledger's entry of a piece of news, not delivered yet to any of the channels."""
    alert = one.alert
    kept = {"key": alert.key, "title": alert.title, "opened_at": alert.opened_at, "reopened": alert.reopened}
    found = None if alert.diagnosis is None else alert.diagnosis.model_dump(mode="json", exclude_defaults=True)
    return Entry(
        task=task,
        kind=ALERT,
        at=alert.at,
        version=alert.version,
        severity=alert.severity,
        outcome=alert.state,
        reasons=alert.reasons,
        details={**kept, "diagnosis": found, "told": one.told, "channels": list(channels) if one.told else []},
    )


def from_entry(entry: Entry) -> News:
    """The news that `to_entry` wrote."""
    kept = {name: entry.details[name] for name in ("key", "title", "opened_at", "reopened")}
    kept["diagnosis"] = entry.details.get("diagnosis")  # entries of before have none
    known = {"at": entry.at, "version": entry.version, "severity": entry.severity, "state": entry.outcome}
    return News(Alert.model_validate({**kept, **known, "reasons": entry.reasons}), told=entry.details["told"])


def message_id(entry: Entry) -> str:
    """The id of a message, the same at every attempt to deliver it."""
    return f"{entry.details['key']}/{entry.id}"


def pending(alerts: Sequence[Entry], sent: Iterable[Entry], channel: str) -> list[Entry]:
    """The entries that this channel was to hear and has not, oldest first: ends must not overtake beginnings."""
    its = by_message(sent)
    arrived = {of for of, some in its.items() for one in some if _arrived(one, channel)}
    return [one for one in alerts if channel in meant(one, its.get(one.id, ())) and one.id not in arrived]


def _arrived(one: Entry, channel: str) -> bool:
    return one.outcome == ARRIVED and one.details["channel"] == channel


def unheard(messages: Sequence[Entry], sent: Iterable[Entry], channel: str) -> list[Entry]:
    """The entries, alerts and notices, that have reached nobody and that this channel is to hear now, though it was not
    named. Of alerts the newest that was told, if it goes on, or if it ends what this channel was to hear: of one that
    is over nobody needs to hear that it was."""
    told, its = [one for one in messages if one.details["told"]], by_message(sent)
    last = next((one for one in reversed(told) if one.kind == ALERT), None)
    concerned = {one.details["key"] for one in told if one is not last and channel in meant(one, its.get(one.id, ()))}
    if last is not None and last.outcome == "resolved" and last.details["key"] not in concerned:
        told.remove(last)
    found = [one for one in told if one.kind != ALERT or one is last]
    return [one for one in found if channel not in meant(one, mine := its.get(one.id, [])) and not reached(mine)]


def failure(sent: Iterable[Entry], of: Entry, channel: str) -> str | None:
    """Why this entry did not reach this channel at the last attempt that was written down; None without one."""
    mine = [one for one in sent if one.details["of"] == of.id and one.details["channel"] == channel]
    return mine[-1].reasons[0] if mine and mine[-1].outcome == FAILED else None
