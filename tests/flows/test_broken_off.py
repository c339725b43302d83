"""An improvement whose process has gone: found by the next pass, told as a failure, and done with once it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

import flows.broken_off
from flows.broken_off import KIND, broken_off, note_broken_off
from flows.improve import improve, one_at_a_time
from flows.intents import Intents
from flows.overview import task_lines
from flows.watch import watch
from flows.workplace import Workplace
from registry.ledger import Entry
from tests.flows.test_alerting import Receiver

AT = datetime(2024, 3, 3)

_DIES = f"""
import os, signal
from datetime import datetime
import flows.improve
flows.improve.rows = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
flows.improve.improve.fn("handmade", as_of=datetime({AT.year}, {AT.month}, {AT.day}), remedies="fine_tune,research")
"""


def improve_and_die() -> None:
    """Begin an improvement in a process that is killed amid it."""
    done = subprocess.run([sys.executable, "-c", _DIES], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def found(place: Workplace) -> list[Entry]:
    return place.ledger.read(kinds={KIND})


def test_a_killed_improvement_is_told_by_the_next_pass_once_and_ends_when_it_is_completed(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    improve_and_die()
    said = (
        "as of 2024-03-03 00:00, it ended without a result: killed, out of memory, or by a fault; of fine_tune, "
        "research done by then: none"
    )
    with Receiver() as receiver:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("EVERFIT_ALERT_URLS", f"http://127.0.0.1:{receiver.port}/")
        for _ in range(2):
            watch.fn("handmade", repair=False)
    (heard,) = receiver.messages
    assert (heard["state"], heard["title"]) == ("failure", "handmade: an improvement was broken off")
    assert heard["reasons"] == [said]
    assert heard["next"] == "everfit improve handmade (completes it)"
    (entry,) = found(place)
    assert (entry.outcome, entry.version) == ("broken off", "1")
    lines = task_lines(place)
    where = lines.index("  an improvement was broken off, and has no end yet: everfit improve handmade")
    assert lines[where + 1] == f"    {said}"

    assert improve.fn("handmade")["outcome"] == "refused"  # no rows to judge by
    assert broken_off(place) is None
    assert "broken off" not in "".join(task_lines(place))


def test_nobody_who_is_at_work_is_called_broken_off(place: Workplace) -> None:
    with one_at_a_time(place):
        Intents(place.ledger, "handmade").begin("improve", AT, champion="1")
        note_broken_off(place, AT)
    assert found(place) == []


def test_one_that_is_never_completed_is_told_again_after_a_day(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Intents(place.ledger, "handmade").begin("improve", AT, champion="1")
    for _ in range(2):
        note_broken_off(place, AT)
    assert len(found(place)) == 1
    monkeypatch.setattr(flows.broken_off, "AGAIN", timedelta())
    note_broken_off(place, AT)
    assert len(found(place)) == 2
