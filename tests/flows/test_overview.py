"""What `everfit status` says of a task."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flows.overview import task_lines
from flows.replay import Judged, told
from flows.status_cards import cards
from flows.status_snapshot import read
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.ledger import Entry

START = datetime(2024, 3, 1)


def decided(place: Workplace, day: int, severity: str, remedy: str = "none") -> None:
    """A decision on the week from this day of March 2024 on."""
    start, end = START + timedelta(days=day), START + timedelta(days=day + 7)
    details = {"window": {"index": 0, "start": start.isoformat(), "end": end.isoformat()}}
    entry = Entry(task="handmade", kind="decision", at=end, version="1", severity=severity, outcome=remedy)
    place.ledger.write(entry.model_copy(update={"reasons": (f"day {day}",), "details": details}))


def test_a_task_that_leaves_the_deciding_to_a_person_says_so(place: Workplace) -> None:
    decided(place, 7, "degraded", "research")
    for mode, said in (
        ("observe", "nothing is done about them"),
        ("approve", "everfit approve handmade"),
        ("auto", ""),
    ):
        asked = replace(place, task=place.task.model_copy(update={"mode": mode}))
        lines, page = [line for line in task_lines(asked) if "mode " in line], cards(read(asked))
        assert [f"mode {mode}: " in line and said in line for line in lines] == ([True] if said else [])
        assert (f"mode {mode}; remedy research" in page) == bool(said)


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


def test_what_was_done_about_a_window_is_told_as_a_replay_tells_it(place: Workplace) -> None:
    """Whatever was decided on it: what was looked at without a decision, what ended otherwise, what was not run; of the
    newest one something may yet come."""
    for week in range(7):
        decided(place, 7 * week, "shifted", "research" if week > 3 else "none")
    at = [START + timedelta(days=7 * week) for week in range(1, 8)]
    tried = {"tried": [{"remedy": "fine_tune", "version": "3"}], "champion": "1"}
    entries: list[dict[str, Any]] = [
        {"kind": "second_look", "at": at[0], "outcome": "hold"},
        {"kind": "follow", "at": at[1], "outcome": "continued"},
        {"kind": "no_step", "at": at[2], "reasons": ("one class",)},
        {"kind": "improvement", "at": at[4], "outcome": "hold", "version": "3", "details": tried},
    ]
    for one in entries:
        place.ledger.write(Entry(task="handmade", **one))
    played = Judged(index=0, begin=START, end=at[0], rows=9, version="1", champion="1", remedy="none")
    replayed: list[dict[str, Any]] = [
        {"by": "second look", "outcome": "hold"},
        {"stepped": True},
        {"no_step": "one class"},
        {},
        {"remedy": "research", "by": "fine_tune", "outcome": "hold"},
        {"remedy": "research"},
    ]
    lines = task_lines(place)
    shown = [line.partition(" shifted   ")[2] for line in lines if line.startswith("  2024-")]
    *replay_lines, idle = [told(played.model_copy(update=one)).partition(" s  ")[2] for one in replayed]
    assert [*replay_lines[:3], "none", *replay_lines[4:], idle, "research"] == shown
    assert replay_lines == [
        "second look: hold",
        "a step of follow",
        "no step of follow: one class",
        "",
        "fine_tune: hold",
    ]
    assert idle == "research: decided, not run"
    assert lines[0].endswith("remedy: research")
    for hour in range(150):  # an older time that is replayed is written later, and takes nothing's place
        place.ledger.write(Entry(task="handmade", kind="second_look", at=START - timedelta(hours=hour), outcome="hold"))
    assert [line for line in task_lines(place) if line.startswith("  2024-")] == [
        line for line in lines if line.startswith("  2024-")
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
