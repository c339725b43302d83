"""The end of a canary: a proven challenger that has answered its share for so many windows is promoted, or let go.

Champion and canary are compared on all labelled rows since it began, whichever of them answered. It is let go where it
is surely worse, and promoted otherwise, labels or none: the gate has shown already what there was to show. Its bake
time comes after that. While the data are broken (the newest decision is `faulty`) it goes on: they show nothing. An end
that a kill cut short is completed by whoever comes next: a promotion is told once the aliases have moved, a withdrawal
before they do.

Which windows are its own is `bake.own_windows`'s matter.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from flows.bake import compared, is_worse, own_windows
from flows.publishing import alias_of
from flows.rollout import KIND, PROMOTED, WITHDRAWN, canary_out, promote, write
from flows.stages import say, stage
from flows.workplace import Workplace
from registry.decisions import Outcome
from registry.errors import InputError, StateError
from registry.ledger import Entry
from registry.locks import exclusive
from registry.plurals import counted


def keep_canary(place: Workplace, as_of: datetime) -> dict[str, Any] | None:
    """End the roll-out of a canary whose windows have passed.

    None when there is none. Otherwise what `improve` answers; the outcome is promote, reject for a canary that was let
    go, or hold while it goes on.
    """
    try:
        with exclusive(place.lock, f"the canary of task {place.task.name}"):
            if (let_go := _cut_short(place)) is not None:
                return _let_go(place, let_go)
            begun = canary_out(place)
            return None if begun is None else _looked_at(place, begun, as_of)
    except (StateError, InputError) as error:
        say(f"no look at the canary now: {error}")
        return None


def canarys(look: dict[str, Any] | None) -> dict[str, Any] | None:
    """A look, if it was at a canary: others hold too, and mean something else by it."""
    return look if look is not None and look.get("by") == KIND else None


def is_out(look: dict[str, Any] | None) -> bool:
    """Whether a canary goes on answering."""
    return (found := canarys(look)) is not None and found["outcome"] == Outcome.HOLD.value


@stage
def _looked_at(place: Workplace, begun: Entry, as_of: datetime) -> dict[str, Any]:
    began, version, former = time.monotonic(), str(begun.version), str(begun.details["previous"])
    cut_short = alias_of(place, "champion") == version
    passed = own_windows(place, begun)
    of = counted(begun.details["windows"], "window")
    said = f"version {version} answers a share since {begun.at}: {len(passed)} of {of}"
    if len(passed) < begun.details["windows"] and not cut_short:
        return _answer(Outcome.HOLD, version, former, said)
    if not cut_short and (broken := _broken(place)) is not None:
        said = f"{said}, and the data are broken: nothing is promoted on them ({broken})"
        say(said)
        return _answer(Outcome.HOLD, version, former, said)
    error, least = 1 - place.task.gate.confidence, place.task.gate.min_rows
    found = None if cut_short else compared(place, begun, former, as_of, error=error, least=least)
    verdict, rows = found or (None, 0)
    reason = verdict.checks[0].detail if verdict else "not enough labelled rows to compare them again"
    reason = f"canary against version {former}: {reason}"
    details = {"previous": former, "rows": rows}
    if verdict is not None and is_worse(verdict):
        spent = time.monotonic() - began
        return _let_go(place, write(place, KIND, WITHDRAWN, version, (reason,), as_of, details, spent))
    promote(place, version, former, (reason, *begun.reasons), as_of)
    place.versions.set_canary(place.task.name, version, 0)
    seconds = time.monotonic() - began
    write(place, KIND, PROMOTED, version, (reason,), as_of, details, seconds)
    say(f"version {version}, a canary, is {PROMOTED}: {reason}")
    return _answer(Outcome.PROMOTE, version, former, reason, seconds)


def _cut_short(place: Workplace) -> Entry | None:
    """The end of a canary that was told to be let go, and answers its share still."""
    entries = place.ledger.read(kinds={KIND}, last=1)
    if not entries or entries[-1].outcome != WITHDRAWN or place.task.mode == "observe":
        return None
    return entries[-1] if alias_of(place, "challenger") == entries[-1].version else None


def _let_go(place: Workplace, end: Entry) -> dict[str, Any]:
    """Let a canary answer no more. May be done twice with the same end."""
    version, (reason, *_) = str(end.version), end.reasons
    place.versions.set_canary(place.task.name, version, 0)
    place.versions.unset(place.task.name, "challenger")
    say(f"version {version}, a canary, is {WITHDRAWN}: {reason}")
    return _answer(Outcome.REJECT, version, str(end.details["previous"]), reason, end.seconds)


def _broken(place: Workplace) -> str | None:
    """Why the newest decision calls the data broken, if it does."""
    decided = place.ledger.read(kinds={"decision"}, last=1)
    return "; ".join(decided[-1].reasons) if decided and decided[-1].severity == "faulty" else None


def _answer(outcome: Outcome, version: str, champion: str, reason: str, seconds: float = 0.0) -> dict[str, Any]:
    return {
        "by": KIND,
        "outcome": outcome.value,
        "version": version,
        "champion": champion,
        "reasons": [reason],
        "seconds": seconds,
    }
