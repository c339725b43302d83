"""What the ledger says of messages on their way: which channels are to hear one, which have, which cannot be reached.

A message is an entry `alert` or `notice`, which names the channels of the process that wrote it. An entry `alert_sent`
tells what became of it at one channel; or that this one is to hear it too (`DUE`): what was written where there were no
channels, or has reached none of them, is made up for by whoever comes next and has some.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.ledger import Entry

ALERT, NOTICE, SENT = "alert", "notice", "alert_sent"
ARRIVED, FAILED, DUE = "sent", "failed", "due"
EVENTS = "prefect"
"""The channel of Prefect's events, which nobody need have heard."""


@dataclass(frozen=True)
class Outage:
    """A channel whose last delivery has failed: since when (wall clock), and why at the last attempt written down."""

    channel: str
    since: datetime
    why: str


@dataclass
class Deliveries:
    """How each channel stands, by the entries about messages and their delivery, taken in their order."""

    current: set[str] = field(default_factory=set)
    """The channels that were to hear the newest message: one that was taken out of the settings is none of them."""
    heard: dict[str, Outage | None] = field(default_factory=dict)
    """By each channel that was sent something."""
    _newest: int | None = None

    def take(self, entry: Entry) -> None:
        """Take in an entry of one of these kinds."""
        if entry.kind != SENT:
            if names := entry.details.get("channels"):
                self.current, self._newest = set(names), entry.id
            return
        channel, of = entry.details["channel"], entry.details["of"]
        if entry.outcome == DUE:
            self.current = {*(self.current if of == self._newest else ()), channel}
            self._newest = of
        elif entry.outcome == FAILED:
            before, why = self.heard.get(channel), "; ".join(entry.reasons)
            since = entry.written or entry.at
            self.heard[channel] = Outage(channel, since, why) if before is None else replace(before, why=why)
        else:
            self.heard[channel] = None

    def stands(self) -> dict[str, Outage | None]:
        """The channels of now by name: what keeps each from hearing, None where nothing does."""
        return {name: outage for name, outage in self.heard.items() if name in self.current}


def outages(messages: Sequence[Entry], sent: Sequence[Entry]) -> list[Outage]:
    """The channels that cannot be reached, by these messages and what became of them."""
    found = Deliveries()
    for entry in sorted([*messages, *sent], key=lambda one: one.id or 0):
        found.take(entry)
    return [outage for outage in found.stands().values() if outage is not None]


def by_message(sent: Iterable[Entry]) -> dict[int | None, list[Entry]]:
    """What became of messages, by the number of each."""
    found: dict[int | None, list[Entry]] = defaultdict(list)
    for one in sent:
        found[one.details["of"]].append(one)
    return found


def meant(message: Entry, its: Iterable[Entry]) -> set[str]:
    """The channels that are to hear a message, of which these entries tell."""
    return {*message.details["channels"], *(one.details["channel"] for one in its)}


def reached(its: Iterable[Entry]) -> bool:
    """Whether a message of which these entries tell has reached a channel that somebody reads."""
    return any(one.outcome == ARRIVED and one.details["channel"] != EVENTS for one in its)
