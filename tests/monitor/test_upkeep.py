"""What following costs and brings, from a real ledger."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from monitor.remedy import NEWEST, Upkeep
from monitor.upkeep import upkeep
from registry.database import open_engine
from registry.decisions import Check, Outcome, Verdict
from registry.ledger import Entry, Ledger

MOMENT = datetime(2024, 3, 1)


@pytest.mark.parametrize(("judged", "gain"), [("gain", 0.03), ("rows", None)])
def test_what_a_gate_counted_is_no_gain(tmp_path: Path, judged: str, gain: float | None) -> None:
    """One that was held for too few rows, and promoted by hand, has no gain that is known."""
    ledger = Ledger(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade")
    check = Check(name=judged, passed=False, detail="so", value=120.0 if gain is None else gain)
    size = Check(name="size limit", passed=True, detail="so", value=9.0)
    verdict = Verdict(outcome=Outcome.HOLD, reasons=("so",), checks=(check, size)).model_dump(mode="json")
    for kind, details in (("gate", {"verdict": verdict}), ("proof", {}), ("follow", {"cpu": 6.0, "windows": 3})):
        ledger.write(Entry(task="handmade", kind=kind, at=MOMENT, version="2", details=details))
    assert upkeep(ledger, ("2",), MOMENT) == Upkeep(2.0, gain)


def test_what_was_known_then_is_found_after_many_later_steps(tmp_path: Path) -> None:
    """As when an older time is replayed after a newer one."""
    ledger = Ledger(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade")
    for day in range(NEWEST + 1):
        at, cpu = MOMENT + timedelta(days=day), 2.0 if day == 0 else 8.0
        ledger.write(Entry(task="handmade", kind="promotion" if day == 1 else "proof", at=at, version="2"))
        ledger.write(Entry(task="handmade", kind="follow", at=at, version="2", details={"cpu": cpu}))
    assert upkeep(ledger, ("2",), MOMENT) == Upkeep(2.0)
    later = upkeep(ledger, ("2",), MOMENT + timedelta(days=NEWEST))
    assert later == Upkeep(8.0, None, MOMENT + timedelta(days=1))
