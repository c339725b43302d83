"""Modes: a proved challenger waits for a person, who says yes or no once; an observer does nothing at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.approval import KIND, ask, pending
from flows.bake import in_the_oven
from flows.cli import main
from flows.commands_decide import outcome_line
from flows.decided import stands, told
from flows.improve import act, improve
from flows.intents import Intents
from flows.rollout import ASKED
from flows.second_look import held_challenger, look_again
from flows.status_page import page
from flows.status_snapshot import read
from flows.wishes import wished
from flows.workplace import Workplace, register_task
from registry.decisions import Outcome, Verdict
from registry.ledger import Entry
from registry.task import Mode
from tests.flows.conftest import fill
from tests.flows.test_bake import AS_OF, BEGIN
from tests.handmade import make_bundle, make_frame

BETTER = Verdict(outcome=Outcome.PROMOTE, reasons=("gain: +0.1",), checks=())


def in_mode(place: Workplace, mode: Mode) -> Workplace:
    """The workplace of the task in another mode, registered as such."""
    changed = replace(place, task=place.task.model_copy(update={"mode": mode}))
    register_task(changed.settings, changed.task)
    return changed


def prove(place: Workplace, folder: Path) -> str:
    """An improvement up to the verdict that its challenger is better."""
    version = place.versions.publish(make_bundle(folder, quality=1.0))
    place.versions.set("handmade", "challenger", version)
    intents = Intents(place.ledger, "handmade")
    intent = intents.begin("improve", AS_OF, champion="1")
    act(place, intents, intent, version, BETTER)
    intents.end(intent, outcome=ASKED, version=version, details={"champion": "1"})
    return version


@pytest.fixture
def asked(place: Workplace, tmp_path: Path) -> Workplace:
    """A challenger that waits."""
    place = in_mode(place, "approve")
    prove(place, tmp_path / "better")
    return place


def champion(place: Workplace) -> str | None:
    return place.versions.get("handmade", "champion")


def everfit(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.output.strip()


def test_a_proved_challenger_waits_and_is_approved(asked: Workplace) -> None:
    (question,) = asked.ledger.read(kinds={KIND})
    assert (question.outcome, question.version, question.reasons) == ("asked", "2", ("gain: +0.1",))
    assert (champion(asked), asked.versions.get("handmade", "challenger")) == ("1", "2")
    decided = Entry(task="handmade", kind="decision", at=AS_OF, outcome="research")
    asked.ledger.write(decided)
    assert wished(asked) is None
    assert question.written is not None
    since = f"{question.written:%Y-%m-%d %H:%M}"
    said = (
        f"version 2, proved on rows up to 2024-03-09 00:00, waits for a person since {since}: everfit approve handmade"
    )
    assert said in everfit("status")[1]
    text = page(read(asked))
    assert '<h3>Waits for a person</h3><p class="big">version 2</p><p>everfit approve handmade, since <time>' in text
    assert everfit("approve", "handmade") == (0, "handmade: version 2 is the champion (previous: 1)")
    assert champion(asked) == "2"
    (promotion,) = asked.ledger.read(kinds={"promotion"})
    assert (promotion.version, promotion.details) == ("2", {"previous": "1"})
    assert in_the_oven(asked, promotion.at) is not None
    code, said = everfit("approve", "handmade")
    assert code == 3
    assert "no challenger that waits" in said


def test_a_refused_challenger_is_let_go(asked: Workplace) -> None:
    assert everfit("approve", "handmade", "--refuse") == (0, "handmade: version 2 was let go")
    assert (champion(asked), asked.versions.get("handmade", "challenger")) == ("1", None)
    assert [one.outcome for one in asked.ledger.read(kinds={KIND})] == ["asked", "refused"]
    assert pending(asked) is None
    assert "Waits for a person" not in page(read(asked))


def test_what_a_person_was_asked_is_not_asked_again_on_the_same_rows(asked: Workplace) -> None:
    """Whoever asks for the same is told what became of it; a question that a roll-back or another challenger has made
    void is no answer."""
    done = improve.fn("handmade", as_of=AS_OF)
    assert "version 2 was proved, and waits for a person: everfit approve handmade" in done["already"]
    assert outcome_line("handmade", {**done, "already": ""}).endswith(
        "version 2); a person decides: everfit approve handmade"
    )
    everfit("approve", "handmade", "--refuse")
    done = improve.fn("handmade", as_of=AS_OF)
    assert outcome_line("handmade", done).startswith(
        "handmade: already decided on these rows, as of 2024-03-09 00:00: "
    )
    assert "version 2 was proved, and was refused by a person; newer rows" in done["already"]
    (end,) = asked.ledger.read(kinds={"improvement"})
    assert stands(asked, end)
    asked.versions.promote("handmade", "2")
    assert not stands(asked, end)


@pytest.mark.parametrize("void", ["challenger", "champion"])
def test_a_question_that_nobody_can_answer_is_put_anew(asked: Workplace, tmp_path: Path, void: str) -> None:
    (end,) = asked.ledger.read(kinds={"improvement"})
    assert stands(asked, end)
    other = asked.versions.publish(make_bundle(tmp_path / "other"))
    asked.versions.set("handmade", void, other)
    assert not stands(asked, end)


def test_what_a_person_approved_stands_until_it_is_rolled_back(asked: Workplace) -> None:
    everfit("approve", "handmade")
    (end,) = asked.ledger.read(kinds={"improvement"})
    assert stands(asked, end)
    assert "version 2 was proved, and was approved by a person" in told(asked, end)
    everfit("rollback", "handmade")
    assert not stands(asked, end)


def test_a_question_is_put_once_and_ends_when_the_champion_changes(asked: Workplace, tmp_path: Path) -> None:
    ask(asked, "2", "1", ("again",), AS_OF)
    assert len(asked.ledger.read(kinds={KIND})) == 1
    asked.versions.promote("handmade", asked.versions.publish(make_bundle(tmp_path / "other")))
    assert pending(asked) is None


@pytest.mark.parametrize("mode", ["approve", "observe"])
def test_a_held_challenger_that_shows_waits_too(place: Workplace, tmp_path: Path, mode: Mode) -> None:
    place = in_mode(place, mode)
    fill(place.log, make_frame(1_008, seed=5, start=str(BEGIN), flip=1.0), tmp_path / "bundle")
    version = place.versions.publish(make_bundle(tmp_path / "better", quality=-1.0))
    place.versions.set("handmade", "challenger", version)
    details = {"champion": "1", "rows": 100}
    held = Entry(task="handmade", kind="improvement", at=BEGIN, version=version, outcome="hold", details=details)
    place.ledger.write(held)
    found = look_again(place, AS_OF)
    if mode == "observe":
        assert found is None
    else:
        assert found is not None
        assert found["outcome"] == "asked"
        assert pending(place) is not None
        assert held_challenger(place) is None
    assert champion(place) == "1"


def test_an_observer_does_nothing(place: Workplace, tmp_path: Path) -> None:
    place = in_mode(place, "observe")
    place.ledger.write(Entry(task="handmade", kind="decision", at=AS_OF, outcome="research"))
    assert wished(place) is None
    place.versions.promote("handmade", place.versions.publish(make_bundle(tmp_path / "new")))
    details = {"previous": "1"}
    place.ledger.write(Entry(task="handmade", kind="promotion", at=AS_OF, version="2", details=details))
    assert in_the_oven(place, AS_OF + timedelta(days=1)) is None
