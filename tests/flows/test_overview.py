"""What `everfit status` says of a task."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from flows.overview import task_lines
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.ledger import Entry

START = datetime(2024, 3, 1)


def decided(place: Workplace, day: int, severity: str) -> None:
    """A decision on the week from this day of March 2024 on."""
    start, end = START + timedelta(days=day), START + timedelta(days=day + 7)
    details = {"window": {"index": 0, "start": start.isoformat(), "end": end.isoformat()}}
    entry = Entry(task="handmade", kind="decision", at=end, version="1", severity=severity, outcome="none")
    place.ledger.write(entry.model_copy(update={"reasons": (f"day {day}",), "details": details}))


def test_the_newest_window_comes_first_and_its_beginning_is_its_name(place: Workplace) -> None:
    """By the data's time: what a replay of older rows decided is written later."""
    for day, severity in ((7, "ok"), (14, "shifted"), (0, "degraded")):
        decided(place, day, severity)
    lines = task_lines(place)
    who = "handmade: version 1 is the champion"
    assert lines[0] == f"{who}, shifted in the window from 2024-03-15 00:00 (as of 2024-03-22 00:00), remedy: none"
    assert lines[1] == "    day 14"
    assert lines[2:6] == [
        "  window from       judged as of      version  severity  remedy",
        "  2024-03-01 00:00  2024-03-08 00:00  1        degraded  none",
        "  2024-03-08 00:00  2024-03-15 00:00  1        ok        none",
        "  2024-03-15 00:00  2024-03-22 00:00  1        shifted   none",
    ]


def test_a_challenger_is_told_with_its_maker_and_how_it_stands(place: Workplace, tmp_path: Path) -> None:
    """One that a second search has found, that a gate has held, that answers a share; and that it is gone."""
    version = place.versions.publish(ModelBundle.load(tmp_path / "bundle"))
    place.versions.set("handmade", "challenger", version)
    said = "  version 2 is the challenger, found by a search: no gate has judged it, it answers no request; "
    how = "to have it as champion: everfit promote handmade 2"
    assert said + how in task_lines(place)
    made = Entry(task="handmade", kind="remedy", at=START, version=version, details={"remedy": "fine_tune"})
    place.ledger.write(made)
    place.ledger.write(made.model_copy(update={"kind": "gate", "outcome": "hold"}))
    place.versions.set_canary("handmade", version, 0.1)
    said = "  version 2 is the challenger, made by fine_tune: the gate said hold, it answers 10% of the requests; "
    assert said + how in task_lines(place)
    place.versions.promote("handmade", version)
    assert "is the challenger" not in "\n".join(task_lines(place))
