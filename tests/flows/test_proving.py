"""Whether it pays to follow is looked at early and cheaply; what passes is promoted, once, also after a kill."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest

import retrain.following
from flows.approval import answer, pending
from flows.following import following, keep_following
from flows.proving import GROWTH, KIND, LOOKS, prove
from flows.retracing import CHAMPIONS, retrace
from flows.workplace import Workplace
from registry.ledger import Entry
from registry.task import TaskSpec
from retrain.following import Followed, Trail
from retrain.learners import Lesson
from retrain.renewal import Request
from tests.flows.test_following import BEGIN, champion_of, live, observed, place, steps

__all__ = ["place"]
pytestmark = pytest.mark.parametrize("champion", ["binary"], indirect=True)


def wanting(place: Workplace, **more: object) -> Workplace:
    """The workplace of a task whose ladder has the rung."""
    policy = {"kind": "performance", "ladder": ["recalibrate", "follow"]}
    task = TaskSpec.model_validate({**place.task.model_dump(), "policy": policy, **more})
    return place.__class__(**{**vars(place), "task": task})


def looks(place: Workplace) -> list[Entry]:
    return place.ledger.read(kinds={KIND})


def test_a_procedure_is_proven_before_anybody_asks_for_a_remedy(place: Workplace) -> None:
    mine = wanting(place)
    assert prove(mine, live(mine, 0, 1)) is None
    assert not looks(mine)  # two windows tell nothing
    moment = live(mine, *range(2, 8))
    without = {"kind": "performance", "ladder": ["recalibrate", "fine_tune"]}
    assert prove(wanting(place, policy=without), moment) is None
    found = prove(mine, moment)
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"], champion_of(mine)) == ("promote", "2", "1", "2")
    assert found["by"] == "follow"
    (look,) = looks(mine)
    assert look.details["verdict"]["outcome"] == "promote"
    for entry in (look, *mine.ledger.read(kinds={"remedy"}), mine.ledger.read(kinds={"promotion"})[-1]):
        lead = "follow: what the learning champion answered before the labels came, against version 1: gain +"
        assert entry.reasons[0].startswith(lead), entry.kind
        assert f" in {mine.task.metric} on " in entry.reasons[0]
    assert look.details["cpu"] > 0
    now = following(mine)
    assert now is not None
    assert (now.anchor, now.versions) == ("1", ("2",))
    assert prove(mine, moment) is None
    keep_following(mine, live(mine, 8))
    assert champion_of(mine) == "3"


def test_looks_are_few_and_leave_nothing_behind(place: Workplace) -> None:
    mine = wanting(place)
    moment = live(mine, *range(5), flip=0.0)
    assert prove(mine, moment) is None
    assert prove(mine, moment) is None
    (look,) = looks(mine)
    assert (look.version, look.outcome) == (None, "hold")
    assert look.reasons[0].startswith("follow: what the learning champion answered before the labels came, against ")
    assert prove(mine, live(mine, 5, flip=0.0)) is None
    assert len(looks(mine)) == 1  # labels have not grown enough
    moment = live(mine, 6, 7, flip=0.0)
    assert prove(mine, moment) is None
    assert looks(mine)[1].details["rows"] >= GROWTH * look.details["rows"]
    assert len(mine.versions.list("handmade")) == 1
    assert mine.versions.get("handmade", "challenger") is None
    for _ in range(LOOKS - 2):
        mine.ledger.write(look.model_copy(update={"id": None, "written": None}))
    assert prove(mine, live(mine, *range(8, 11))) is None
    assert len(looks(mine)) == LOOKS
    assert moment < datetime(2024, 2, 1)


def test_looks_go_on_from_where_the_last_one_was(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later look takes the steps since then alone, and finds what it would have found had it taken all."""
    version, taken = str(champion_of(place)), list[int]()
    bundle, real = place.versions.fetch("handmade", version), retrain.following.follow

    def watched(asked: Request, steps: list[Lesson], **more: Any) -> Followed:
        taken.append(sum(len(one.learn) > 0 for one in steps))
        return real(asked, steps, **more)

    monkeypatch.setattr(retrain.following, "follow", watched)
    retrace(place, bundle, version, live(place, *range(5)), place.study / "made", CHAMPIONS)
    moment = live(place, 5, 6)
    chain, rows = retrace(place, bundle, version, moment, place.study / "made", CHAMPIONS)
    whole, same = retrace(place, bundle, version, moment, place.study / "made")
    assert taken == [5, 2, 7]
    old, new = (one.proof(two, bundle, BEGIN) for one, two in ((rows, chain), (same, whole)))
    assert old.rows.equals(new.rows)
    assert np.allclose(old.new.scores, new.new.scores, atol=1e-5)
    assert np.array_equal(chain.learnt, whole.learnt)
    again, _ = retrace(place, bundle, version, moment, place.study / "made", CHAMPIONS)  # after a kill
    assert np.allclose(again.answers.scores, chain.answers.scores, atol=1e-6)
    (kept,) = (place.study / "trails").iterdir()
    other = place.versions.publish(chain.seal(pictures=False))
    assert Trail.load(kept, place.versions.fetch("handmade", other)) is None
    assert Trail.load(kept, bundle) is not None
    kept.write_bytes(kept.read_bytes()[:1_000])
    assert Trail.load(kept, bundle) is None


def test_what_a_kill_cut_short_is_completed_and_nobody_is_overruled(place: Workplace) -> None:
    mine = wanting(place)
    moment = live(mine, *range(8))
    prove(mine, moment)
    (look,) = looks(mine)
    mine.versions.set("handmade", "champion", "1")
    mine.ledger.write(look.model_copy(update={"id": None, "written": None}))  # as if nothing had come after it
    found = prove(mine, moment)
    assert found is not None
    assert (found["version"], champion_of(mine), len(mine.versions.list("handmade"))) == ("2", "2", 2)
    mine.versions.rollback("handmade")
    mine.ledger.write(Entry(task="handmade", kind="rollback", at=moment, version="1", outcome="rolled back"))
    assert prove(mine, moment) is None
    assert champion_of(mine) == "1"


def test_a_person_is_asked_once(place: Workplace) -> None:
    mine = wanting(place, mode="approve")
    moment = live(mine, *range(8))
    assert prove(mine.__class__(**{**vars(mine), "task": observed(mine)}), moment) is None
    found = prove(mine, moment)
    assert found is not None
    assert (found["outcome"], champion_of(mine)) == ("asked", "1")
    assert prove(mine, live(mine, 8, 9, 10)) is None
    assert pending(mine) is not None
    answer(mine, promote=True, at=moment, by="me")
    assert following(mine) is not None
    assert not steps(mine)
