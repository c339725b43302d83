"""What it costs that a champion follows, and what it brings, by the ledger."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from monitor.remedy import NEWEST, Upkeep
from registry.ledger import Ledger

_STEP, _JUDGED = frozenset({"follow"}), frozenset({"gate", "proof", "second_look"})
_PROMOTED = frozenset({"promotion"})


def upkeep(ledger: Ledger, versions: Collection[str], as_of: datetime) -> Upkeep:
    """Of a champion whose versions these are: the cost of a window by its newest steps, the gain by which it was judged
    when it was promoted, and when that was."""
    entries = ledger.read(kinds=_STEP, timely=True, until=as_of, last=NEWEST)
    steps = [one.details for one in entries if one.version in versions]
    windows = sum(one.get("windows", 1) for one in steps)
    cost = sum(one.get("cpu", 0.0) for one in steps) / max(1, windows)
    judged = [one for one in ledger.read(kinds=_JUDGED, until=as_of) if one.version in versions]
    checks = [check for one in judged for check in one.details.get("verdict", {}).get("checks", [])]
    gains = [check["value"] for check in checks if check["name"] == "gain"]  # of too few rows their number alone
    promoted = [one.at for one in ledger.read(kinds=_PROMOTED, until=as_of) if one.version in versions]
    return Upkeep(cost, gains[-1] if gains else None, max(promoted, default=datetime.min))
