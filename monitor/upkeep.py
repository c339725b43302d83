"""What it costs that a champion follows, and what it brings, by the ledger."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from monitor.remedy import NEWEST, Upkeep
from registry.ledger import Ledger

_STEP, _JUDGED = frozenset({"follow"}), frozenset({"gate", "proof", "second_look"})


def upkeep(ledger: Ledger, versions: Collection[str], as_of: datetime) -> Upkeep:
    """Of a champion whose versions these are: the cost of a window by its newest steps, and the gain by which it was
    judged when it was promoted."""
    entries = ledger.read(kinds=_STEP, last=NEWEST)
    steps = [one.details for one in entries if one.version in versions and one.at <= as_of]
    windows = sum(one.get("windows", 1) for one in steps)
    cost = sum(one.get("cpu", 0.0) for one in steps) / max(1, windows)
    judged = [one for one in ledger.read(kinds=_JUDGED) if one.version in versions and one.at <= as_of]
    checks = [one for told in judged for one in told.details.get("verdict", {}).get("checks", [])]
    checks = [one for one in checks if one["name"] == "gain"]  # too few rows to judge by have no gain
    return Upkeep(cost, checks[-1]["value"] if checks else None)
