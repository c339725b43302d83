"""The radius follows labels: written down once, taken over by a replay, and never in `observe`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from flows.coverage import KIND, keep_coverage
from flows.offline import Offline
from flows.workplace import Workplace
from tests.flows.conftest import fill
from tests.flows.shelf import shelf_place
from tests.handmade import make_frame, make_task

AS_OF = datetime(2024, 3, 9)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A week of rows in which the champion is wrong half of the time."""
    place = shelf_place(tmp_path)
    fill(place.log, make_frame(1_008, seed=5, start="2024-03-02", flip=1.0), tmp_path / "bundle")
    return place


def test_a_champion_that_covers_too_little_gets_a_wider_radius(place: Workplace) -> None:
    """From .8, which covers a third of such rows, to nearly all classes."""
    found = keep_coverage(place, AS_OF)
    assert found is not None
    assert found.details["before"] == 0.8
    assert found.details["radius"] > 0.85
    assert found.reasons == (
        f"conformal radius 0.8 -> {found.details['radius']:.4g}, by {found.details['rows']:,} labels",
    )
    assert place.versions.radius("handmade", "1") == found.details["radius"]
    assert keep_coverage(place, AS_OF) is None
    assert len(place.ledger.read(kinds={KIND})) == 1


def test_labels_of_tomorrow_change_nothing(place: Workplace) -> None:
    assert keep_coverage(place, datetime(2024, 3, 2, 12)) is None


@pytest.mark.parametrize("changes", [{"mode": "observe"}, {"monitor": {"adaptive": False}}], ids=str)
def test_who_does_not_want_it_does_not_get_it(place: Workplace, changes: dict[str, object]) -> None:
    assert keep_coverage(replace(place, task=make_task(**changes)), AS_OF) is None
    assert place.versions.radius("handmade", "1") is None


def test_a_replay_answers_with_it(place: Workplace) -> None:
    rows = make_frame(50, start="2024-03-09").drop(columns="late")
    rows["when"] = rows["when"].map(lambda moment: moment.isoformat())
    told = [{"rows": rows.to_dict("records"), "ids": [f"{tag}{row}" for row in range(50)]} for tag in "ab"]
    replayed = Offline(place)
    replayed.post("/predict", told[0])
    place.versions.set_radius("handmade", "1", 0.999)
    replayed.post("/predict", told[1])
    logged = place.log.frame(start=AS_OF).set_index("__id__")["__set__"].map(len)
    before, after = (logged[logged.index.str.startswith(tag)].mean() for tag in "ab")
    assert before < 1.6
    assert after > 1.9
