"""The stages `alert` and `inform`: what a pass found, and what was done then, is told to the channels, and by the
Prefect event `everfit.alert`.

What is told, and when, is decided in `monitor/alerts.py`, and of notices in `notices.py`; this writes it down, sends
it, and writes what became of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from flows.channels import Channel, Message, channels
from flows.notices import note_notices, still_news
from flows.stages import in_run, say, stage
from flows.workplace import Workplace
from monitor.alerts import News, failure, from_entry, judged, message_id, news, pending, to_entry, unheard
from registry.deliveries import ALERT, ARRIVED, DUE, EVENTS, FAILED, NOTICE, SENT
from registry.errors import BusyError
from registry.ledger import Entry
from registry.locks import exclusive

if TYPE_CHECKING:
    from registry.ledger import Ledger

EVENT = "everfit.alert"
"""The event of every message; its resource is `everfit.task.NAME`."""

_ALERTS = 200
"""Entries about alerts that are looked back at."""

_DECISIONS = 500


class Events:
    """Prefect's events as a channel, for automations. Its id lets a receiver know an event that comes twice."""

    name = EVENTS

    def send(self, message: Message) -> str | None:
        """Prefect sends it in its own time and keeps quiet about failures."""
        from prefect.events import emit_event

        payload = message.model_dump(mode="json")
        resource = {"prefect.resource.id": f"everfit.task.{message.task}", "task": message.task}
        emit_event(event=EVENT, resource=resource, payload=payload, id=uuid5(NAMESPACE_URL, f"everfit:{message.id}"))
        return None


@stage
def alert(place: Workplace, as_of: datetime) -> None:
    """Write down what is new about the task's alert, and deliver what is pending, notices too. Raises `StoreError`.

    A channel that fails is written down and tried again at the next pass. When another pass is at it, this one leaves
    it to that.
    """

    def work(known: list[Channel]) -> None:
        note(place, as_of, known)
        note_notices(place, [one.name for one in known])
        deliver(place, as_of, known)

    _alone(place, work)


@stage
def inform(place: Workplace, as_of: datetime) -> None:
    """Tell of what was done since: what waits for a person does not wait for the next pass. Raises `StoreError`."""

    def work(known: list[Channel]) -> None:
        if note_notices(place, [one.name for one in known]):
            deliver(place, as_of, known)

    _alone(place, work)


def _alone(place: Workplace, work: Callable[[list[Channel]], None]) -> None:
    """Do it with the channels, unless another pass is at it."""
    known: list[Channel] = [*channels(place.settings), *([Events()] if in_run() else [])]
    try:
        with exclusive(place.lock.with_name(f"alerts-{place.task.name}.lock"), f"the alerts of {place.task.name}"):
            work(known)
    except BusyError as error:
        say(f"no alerts now: {error}")


def note(place: Workplace, as_of: datetime, known: Iterable[Channel]) -> News | None:
    """Write down what is new, for these channels to hear; nothing is sent yet."""
    former = [from_entry(entry) for entry in place.ledger.read(kinds={ALERT}, last=_ALERTS)]
    decisions = place.ledger.read(kinds={"decision"}, last=_DECISIONS)
    found = news(place.task.name, place.task.alerts, former, judged(decisions, as_of), as_of)
    if found is not None:
        place.ledger.write(to_entry(place.task.name, found, [one.name for one in known]))
        say(f"alert {found.alert.state}: {found.alert.title}")
    return found


def deliver(place: Workplace, as_of: datetime, known: Iterable[Channel]) -> None:
    """Send each channel what it has not heard, oldest first, and stop there at the first failure of a pass."""
    told, sent = written(place.ledger, (ALERT, NOTICE))
    channels = list(known)
    sent = [*sent, *_taken_over(place, as_of, told, sent, channels)]
    for channel in channels:
        for entry in pending(told, sent, channel.name):
            if not _deliver(place, entry, channel, failure(sent, entry, channel.name), as_of):
                break


def written(ledger: Ledger, kinds: Collection[str] = (ALERT,)) -> tuple[list[Entry], list[Entry]]:
    """The newest entries about alerts, or of other kinds that are told, and all about their delivery; oldest first."""
    told = ledger.read(kinds=kinds, last=_ALERTS)
    return told, ledger.read(kinds={SENT}, since=told[0].id or 0) if told else []


def _deliver(place: Workplace, entry: Entry, channel: Channel, before: str | None, as_of: datetime) -> bool:
    """Whether the channel has heard it now. A failure like the last one is not written again: a receiver that is down
    for a week would fill the ledger."""
    began, message = time.monotonic(), _message(place, entry)
    failed = channel.send(message)
    if failed:
        say(f"alert {message.id} did not reach {channel.name}: {failed}; the next pass tries again")
    if failed is None or failed != before:
        place.ledger.write(
            _sent(entry, channel, as_of, FAILED if failed else ARRIVED).model_copy(
                update={"reasons": (failed,) if failed else (), "seconds": time.monotonic() - began}
            )
        )
    return failed is None


def _taken_over(
    place: Workplace, as_of: datetime, told: Sequence[Entry], sent: Sequence[Entry], known: Iterable[Channel]
) -> list[Entry]:
    """That these channels are to hear what has reached nobody, too, in the ledger before it is sent."""
    found = [(one, channel) for channel in known for one in unheard(told, sent, channel.name)]
    return [
        place.ledger.write(_sent(one, channel, as_of, DUE))
        for one, channel in found
        if one.kind == ALERT or still_news(place, one)
    ]


def _sent(entry: Entry, channel: Channel, at: datetime, outcome: str) -> Entry:
    details = {"of": entry.id, "channel": channel.name}
    told = {"version": entry.version, "severity": entry.severity, "outcome": outcome, "details": details}
    return Entry.model_validate({"task": entry.task, "kind": SENT, "at": at, **told})


def _message(place: Workplace, entry: Entry) -> Message:
    if entry.kind == NOTICE:
        return Message.of_notice(entry, message_id(entry), place.page)
    return Message.of(from_entry(entry).alert, place.task.name, message_id(entry), place.page)


def trial(place: Workplace, as_of: datetime) -> list[tuple[str, str | None]]:
    """Send a message to every channel to see whether it arrives: each channel's name, and why it failed if it did.

    Nothing is written: it is no alert.
    """
    message = Message(
        id=f"{place.task.name}-test-{as_of:%Y%m%dT%H%M%S}",
        key=f"{place.task.name}-test",
        task=place.task.name,
        severity="ok",
        state="test",
        title=f"{place.task.name}: a test of this channel",
        reasons=("nothing has happened, somebody wanted to know whether this arrives",),
        version=None,
        as_of=as_of,
        opened_at=as_of,
        reopened=0,
        link=place.page,
    )
    return [(channel.name, channel.send(message)) for channel in channels(place.settings)]
