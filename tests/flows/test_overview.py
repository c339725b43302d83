"""What `everfit status` says of a task."""

from __future__ import annotations

from datetime import datetime, timedelta

from flows.overview import task_lines
from flows.workplace import Workplace
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
