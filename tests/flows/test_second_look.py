"""Held challengers: promoted or rejected as labels arrive, looked at so often and no more, never twice promoted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import flows.second_look
from flows.improve import one_at_a_time
from flows.second_look import KIND, LOOKS, fresh_rows, held_challenger, look_again
from flows.watch import watch
from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.ledger import Entry, Ledger
from registry.schema import Schema
from tests.flows.conftest import fill
from tests.flows.shelf import shelf_place
from tests.handmade import make_bundle, make_frame, make_task

BEGIN = datetime(2024, 3, 2)  # after all that the handmade bundles know
AS_OF = BEGIN + timedelta(days=7)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """The handmade task with its champion, on a registry in memory."""
    return shelf_place(tmp_path)


def hold(place: Workplace, folder: Path, *, quality: float, rows: int = 100) -> str:
    """Register a challenger of some quality and write that it was held, judged on so many rows."""
    version = place.versions.publish(make_bundle(folder, quality=quality))
    place.versions.set("handmade", "challenger", version)
    details = {"champion": place.versions.get("handmade", "champion"), "rows": rows}
    for kind in ("gate", "improvement"):
        end = Entry(task="handmade", kind=kind, at=BEGIN, version=version, outcome="hold", details=details)
        place.ledger.write(end)
    return version


def week(place: Workplace, tmp_path: Path, *, flip: float = 0.0) -> None:
    """Log a week: 144 rows a day. With `flip` the relation to the target is the champion's turned round."""
    fill(place.log, make_frame(1_008, seed=5, start=str(BEGIN), flip=flip), tmp_path / "bundle")


def test_a_better_challenger_is_promoted_once_it_shows(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path, flip=1.0)
    version = hold(place, tmp_path / "better", quality=-1.0)
    found = look_again(place, AS_OF)
    assert found is not None
    assert (found["outcome"], found["version"], found["champion"]) == ("promote", version, "1")
    assert place.versions.get("handmade", "champion") == version
    (promotion,) = place.ledger.read(kinds={"promotion"})
    assert (promotion.version, promotion.at) == (version, AS_OF)
    assert look_again(place, AS_OF) is None


def test_rows_have_the_columns_of_both_models(place: Workplace, tmp_path: Path) -> None:
    """A column that did not vary in the challenger's training is none of its own, and the champion needs it."""
    week(place, tmp_path)
    wide = make_bundle(tmp_path / "wide")
    columns = [column for column in wide.manifest.data_schema.columns if column.name != "weight"]
    narrow = ModelBundle(
        wide.folder, wide.manifest.model_copy(update={"data_schema": Schema(columns=tuple(columns[::-1]))})
    )
    for champion, challenger in ((wide, narrow), (narrow, wide)):
        rows = fresh_rows(place, champion, challenger, AS_OF)
        assert set(rows) == {"when", "amount", "weight", "member", "carrier", "late"}
        assert rows["weight"].notna().all()


def test_a_worse_one_is_let_go(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path)
    hold(place, tmp_path / "worse", quality=-1.0)
    found = look_again(place, AS_OF)
    assert found is not None
    assert found["outcome"] == "reject"
    assert place.versions.get("handmade", "challenger") is None
    assert place.versions.get("handmade", "champion") == "1"
    assert look_again(place, AS_OF) is None


def test_an_equal_one_is_looked_at_so_often_and_no_more(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path)
    hold(place, tmp_path / "equal", quality=1.0)
    outcomes = [look_again(place, BEGIN + timedelta(days=days)) for days in (1.6, 2.1, 3, 4, 7)]
    assert [one["outcome"] if one else None for one in outcomes] == ["hold"] * LOOKS + [None]
    assert len(place.ledger.read(kinds={KIND})) == LOOKS


def test_a_look_is_spent_only_on_a_quarter_more_rows(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path)
    hold(place, tmp_path / "equal", quality=1.0, rows=300)
    days = (1, 2.4, 2.8, 2.9, 3.3, 3.8)  # 138, 339, 397, 411, 469 and 541 rows
    looks = [look_again(place, BEGIN + timedelta(days=one)) is not None for one in days]
    assert looks == [False, False, True, False, False, True]
    assert len(place.ledger.read(kinds={KIND})) == 2


def test_only_labels_that_have_arrived_and_rows_that_neither_knows(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path)
    champion = place.versions.fetch("handmade", "1")
    rows = fresh_rows(place, champion, champion, BEGIN + timedelta(days=1))
    assert rows["when"].min() >= BEGIN
    assert rows["when"].max() <= BEGIN + timedelta(days=1) - timedelta(hours=1)  # labels come an hour late
    assert fresh_rows(place, champion, champion, BEGIN).empty


