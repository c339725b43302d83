"""The change of champion: one at a time a task on this machine, whoever makes it, a flow or a person.

Who has worked on a new champion for long hands over only where the old one is still the champion that it was proven
against, and nobody has promoted or rolled back meanwhile: that is looked at, the aliases moved and the ledger told
under one lock, so that `previous` is who was champion, and the newest entry is what the aliases say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.publishing import alias_of
from flows.workplace import Workplace
from registry.decisions import ROLLBACK
from registry.errors import StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.moves import CHAMPION

ACTS = frozenset({"promotion", ROLLBACK})
"""The kinds of entries that tell of a change of champion."""
BY_HAND = "by hand"
"""The reason of one that a person has made without a gate."""

PATIENCE_SECONDS = 60.0
"""How long one change waits for another: that of a step registers its version under the lock."""


@contextmanager
def handing_over(place: Workplace) -> Iterator[None]:
    """Hold the lock under which the champion changes. Raises `BusyError` where another change goes on for too long."""
    name = place.task.name
    path = place.lock.with_name(f"champion-{name}.lock")
    with exclusive(path, f"a change of champion of task {name}", patience=PATIENCE_SECONDS):
        yield


def newest_act(place: Workplace) -> int:
    """The id of the newest entry that tells of a change of champion; 0 where none does."""
    acts = place.ledger.read(kinds=ACTS, last=1)
    return (acts[-1].id or 0) if acts else 0


def chosen(place: Workplace) -> Entry | None:
    """The promotion or roll-back by hand, or the roll-back after a bake time, that the champion came by, if by one: on
    the windows of before somebody has decided, or found what a gate had chosen to be worse. That a champion which
    followed has stopped (`follows` in its details) is none."""
    acts = place.ledger.read(kinds=ACTS, last=1)
    if not acts or (acts[-1].reasons != (BY_HAND,) and acts[-1].kind != ROLLBACK):
        return None
    return None if "follows" in acts[-1].details else acts[-1]


@dataclass(frozen=True)
class Standing:
    """Who was champion at a moment, and the newest act of then."""

    champion: str | None
    act: int

    @classmethod
    def now(cls, place: Workplace) -> Standing:
        """How things stand now."""
        return cls(alias_of(place, CHAMPION), newest_act(place))

    def changed(self, place: Workplace) -> str:
        """What has changed the champion since, in words; empty where nothing has."""
        if acts := place.ledger.read(kinds=ACTS, since=self.act, last=1):
            return _told(acts[-1])
        now = alias_of(place, CHAMPION)
        return "" if now == self.champion else f"version {now or 'none'} is the champion instead of {self.champion}"


def require_unchanged(place: Workplace, version: str, former: str, since: int | None) -> None:
    """Raise `StateError` where `version`, proved against `former`, would overrule somebody: who has changed the
    champion, even if it is the old one again by an entry later than `since` (None: whatever there was)."""
    now = alias_of(place, CHAMPION)
    if now not in (former, version):
        raise StateError(f"version {version} was proved against {former}, but {now} is the champion now")
    for one in () if since is None else place.ledger.read(kinds=ACTS, since=since):
        if one.version != version:
            raise StateError(f"version {version} was proved, but since then {_told(one)}")


def _told(act: Entry) -> str:
    by = f" {BY_HAND}" if act.reasons == (BY_HAND,) else ""
    return f"a {act.kind}{by} chose version {act.version}"
