"""Notices on their way to a real receiver: each told once, of what is true, to those who asked for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.alerting import alert, inform
from flows.approval import ask
from flows.cli import main
from flows.improve import improve
from flows.lifecycle import lifecycle
from flows.notices import told_of
from flows.workplace import Workplace, register_task
from registry.deliveries import NOTICE
from registry.ledger import Entry
from registry.task import Topic
from tests.flows.conftest import fill
from tests.flows.test_alerting import START, WEEK, Receiver, decide, die_while_sending, told_to
from tests.flows.test_bake import AS_OF, promote, week
from tests.handmade import make_bundle, make_frame


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Where the environment says that alerts go."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("flows.channels.PAUSES", (0.01, 0.01))
    with Receiver() as made:
        monkeypatch.setenv("EVERFIT_ALERT_URLS", url(made))
        yield made


def url(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/"


@pytest.fixture
def told(place: Workplace, receiver: Receiver) -> Workplace:
    """The workplace whose news the receiver hears."""
    return told_to(place, url(receiver), "the-key")


def write(place: Workplace, kind: str, outcome: str, at: datetime = START, **details: object) -> Entry:
    entry = Entry(task="handmade", kind=kind, at=at, version="2", outcome=outcome, reasons=("why",), details=details)
    return place.ledger.write(entry)


def question(place: Workplace, folder: Path) -> str:
    """A challenger that waits for a person."""
    version = place.versions.publish(make_bundle(folder, quality=1.0))
    place.versions.set("handmade", "challenger", version)
    ask(place, version, "1", ("gain: +0.1",), START)
    return version


def states(receiver: Receiver) -> list[object]:
    return [one["state"] for one in receiver.messages]


def choosing(place: Workplace, *topics: Topic) -> Workplace:
    """The workplace of the task with other notices, registered as such."""
    alerts = place.task.alerts.model_copy(update={"notices": topics})
    changed = replace(place, task=place.task.model_copy(update={"alerts": alerts}))
    register_task(changed.settings, changed.task)
    return changed


def test_a_question_reaches_a_person_once(told: Workplace, receiver: Receiver, tmp_path: Path) -> None:
    question(told, tmp_path / "better")
    for _ in range(2):
        inform(told, START)
        alert(told, START)
    ((headers, body),) = receiver.heard
    (noted,) = told.ledger.read(kinds={NOTICE})
    (asked,) = told.ledger.read(kinds={"approval"})
    assert headers["X-Everfit-Signature"].startswith("sha256=")
    assert json.loads(body) == {
        "schema_version": 1,
        "id": f"handmade-question-{asked.id}/{noted.id}",
        "key": f"handmade-question-{asked.id}",
        "task": "handmade",
        "severity": "notice",
        "state": "question",
        "title": "handmade: version 2 is proven to be better and waits for your approval",
        "reasons": ["gain: +0.1"],
        "version": "2",
        "as_of": "2024-03-01T00:00:00",
        "opened_at": "2024-03-01T00:00:00",
        "reopened": 0,
        "link": f"http://127.0.0.1:{told.settings.status_port}/tasks/handmade",
        "next": "everfit approve handmade (or: everfit approve handmade --refuse)",
        "diagnosis": None,
    }
    (sent,) = told.ledger.read(kinds={"alert_sent"})
    assert (sent.outcome, sent.details["of"]) == ("sent", noted.id)


def test_a_question_that_was_answered_before_it_was_told_is_none(
    told: Workplace, receiver: Receiver, tmp_path: Path
) -> None:
    question(told, tmp_path / "better")
    assert CliRunner().invoke(main, ["approve", "handmade"]).exit_code == 0
    alert(told, START)
    (only,) = receiver.messages
    assert (only["title"], only["reasons"]) == (
        "handmade: version 2 is the champion now, instead of version 1",
        ["by hand", "gain: +0.1"],
    )
    assert only["next"] == "everfit rollback handmade"


def test_what_a_person_does_is_told_to_the_others_at_the_next_pass(
    told: Workplace, receiver: Receiver, tmp_path: Path
) -> None:
    told.versions.publish(make_bundle(tmp_path / "other"))
    for words in (["promote", "handmade", "2"], ["rollback", "handmade"]):
        assert CliRunner().invoke(main, words).exit_code == 0
    assert receiver.heard == []
    for _ in range(2):
        alert(told, START)
    assert [one["title"] for one in receiver.messages] == [
        "handmade: version 2 is the champion now, instead of version 1",
        "handmade: version 1 is the champion again, instead of version 2",
    ]
    assert {tuple(one["reasons"]) for one in receiver.messages} == {("by hand",)}  # type: ignore[arg-type]


def test_a_process_killed_while_it_sends_sends_the_same_again(
    told: Workplace, receiver: Receiver, tmp_path: Path
) -> None:
    question(told, tmp_path / "better")
    die_while_sending("inform", START, url(receiver))
    for _ in range(2):
        alert(told, START)
    first, second = receiver.messages
    assert first == second
    assert len(told.ledger.read(kinds={NOTICE})) == 1


def test_a_receiver_that_was_down_hears_of_it_at_the_next_pass(place: Workplace, receiver: Receiver) -> None:
    receiver.codes[:] = [404, 200]
    told = told_to(place, url(receiver))
    write(told, "improvement", "refused")
    inform(told, START)
    inform(told, START)  # nothing is new
    assert len(receiver.heard) == 1
    alert(told, START)
    first, second = receiver.messages
    assert first == second
    assert first["title"] == "handmade: an improvement failed, no new model was made"
    assert [one.outcome for one in told.ledger.read(kinds={"alert_sent"})] == ["failed", "sent"]


def test_an_improvement_that_cannot_be_made_tells_it_itself(
    place: Workplace, receiver: Receiver, tmp_path: Path
) -> None:
    fill(place.log, make_frame(40, start="2024-03-02"), tmp_path / "bundle")
    assert improve.fn("handmade", as_of=AS_OF)["outcome"] == "refused"
    (only,) = receiver.messages
    assert (only["state"], only["reasons"]) == (
        "failure",
        ["only 40 fresh labelled rows, 200 are needed to judge a new model"],
    )


def test_a_pass_that_rolls_back_tells_it_at_once(
    make_place: Callable[..., Workplace], receiver: Receiver, tmp_path: Path
) -> None:
    place = make_place()
    promote(place, tmp_path / "worse", quality=-1.0)
    week(place, tmp_path)
    for _ in range(2):
        lifecycle.fn("handmade", as_of=AS_OF)
    told = [one for one in receiver.messages if one["severity"] == "notice"]
    assert [one["state"] for one in told] == ["promotion", "rollback"]
    assert told[1]["title"] == "handmade: version 1 is the champion again, instead of version 2"
    assert "the new champion against version 1: auc 0." in told[1]["reasons"][0]  # type: ignore[index]


def test_the_task_chooses_and_a_choice_does_not_bring_back_the_past(told: Workplace, receiver: Receiver) -> None:
    write(told, "promotion", "promoted", previous="1")
    alert(choosing(told, "rollback"), START)
    alert(told, START)
    assert receiver.heard == []
    assert [one.details["told"] for one in told.ledger.read(kinds={NOTICE})] == [False]
    write(told, "improvement", "hold")
    alert(told, START)
    assert receiver.heard == []  # an attempt is no news by default
    write(told, "improvement", "reject")
    alert(choosing(told, "attempt"), START)
    assert states(receiver) == ["attempt"]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("follow", "continued"), ("canary", "promoted"), ("improvement", "asked"), ("approval", "refused"), ("gate", "x")],
)
def test_steps_and_what_another_entry_tells_are_no_news(kind: str, outcome: str) -> None:
    assert told_of(Entry(task="handmade", kind=kind, at=START, version="2", outcome=outcome)) is None


def test_a_canary_is_told_in_words() -> None:
    entry = Entry(task="handmade", kind="canary", at=START, version="2", outcome="begun", details={"share": 0.1})
    begun = told_of(entry)
    assert begun is not None
    assert begun.said == "version 2 is proven to be better and answers 10% of the requests before it is promoted"
    assert begun.then == "everfit canary handmade 0 (ends that)"


def test_of_the_first_champion_nobody_hears_not_later_either(
    place: Workplace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place, "promotion", "promoted")
    write(place, "rollback", "rolled back", previous="3")
    alert(place, START)
    assert [one.details["told"] for one in place.ledger.read(kinds={NOTICE})] == [False, True]
    monkeypatch.setenv("EVERFIT_ALERT_URLS", "")
    assert CliRunner().invoke(main, ["alerts", "handmade"]).output.splitlines() == [
        "handmade: no alert yet",
        "  as of             notice               version  told",
        "  2024-03-01 00:00  promotion  -         2        nobody",
        "  2024-03-01 00:00  rollback   -         2        no channel",
    ]
    for _ in range(2):
        alert(told_to(place, url(receiver)), START)
    assert states(receiver) == ["rollback"]


def test_a_ledger_older_than_notices_is_not_told(
    told: Workplace, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(told, "rollback", "rolled back", previous="3")
    assert old.written is not None
    later = old.written + timedelta(days=2)
    monkeypatch.setattr("flows.notices.utc_now", lambda: later)
    alert(told, START)
    assert receiver.heard == []
    assert told.ledger.read(kinds={NOTICE}) == []


def test_a_past_that_is_judged_again_is_told_to_nobody(told: Workplace, receiver: Receiver) -> None:
    """A replay of the same rows: what it finds anew is of before what was judged already."""
    clock = Entry(task="handmade", kind="decision", at=datetime(2030, 1, 1), severity="ok", details={"window": None})
    told.ledger.write(clock)  # a pass "now" before the rows of another year came
    for number in range(3):
        write(told, "rollback", "rolled back", decide(told, number, "ok"), previous="3")
        alert(told, START + number * WEEK)
    assert states(receiver) == ["rollback"] * 3
    for number in range(2):
        write(told, "rollback", "rolled back", decide(told, number, "ok"), previous="3")
        alert(told, START + number * WEEK)
    assert len(receiver.heard) == 3
    write(told, "rollback", "rolled back", decide(told, 3, "ok"), previous="3")
    alert(told, START + 3 * WEEK)
    assert len(receiver.heard) == 4


def test_a_question_that_was_put_where_there_are_no_channels_is_told_by_the_next_pass_while_it_waits(
    place: Workplace, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question(place, tmp_path / "better")
    write(place, "improvement", "refused")
    inform(place, START)
    assert CliRunner().invoke(main, ["approve", "handmade", "--refuse"]).exit_code == 0
    told = told_to(place, url(receiver))
    for _ in range(2):
        alert(told, START)
    assert states(receiver) == ["failure"]
    write(place, "improvement", "refused")
    inform(place, START)
    monkeypatch.setattr("flows.notices._KEPT", timedelta())
    alert(told, START)
    assert states(receiver) == ["failure"]
