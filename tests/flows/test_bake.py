"""Bake time: a worse champion is rolled back, once and for all; a good one stays; whoever was killed is completed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flows.bake import KIND, LOOKS, bake, in_the_oven, rolled_back
from flows.improve import one_at_a_time
from flows.lifecycle import lifecycle
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.ledger import Entry
from registry.schema import NumericColumn, Schema
from tests.flows.conftest import fill
from tests.flows.shelf import shelf_place
from tests.handmade import make_bundle, make_frame

BEGIN = datetime(2024, 3, 2)  # after all that the handmade bundles know
AS_OF = BEGIN + timedelta(days=7)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """The handmade task with its champion, on a registry in memory."""
    return shelf_place(tmp_path)


def promote(place: Workplace, folder: Path, *, quality: float) -> str:
    """Register a version of some quality and make it the champion, as an improvement does."""
    version = place.versions.publish(make_bundle(folder, quality=quality))
    done = place.versions.promote("handmade", version)
    details = {"previous": done.previous}
    place.ledger.write(
        Entry(task="handmade", kind="promotion", at=BEGIN, version=version, outcome="promoted", details=details)
    )
    return version


def week(place: Workplace, tmp_path: Path, rows: int = 1_008) -> None:
    """Log a week, 144 rows a day."""
    fill(place.log, make_frame(rows, seed=5, start=str(BEGIN + timedelta(minutes=10))), tmp_path / "bundle")


def aliases(place: Workplace) -> tuple[str | None, str | None]:
    return place.versions.get("handmade", "champion"), place.versions.get("handmade", "previous")


def test_a_worse_champion_is_rolled_back_once(place: Workplace, tmp_path: Path) -> None:
    promote(place, tmp_path / "worse", quality=-1.0)
    week(place, tmp_path)
    found = bake(place, AS_OF)
    assert rolled_back(found)
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"]) == ("rollback", "2", "1")
    assert "the new champion against version 1: auc 0." in found["reasons"][0]
    assert aliases(place) == ("1", "2")
    (entry,) = place.ledger.read(kinds={"rollback"})
    assert (entry.version, entry.at, entry.details["previous"]) == ("1", AS_OF, "2")
    assert bake(place, AS_OF) is None
    assert len(place.ledger.read(kinds={KIND})) == 1


def test_data_of_the_past_are_looked_at_too(place: Workplace, tmp_path: Path) -> None:
    """Promoted "now", two years after the data's own times: its rows are those of windows that it has answered in."""
    version = place.versions.publish(make_bundle(tmp_path / "worse", quality=-1.0))
    place.versions.promote("handmade", version)
    now, details = BEGIN + timedelta(days=700), {"previous": "1"}
    told = Entry(task="handmade", kind="promotion", at=now, version=version, outcome="promoted", details=details)
    place.ledger.write(told)
    fill(place.log, make_frame(1_008, seed=5, start=str(BEGIN)), tmp_path / "worse", version=version)
    assert bake(place, now) is None  # no window is over yet
    span = {"index": 0, "start": BEGIN.isoformat(), "end": (BEGIN + timedelta(days=7)).isoformat()}
    place.ledger.write(Entry(task="handmade", kind="window", at=now, version=version, details={"window": span}))
    assert rolled_back(bake(place, now))
    assert aliases(place) == ("1", version)


def test_the_lifecycle_does_it_and_begins_no_improvement(make_place: Callable[..., Workplace], tmp_path: Path) -> None:
    place = make_place()
    promote(place, tmp_path / "worse", quality=-1.0)
    week(place, tmp_path)
    assert rolled_back(lifecycle.fn("handmade", as_of=AS_OF)["improvement"])
    assert aliases(place) == ("1", "2")
    assert place.ledger.read(kinds={"intent"}) == []


def test_a_good_champion_stays_under_watch_for_so_many_looks(place: Workplace, tmp_path: Path) -> None:
    promote(place, tmp_path / "as-good", quality=1.0)
    for day in range(1, 8):
        week(place, tmp_path, rows=day * 144)
        found = bake(place, BEGIN + timedelta(days=day))
        assert found is None or found["outcome"] == "hold"
    looks = place.ledger.read(kinds={KIND})
    assert len(looks) == LOOKS
    assert all(later.details["rows"] >= 1.25 * one.details["rows"] for one, later in pairwise(looks))
    assert aliases(place) == ("2", "1")


def test_a_rollback_cut_short_is_completed(place: Workplace, tmp_path: Path) -> None:
    promote(place, tmp_path / "worse", quality=-1.0)
    look = Entry(task="handmade", kind=KIND, at=AS_OF, version="2", outcome="rollback", reasons=("worse",))
    place.ledger.write(look)
    place.versions.rollback("handmade")  # the aliases moved, and then it was killed
    assert rolled_back(bake(place, AS_OF))
    assert aliases(place) == ("1", "2")
    (entry,) = place.ledger.read(kinds={"rollback"})
    assert entry.reasons == ("worse",)


@pytest.mark.parametrize("other", ["classes", "columns"])
def test_a_former_champion_that_cannot_be_compared_stops_no_pass(
    place: Workplace, tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody promotes a model of a new search by hand: its classes, or the kinds of its columns, may be others."""
    shelf: Any = place.versions
    former = shelf.bundles[0]
    manifest = former.manifest
    changes: dict[str, Any] = {"target": manifest.target.model_copy(update={"classes": ("0", "1")})}
    if other == "columns":
        columns = [one for one in manifest.data_schema.columns if one.name != "carrier"]
        changes = {"data_schema": Schema(columns=(*columns, NumericColumn(name="carrier", low=0, high=9)))}
    shelf.bundles[0] = ModelBundle(former.folder, manifest.model_copy(update=changes))
    promote(place, tmp_path / "new", quality=1.0)
    week(place, tmp_path)
    with caplog.at_level("INFO", logger="everfit"):
        assert bake(place, AS_OF) is None
    assert "no look at the new champion now: " in caplog.text
    assert aliases(place) == ("2", "1")
    assert place.ledger.read(kinds={KIND}) == []


@pytest.mark.parametrize("why", ["over", "off", "first", "by hand", "busy", "few"])
def test_who_is_not_in_the_oven(place: Workplace, tmp_path: Path, why: str) -> None:
    if why == "first":
        place.ledger.write(Entry(task="handmade", kind="promotion", at=BEGIN, version="1", outcome="promoted"))
    else:
        promote(place, tmp_path / "worse", quality=-1.0)
    week(place, tmp_path, rows=20 if why == "few" else 1_008)
    if why == "over":
        for index in range(place.task.gate.bake + 1):
            end = AS_OF - index * timedelta(hours=1)
            details = {"window": {"index": index, "start": str(BEGIN), "end": str(end)}}
            place.ledger.write(Entry(task="handmade", kind="window", at=end, version="2", details=details))
    if why == "by hand":
        place.versions.promote("handmade", place.versions.publish(make_bundle(tmp_path / "other")))
    gate = place.task.gate.model_copy(update={"bake": 0 if why == "off" else 4})
    place = replace(place, task=place.task.model_copy(update={"gate": gate}))
    before = aliases(place)
    if why == "busy":
        with one_at_a_time(place):
            assert bake(place, AS_OF) is None
    else:
        assert bake(place, AS_OF) is None
        assert (in_the_oven(place, AS_OF) is None) == (why != "few")
    assert aliases(place) == before
