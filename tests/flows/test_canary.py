"""Canaries: a proven challenger answers its share, then is promoted or let go; who was killed is completed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flows.approval import answer, ask
from flows.bake import in_the_oven
from flows.canary import is_out, keep_canary
from flows.improve import one_at_a_time
from flows.lifecycle import lifecycle
from flows.rollout import KIND, canary_out, ends_as, promote, roll_out
from flows.second_look import held_challenger, look_again
from flows.wishes import wished
from flows.workplace import Workplace, register_task
from registry.decisions import Outcome
from registry.ledger import Entry
from registry.policies import Canary
from tests.flows.conftest import fill
from tests.flows.shelf import shelf_place
from tests.handmade import make_bundle, make_frame

BEGIN = datetime(2024, 3, 2)  # after all that the handmade bundles know
AS_OF = BEGIN + timedelta(days=7)
CANARY = Canary(share=0.2, windows=2)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """The handmade task with its champion and a canary at its gate, on a registry in memory."""
    return with_canary(shelf_place(tmp_path))


def with_canary(place: Workplace) -> Workplace:
    gate = place.task.gate.model_copy(update={"canary": CANARY})
    return replace(place, task=place.task.model_copy(update={"gate": gate}))


def begin(place: Workplace, folder: Path, *, quality: float = 1.0) -> str:
    """Register a version of some quality, and let it begin."""
    version = place.versions.publish(make_bundle(folder, quality=quality))
    roll_out(place, version, "1", ("better",), BEGIN)
    return version


def log(place: Workplace, tmp_path: Path, rows: int = 1_008) -> None:
    fill(place.log, make_frame(rows, seed=5, start=str(BEGIN + timedelta(minutes=10))), tmp_path / "bundle")


def pass_windows(place: Workplace, number: int = 2) -> None:
    """What watching writes of so many windows; each is measured twice."""
    for index in (*range(number), *range(number)):
        end_window(place, index)


def end_window(place: Workplace, index: int) -> None:
    """What watching writes of a day, counted from the one that begins with the canary."""
    start, end = (BEGIN + timedelta(days=index + number) for number in range(2))
    details = {"window": {"index": index, "start": start.isoformat(), "end": end.isoformat()}}
    place.ledger.write(Entry(task="handmade", kind="window", at=AS_OF, version="1", details=details))


def decide(place: Workplace, severity: str) -> None:
    """The newest decision on the data."""
    told = Entry(task="handmade", kind="decision", at=AS_OF, version="1", severity=severity, outcome="alert")
    place.ledger.write(told.model_copy(update={"reasons": ("age: another unit",)}))


def aliases(place: Workplace) -> tuple[str | None, ...]:
    return tuple(place.versions.get("handmade", alias) for alias in ("champion", "previous", "challenger"))


def outcomes(place: Workplace) -> list[str | None]:
    return [one.outcome for one in place.ledger.read(kinds={KIND})]


def test_it_answers_its_share_and_is_then_promoted_and_baked(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "as-good")
    roll_out(place, version, "1", ("better",), BEGIN)  # by whoever comes after a kill
    assert (aliases(place), place.versions.canary("handmade", version)) == (("1", None, version), 0.2)
    log(place, tmp_path)
    for index in (-2, -1):  # windows of before, measured again since their labels came
        end_window(place, index)
    pass_windows(place, 1)
    found = keep_canary(place, AS_OF)
    assert is_out(found)
    assert found is not None
    assert "1 of 2 windows" in found["reasons"][0]

    pass_windows(place, 2)
    found = keep_canary(place, AS_OF)
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"]) == ("promote", version, "1")
    assert (aliases(place), place.versions.canary("handmade", version)) == ((version, "1", None), 0)
    (entry,) = place.ledger.read(kinds={"promotion"})
    assert (entry.version, entry.at, entry.details["previous"]) == (version, AS_OF, "1")
    assert entry.reasons[1] == "better"
    assert outcomes(place) == ["begun", "promoted"]
    assert keep_canary(place, AS_OF) is None
    assert in_the_oven(place, AS_OF) is not None


def test_one_that_is_worse_is_let_go(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "worse", quality=-1.0)
    log(place, tmp_path)
    pass_windows(place)
    found = keep_canary(place, AS_OF)
    assert found is not None
    assert found["outcome"] == "reject"
    assert "canary against version 1: auc 0." in found["reasons"][0]
    assert (aliases(place), place.versions.canary("handmade", version)) == (("1", None, None), 0)
    assert (outcomes(place), place.ledger.read(kinds={"promotion"})) == (["begun", "withdrawn"], [])
    assert keep_canary(place, AS_OF) is None


@pytest.mark.parametrize("share", [0.2, 0.0])
def test_a_withdrawal_cut_short_is_completed_once(place: Workplace, tmp_path: Path, share: float) -> None:
    version = begin(place, tmp_path / "worse", quality=-1.0)
    log(place, tmp_path)
    pass_windows(place)
    keep_canary(place, AS_OF)
    place.versions.set("handmade", "challenger", version)  # told, and then it was killed before the alias moved
    place.versions.set_canary("handmade", version, share)
    found = keep_canary(place, AS_OF + timedelta(days=1))
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"]) == ("reject", version, "1")
    assert (aliases(place), place.versions.canary("handmade", version)) == (("1", None, None), 0)
    assert outcomes(place) == ["begun", "withdrawn"]
    assert keep_canary(place, AS_OF + timedelta(days=1)) is None


def test_another_look_that_holds_is_no_canary() -> None:
    """A new champion in its bake time is held there, and remedies go on."""
    assert is_out({"by": "canary", "outcome": "hold"})
    assert not any(is_out(one) for one in ({"by": "bake time", "outcome": "hold"}, {"outcome": "hold"}, None))
    assert not is_out({"by": "canary", "outcome": "reject"})


def test_without_labels_the_gate_has_said_all(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "new")
    pass_windows(place)
    found = keep_canary(place, AS_OF)
    assert found is not None
    assert (found["outcome"], aliases(place)[0]) == ("promote", version)
    assert "not enough labelled rows" in found["reasons"][0]


def test_a_promotion_cut_short_is_completed_once(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "new")
    pass_windows(place)
    place.versions.promote("handmade", version)  # the aliases moved, and then it was killed
    found = keep_canary(place, AS_OF)
    assert found is not None
    assert (found["outcome"], aliases(place)[0]) == ("promote", version)
    assert len(place.ledger.read(kinds={"promotion"})) == 1
    assert keep_canary(place, AS_OF) is None


def test_an_end_cut_short_after_its_promotion_is_not_a_second_one(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "new")
    pass_windows(place)
    promote(place, version, "1", ("canary",), AS_OF)  # told, and then it was killed
    found = keep_canary(place, AS_OF + timedelta(days=1))
    assert found is not None
    assert (found["outcome"], outcomes(place)) == ("promote", ["begun", "promoted"])
    (entry,) = place.ledger.read(kinds={"promotion"})
    assert entry.at == AS_OF


def test_nothing_is_promoted_on_broken_data(place: Workplace, tmp_path: Path) -> None:
    """It goes on while the newest decision is `faulty`, and ends as usual once that is over."""
    version = begin(place, tmp_path / "as-good")
    log(place, tmp_path)
    pass_windows(place)
    decide(place, "faulty")
    found = keep_canary(place, AS_OF)
    assert is_out(found)
    assert found is not None
    assert "the data are broken: nothing is promoted on them (age: another unit)" in found["reasons"][0]
    assert (aliases(place), outcomes(place)) == (("1", None, version), ["begun"])
    decide(place, "ok")
    found = keep_canary(place, AS_OF)
    assert found is not None
    assert (found["outcome"], aliases(place)) == ("promote", (version, "1", None))


def test_nothing_else_is_wished_while_it_is_out(place: Workplace, tmp_path: Path) -> None:
    """A second look or a proof may have begun it in the very pass whose decision asks for a new model."""
    asked = Entry(task="handmade", kind="decision", at=AS_OF, version="1", severity="degraded", outcome="research")
    place.ledger.write(asked)
    version = begin(place, tmp_path / "new")
    assert wished(place) is None
    place.versions.set_canary("handmade", version, 0)
    assert wished(place) is not None


def test_a_promotion_that_was_cut_short_is_completed_on_broken_data_too(place: Workplace, tmp_path: Path) -> None:
    version = begin(place, tmp_path / "as-good")
    place.versions.promote("handmade", version)
    decide(place, "faulty")
    assert keep_canary(place, AS_OF) is not None
    assert outcomes(place) == ["begun", "promoted"]


@pytest.mark.parametrize(("quality", "outcome"), [(1.0, "promote"), (-1.0, "reject")])
def test_data_of_the_past_end_one_that_began_now(
    place: Workplace, tmp_path: Path, quality: float, outcome: str
) -> None:
    """Its windows end long before it began. Those that were measured before are not its own, though it answered a late
    row of one, nor is one in which it answered nothing."""
    end_window(place, -1)
    version = place.versions.publish(make_bundle(tmp_path / "new", quality=quality))
    roll_out(place, version, "1", ("better",), BEGIN + timedelta(days=700))
    log(place, tmp_path, rows=288)
    own = make_frame(432, seed=8, start=str(BEGIN + timedelta(days=-1, minutes=5)))
    fill(place.log, own, tmp_path / "new", version=version)
    for index in (-1, 0, 5):
        end_window(place, index)
    found = keep_canary(place, BEGIN + timedelta(days=700))
    assert is_out(found)
    assert found is not None
    assert "1 of 2 windows" in found["reasons"][0]
    end_window(place, 1)
    found = keep_canary(place, BEGIN + timedelta(days=700))
    assert found is not None
    assert found["outcome"] == outcome
    assert "not enough" not in found["reasons"][0]


@pytest.mark.parametrize("why", ["share", "challenger", "champion", "observe", "busy"])
def test_who_interferes_ends_it(place: Workplace, tmp_path: Path, why: str) -> None:
    version = begin(place, tmp_path / "new")
    pass_windows(place)
    if why == "share":
        place.versions.set_canary("handmade", version, 0)
    if why in ("challenger", "champion"):
        place.versions.set("handmade", why, place.versions.publish(make_bundle(tmp_path / "other")))
    if why == "observe":
        place = replace(place, task=place.task.model_copy(update={"mode": "observe"}))
    before = aliases(place)
    if why == "busy":
        with one_at_a_time(place):
            assert keep_canary(place, AS_OF) is None
        assert canary_out(place) is not None
    else:
        assert keep_canary(place, AS_OF) is None
    assert (aliases(place), outcomes(place)) == (before, ["begun"])


def test_a_second_look_and_a_person_begin_one_too(place: Workplace, tmp_path: Path) -> None:
    log(place, tmp_path)
    fill(place.log, make_frame(1_008, seed=6, start=str(BEGIN), flip=1.0), tmp_path / "bundle")
    version = place.versions.publish(make_bundle(tmp_path / "better", quality=-1.0))
    place.versions.set("handmade", "challenger", version)
    ask(place, version, "1", ("proven",), BEGIN)
    answer(place, promote=True, at=AS_OF, by="a person")
    assert (aliases(place), outcomes(place)) == (("1", None, version), ["begun"])
    end = {"task": "handmade", "at": BEGIN, "version": version, "details": {"champion": "1"}}
    place.ledger.write(Entry(kind="improvement", outcome="hold", **end))
    assert held_challenger(place) is None
    assert look_again(place, AS_OF) is None
    assert [ends_as(place, one) for one in (Outcome.PROMOTE, Outcome.HOLD)] == ["canary", "hold"]


def test_beside_a_champion_that_follows_there_is_none(place: Workplace, tmp_path: Path) -> None:
    told = {"follows": {"anchor": "1", "begun": BEGIN.isoformat()}}
    following = place.versions.publish(make_bundle(tmp_path / "following"))
    place.ledger.write(Entry(task="handmade", kind="remedy", at=BEGIN, version=following, details=told))
    promote(place, following, "1", ("proven",), BEGIN)
    version = place.versions.publish(make_bundle(tmp_path / "new"))
    roll_out(place, version, following, ("better",), AS_OF)
    assert (aliases(place)[0], outcomes(place), ends_as(place, Outcome.PROMOTE)) == (version, [], "promote")


def test_without_the_setting_a_promotion_is_one_and_told_once(tmp_path: Path) -> None:
    place = shelf_place(tmp_path)
    version = place.versions.publish(make_bundle(tmp_path / "new"))
    for _ in range(2):
        roll_out(place, version, "1", ("better",), BEGIN, intent="abc")
    (entry,) = place.ledger.read(kinds={"promotion"})
    assert entry.details == {"previous": "1", "intent": "abc"}
    assert (aliases(place)[0], outcomes(place), ends_as(place, Outcome.PROMOTE)) == (version, [], "promote")
    promote(place, "1", version, ("back",), AS_OF)
    assert len(place.ledger.read(kinds={"promotion"})) == 2


def test_the_lifecycle_waits_for_it_and_ends_it(make_place: Callable[..., Workplace], tmp_path: Path) -> None:
    """On a real registry: nothing is improved while it is out, though performance is judged degraded."""
    place = with_canary(make_place())
    register_task(place.settings, place.task)
    fill(place.log, make_frame(2_016, seed=5, start="2024-03-02", flip=1.0), tmp_path / "bundle")
    version = begin(place, tmp_path / "better", quality=-1.0)
    first = lifecycle.fn("handmade", as_of=datetime(2024, 3, 9, 1))
    assert first["severity"] == "degraded"
    assert is_out(first["improvement"])
    assert place.versions.canary("handmade", version) == 0.2
    second = lifecycle.fn("handmade", as_of=datetime(2024, 3, 16, 1))
    assert (second["improvement"]["outcome"], place.versions.get("handmade", "champion")) == ("promote", version)
    assert place.versions.canary("handmade", version) == 0
    assert place.ledger.read(kinds={"intent"}) == []
