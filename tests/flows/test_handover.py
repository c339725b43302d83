"""Who changes the champion by hand is not overtaken by what a flow has begun before."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from click.testing import CliRunner

import flows.following
import flows.proving
from flows.cli import main
from flows.following import MISSED, following, keep_following
from flows.handover import BY_HAND, chosen, handing_over
from flows.workplace import Workplace
from registry.errors import StateError
from registry.ledger import Entry
from tests.flows.test_following import BEGIN, DAY, champion_of, each_window, home, live, place, prove, settings, steps
from tests.flows.test_proving import looks, wanting

__all__ = ["each_window", "home", "place", "settings"]
pytestmark = pytest.mark.parametrize("champion", ["binary"], indirect=True)


def everfit(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def meanwhile(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *commands: tuple[str, ...]) -> None:
    """Let a person give these commands while a flow is at a stage."""
    real = getattr(module, name)

    def watched(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        for command in commands:
            everfit(*command)
        return found

    monkeypatch.setattr(module, name, watched)


def test_a_promotion_by_hand_during_a_step_stands(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(place)
    meanwhile(monkeypatch, flows.following, "_step", ("promote", "handmade", "1"))
    moment = live(place, 5)
    assert keep_following(place, moment) is None
    assert champion_of(place) == "1"
    assert not steps(place)
    assert [one.version for one in place.versions.list("handmade")] == ["1", "2"]  # what was dropped is no version
    (told,) = place.ledger.read(kinds={MISSED})
    assert told.reasons == ("the step of version 2 is dropped: since it began, a promotion by hand chose version 1",)
    assert place.ledger.read(kinds={"promotion"})[-1].details == {"previous": "2"}
    assert "version 2 is the champion again (instead of 1)" in everfit("rollback", "handmade")


def test_a_champion_that_was_changed_and_put_back_is_changed(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(place)
    meanwhile(monkeypatch, flows.following, "_step", ("promote", "handmade", "1"), ("promote", "handmade", "2"))
    keep_following(place, live(place, 5))
    assert (champion_of(place), steps(place)) == ("2", [])
    assert following(place) is not None  # it goes on from there at the next pass


def test_a_promotion_by_hand_during_a_look_stands(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = wanting(place)
    moment = live(mine, *range(8))
    chosen = mine.versions.publish(mine.versions.fetch("handmade", "1"))
    meanwhile(monkeypatch, flows.proving, "_judged", ("promote", "handmade", chosen))
    assert flows.proving.prove(mine, moment) is None
    assert champion_of(mine) == chosen
    assert mine.versions.get("handmade", "challenger") is None
    (look,) = looks(mine)
    assert look.version == "3"
    assert flows.proving.prove(mine, moment) is None, "of a kill nothing is made that nobody has killed"
    assert champion_of(mine) == chosen


def test_who_has_chosen_is_not_overruled_by_the_same_rows(place: Workplace) -> None:
    """Following would pay on the windows of before: only those that end later are looked at."""
    mine = wanting(place)
    moment = live(mine, *range(8))
    said = everfit("promote", "handmade", mine.versions.publish(mine.versions.fetch("handmade", "1")))
    assert "by itself it is tried, once 4 windows that end after 2024-01-23 00:00 are over, whether following" in said
    for end in (moment, live(mine, 8, 9, 10)):
        assert flows.proving.prove(mine, end) is None
    assert not looks(mine)
    assert flows.proving.prove(mine, live(mine, 11)) is not None
    (look,) = looks(mine)
    compared = re.search(r" on ([\d,]+) rows", look.reasons[0])
    assert compared is not None
    assert 3 * DAY < int(compared[1].replace(",", "")) < 4 * DAY
    assert following(mine) is not None


def test_which_changes_are_somebody_s_choice(place: Workplace) -> None:
    assert chosen(place) is None
    act = Entry(task="handmade", kind="promotion", at=BEGIN, version="1", reasons=("better",))
    for made, stands in (
        (act, False),
        (act.model_copy(update={"reasons": (BY_HAND,)}), True),
        (act.model_copy(update={"kind": "rollback"}), True),  # after a bake time
        (act.model_copy(update={"kind": "rollback", "details": {"previous": "2", "follows": "1"}}), False),
    ):
        entry = place.ledger.write(made)
        assert chosen(place) == (entry if stands else None)


def test_one_change_waits_for_another(place: Workplace) -> None:
    """What is previous is read when it is one's turn."""
    with handing_over(place):
        person = threading.Thread(target=everfit, args=("promote", "handmade", "1"))
        person.start()
        person.join(1.0)
        assert person.is_alive()
        other = place.versions.publish(place.versions.fetch("handmade", "1"))
        place.versions.promote("handmade", other)
    person.join()
    assert champion_of(place) == "1"
    assert place.ledger.read(kinds={"promotion"})[-1].details == {"previous": other}


def test_what_is_handed_over_was_proved_against_the_champion(place: Workplace) -> None:
    from flows.rollout import promote

    with pytest.raises(StateError, match="version 3 was proved against 2, but 1 is the champion now"):
        promote(place, "3", "2", ("better",), live(place, 0))