def test_a_promotion_cut_off_from_its_entry_is_completed(place: Workplace, tmp_path: Path) -> None:
    version = hold(place, tmp_path / "better", quality=1.0)
    place.versions.promote("handmade", version)
    found = look_again(place, AS_OF)
    assert found is not None
    assert found["outcome"] == "promote"
    assert [one.version for one in place.ledger.read(kinds={"promotion"})] == [version]
    assert held_challenger(place) is None


class KilledError(BaseException):
    """The process ends there."""


def dying(call: Callable[..., object]) -> Callable[..., object]:
    """Done as it is, and then the process is gone."""

    def die(*given: Any, **more: Any) -> object:
        call(*given, **more)
        raise KilledError

    return die


_ENDS = {
    "promote": (1.0, {}),
    "reject": (0.0, {}),
    "asked": (1.0, {"mode": "approve"}),
    "canary": (1.0, {"gate": {"canary": {"share": 0.2, "windows": 2}}}),
}
"""By what a look ends with: whether the week is the champion's relation turned round, and what is set in the task."""


@pytest.mark.parametrize("outcome", _ENDS)
@pytest.mark.parametrize("where", ["told", "moved", "done"])
def test_a_look_that_was_killed_is_acted_on_once_by_the_next_and_stays_in_the_ledger(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, where: str
) -> None:
    flip, changes = _ENDS[outcome]
    place = replace(place, task=make_task(**changes))  # type: ignore[arg-type]
    week(place, tmp_path, flip=flip)
    version = hold(place, tmp_path / "held", quality=-1.0)
    with monkeypatch.context() as patched:
        if where == "told":
            patched.setattr(Ledger, "write", dying(Ledger.write))
        elif where == "moved":
            name = {"promote": "promote", "reject": "unset", "asked": "get", "canary": "set"}[outcome]
            patched.setattr(place.versions, name, dying(getattr(place.versions, name)))
        else:
            patched.setattr(flows.second_look, "_act", dying(flows.second_look._act))
        with pytest.raises(KilledError):
            look_again(place, AS_OF)
    for _ in range(2):
        look_again(place, AS_OF)
    (look,) = place.ledger.read(kinds={KIND})
    assert (look.outcome, look.version, look.at) == (outcome, version, AS_OF)
    acts = [(one.kind, one.outcome) for one in place.ledger.read(kinds={"promotion", "approval", "canary"})]
    assert (
        acts
        == {
            "promote": [("promotion", "promoted")],
            "reject": [],
            "asked": [("approval", "asked")],
            "canary": [("canary", "begun")],
        }[outcome]
    )
    aliases = [place.versions.get("handmade", name) for name in ("champion", "challenger")]
    assert aliases == {"promote": [version, None], "reject": ["1", None]}.get(outcome, ["1", version])
    assert place.versions.canary("handmade", version) == (0.2 if outcome == "canary" else 0.0)


def test_a_champion_changed_by_hand_ends_it(place: Workplace, tmp_path: Path) -> None:
    hold(place, tmp_path / "held", quality=1.0)
    place.versions.promote("handmade", place.versions.publish(make_bundle(tmp_path / "other")))
    assert held_challenger(place) is None


def test_a_champion_changed_while_it_is_judged_is_not_overruled(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path, flip=1.0)
    hold(place, tmp_path / "better", quality=-1.0)
    shelf: Any = place.versions
    fetch = shelf.fetch

    def meddle(task: str, version: str) -> ModelBundle:
        shelf.aliases["champion"] = "7"
        return fetch(task, version)  # type: ignore[no-any-return]

    shelf.fetch = meddle
    assert look_again(place, AS_OF) is None
    assert shelf.aliases["champion"] == "7"
    assert place.ledger.read(kinds={KIND, "promotion"}) == []


def test_while_an_improvement_is_at_work_there_is_none(place: Workplace, tmp_path: Path) -> None:
    week(place, tmp_path, flip=1.0)
    hold(place, tmp_path / "held", quality=-1.0)
    with one_at_a_time(place):
        assert look_again(place, AS_OF) is None


def test_a_task_that_is_never_repaired_gets_none(place: Workplace, tmp_path: Path) -> None:
    hold(place, tmp_path / "held", quality=-1.0)
    assert held_challenger(place) is not None
    assert held_challenger(replace(place, task=make_task(policy={"kind": "never"}))) is None


def test_watching_promotes_only_where_it_repairs(make_place: Callable[..., Workplace], tmp_path: Path) -> None:
    place = make_place()
    week(place, tmp_path, flip=1.0)
    version = hold(place, tmp_path / "better", quality=-1.0)
    watch.fn("handmade", as_of=AS_OF, repair=False)
    assert place.versions.get("handmade", "champion") == "1"
    watch.fn("handmade", as_of=AS_OF)
    assert place.versions.get("handmade", "champion") == version
