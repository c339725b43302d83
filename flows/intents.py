"""Intents: what a flow has set out to do, in the ledger before it begins, so that a killed flow is completed.

An intent is an entry of kind `intent`; its end is an entry of kind `improvement` or `search` that carries its id. In
between, each stage leaves its own entry (`remedy`, `gate`, `promotion`) with the id. Whoever comes next finds the
open intent and goes on after the last stage that was finished, with the rows and the moment it began with.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from registry.ledger import Entry, Ledger

_ENDS = {"search": "search", "improve": "improvement"}
"""The kind of entry that ends an intent, by what is intended."""


@dataclass(frozen=True)
class Intent:
    """What was set out to do, `at` which moment of event time, and with which particulars; `entry` is the ledger's
    number of it, than which those of its stages are higher."""

    id: str
    what: str
    at: datetime
    details: Mapping[str, Any]
    entry: int = 0


def _of(entry: Entry) -> Intent:
    return Intent(entry.details["intent"], str(entry.outcome), entry.at, entry.details, entry.id or 0)


class Intents:
    """The intents of a task, read from and written to its ledger."""

    def __init__(self, ledger: Ledger, task: str) -> None:
        self._ledger = ledger
        self._task = task

    def open(self, what: str) -> Intent | None:
        """The newest intent of this kind, if it has no end yet."""
        begun = self._ledger.read(kinds={"intent"}, outcome=what, last=1)
        if not begun:
            return None
        found = _of(begun[-1])
        return None if self.stage(found, _ENDS[what]) else found

    def begin(self, what: str, at: datetime, **details: Any) -> Intent:
        """Write a new intent."""
        intent = Intent(uuid.uuid4().hex[:12], what, at, details)
        return replace(intent, entry=self.write(intent, "intent", outcome=what, details=details).id or 0)

    def stage(self, intent: Intent, kind: str, **details: Any) -> Entry | None:
        """The newest entry that a stage of this intent left, with these details, or None."""
        wanted = {"intent": intent.id, **details}.items()
        later = self._ledger.read(kinds={kind}, since=intent.entry)
        found = [entry for entry in later if wanted <= entry.details.items()]
        return found[-1] if found else None

    def write(self, intent: Intent, kind: str, *, details: Mapping[str, Any] | None = None, **fields: Any) -> Entry:
        """Write the entry of a stage, with the intent's id, at its moment if no other is given."""
        marked = {**(details or {}), "intent": intent.id}
        return self._ledger.write(Entry(task=self._task, kind=kind, details=marked, **{"at": intent.at, **fields}))

    def write_once(self, intent: Intent, kind: str, **fields: Any) -> Entry:
        """Write the entry of a stage unless it is there already."""
        return self.stage(intent, kind) or self.write(intent, kind, **fields)

    def end(self, intent: Intent, **fields: Any) -> Entry:
        """Write the entry that ends an intent."""
        return self.write(intent, _ENDS[intent.what], **fields)
