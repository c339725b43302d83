"""Hidden columns all the way: an endpoint and its keeper, a monitored window, and what remedies and gates then get."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.improve import complete
from flows.intents import Intents
from flows.offline import Offline
from flows.rows import known_rows, unseen_rows
from flows.second_look import fresh_rows
from flows.workplace import Workplace, register_task, take_over_log
from monitor.watching import WatchReport, watch
from registry.bundle import ModelBundle
from registry.conforming import conform
from registry.decisions import Remedy
from registry.errors import TaskError
from registry.ledger import Entry
from registry.log_frame import having
from registry.settings import Settings
from registry.task import TaskSpec, load
from retrain.checks import examine
from tests.flows.conftest import fill
from tests.flows.shelf import Shelf
from tests.handmade import make_bundle, make_frame, make_schema, make_task
from tests.serving.conftest import FakeVersions, endpoint, wait_for

WEEK, BEGIN = 1_008, datetime(2024, 3, 4)
HIDDEN = {"drop": ["weight"], "hash": ["member"], "encrypt": ["amount", "carrier"]}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    make_frame(400).to_parquet(tmp_path / "source.parquet")
    return Settings(home=tmp_path / "home")


def task_of(settings: Settings, **log: list[str]) -> TaskSpec:
    """The handmade task with a source and such a log, registered."""
    source = {"kind": "file", "path": str(settings.folder.parent / "source.parquet")}
    task = make_task(source=source, log=log, gate={"min_rows": 150})
    register_task(settings, task)
    return task


def place_of(settings: Settings, task: TaskSpec) -> Workplace:
    folder = settings.folder.parent / "bundle"
    bundle = ModelBundle.load(folder) if folder.exists() else make_bundle(folder)
    place = Workplace.open(settings, task)
    shelf: Any = Shelf([bundle])
    return Workplace(settings, task, place.log, place.ledger, shelf)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.drop(columns="late").to_json(orient="records", date_format="iso", date_unit="us")
    found: list[dict[str, Any]] = json.loads(plain)
    return found


def look(place: Workplace, weeks: int = 1) -> WatchReport:
    bundle = place.versions.fetch("handmade", "1")
    return watch(place.task, bundle, "1", place.log, place.ledger, as_of=BEGIN + timedelta(days=7 * weeks, hours=2))


def stored(settings: Settings) -> bytes:
    return b"".join(path.read_bytes() for path in settings.folder.glob("everfit.db*"))


def test_from_the_endpoint_to_the_ledger_nothing_hidden_is_written_in_plain(settings: Settings) -> None:
    """Before the task hides anything, and from then on, without a restart."""
    place = place_of(settings, task_of(settings))
    versions = FakeVersions(v1=place.versions.fetch("handmade", "1"), v2=make_bundle(settings.folder.parent / "two"))
    versions.champion, versions.challenger = "1", "2"
    frame = make_frame(WEEK + 1, seed=3, start=str(BEGIN)).assign(carrier="zz-secret-carrier")
    sent = rows_of(frame)
    with endpoint(settings.home, versions) as client:
        wait_for(lambda: (client.get("/model").json()["shadow"] or {}).get("version") == "2")
        client.post("/predict", json={"rows": [{**sent[0], "carrier": "plainly-there"}], "ids": ["plain"]})
        wait_for(lambda: place.log.counts(role=None).predictions == 2)
        place = place_of(settings, task_of(settings, **HIDDEN))
        answer = client.post("/predict", json={"rows": sent[:-1], "ids": [str(row) for row in range(WEEK)]})
        assert answer.status_code == 200
        wait_for(lambda: place.log.counts(role=None).predictions == 2 * (WEEK + 1))
        labels = [{"id": str(row), "label": label} for row, label in enumerate(frame["late"][:-1])]
        assert client.post("/feedback", json={"labels": labels}).json()["stored"] == WEEK
        closing = {**sent[-1], "when": str(BEGIN + timedelta(days=7, hours=1))}
        client.post("/predict", json={"rows": [closing], "ids": ["closing"]})
        wait_for(lambda: place.log.counts().predictions == WEEK + 2)
        assert client.get("/model").json()["log"] == "ok"
    logged = place.log.frame(role=None, columns=["amount", "carrier"]).drop_duplicates("__id__").set_index("__id__")
    assert logged.loc["plain", "carrier"] == "plainly-there"
    assert logged.loc["5", "carrier"] == "zz-secret-carrier"
    assert logged.loc["5", "amount"] == sent[5]["amount"]
    found = look(place)
    (record,) = found.records
    assert {one.subject: one.note for one in record.named("unwatched")} == {"member": "hashed", "weight": "dropped"}
    assert {one.subject for one in record.named("shift")} == {"when", "amount", "carrier"}
    unseen = next(one for one in record.named("unseen") if one.subject == "carrier")
    assert (unseen.value or 0) > 0.99
    assert not any("secret" in reason for reason in found.decision.reasons)
    assert any("not watched" in reason and "weight (dropped)" in reason for reason in found.decision.reasons)
    content = stored(settings)
    assert b"plainly-there" in content
    assert b"zz-secret-carrier" not in content
    assert not [row for row in sent[1:200] if repr(row["amount"]).encode() in content]


def test_encrypted_rows_reach_remedies_and_gates_as_before(settings: Settings, tmp_path: Path) -> None:
    place = place_of(settings, task_of(settings, encrypt=["amount", "carrier", "member"]))
    frame = make_frame(300, seed=5, start=str(BEGIN))
    fill(place.log, frame, tmp_path / "bundle")
    known = known_rows(place, make_schema(), BEGIN + timedelta(days=7))
    assert len(known) == 700
    pd.testing.assert_frame_equal(
        known[400:].reset_index(drop=True)[["amount", "carrier", "member"]],
        conform(frame, make_schema())[["amount", "carrier", "member"]],
        rtol=1e-9,
    )
    bundle = place.versions.fetch("handmade", "1")
    assert len(fresh_rows(place, bundle, bundle, BEGIN + timedelta(days=7))) == 300


@pytest.mark.parametrize("way", ["drop", "hash"])
def test_rows_that_lack_a_column_reach_no_remedy_and_the_refusal_says_why(
    settings: Settings, tmp_path: Path, way: str
) -> None:
    place = place_of(settings, task_of(settings, **{way: ["amount"]}))
    fill(place.log, make_frame(300, seed=5, start=str(BEGIN)), tmp_path / "bundle")
    as_of = BEGIN + timedelta(days=7)
    assert len(known_rows(place, make_schema(), as_of)) == 400, "the source alone"
    place.ledger.write(Entry(task="handmade", kind="promotion", at=datetime(2024, 3, 1), version="1"))
    assert unseen_rows(place, "1", make_schema(), as_of) == 0
    assert unseen_rows(place, "1", make_schema().without({"amount"}), as_of) == 300
    ended = complete(place, as_of, remedies=(Remedy.RECALIBRATE,))
    assert ended.outcome == "refused"
    assert "drops or hashes amount: add newer labelled rows to the source" in ended.reasons[0]
    assert Intents(place.ledger, "handmade").open("improve") is None


def test_a_window_of_which_nothing_can_be_watched_is_judged_by_its_answers(settings: Settings, tmp_path: Path) -> None:
    place = place_of(settings, task_of(settings, drop=["amount", "weight", "member"], hash=["carrier"]))
    fill(place.log, make_frame(WEEK + 20, seed=5, start=str(BEGIN)), tmp_path / "bundle")
    (record,) = look(place).records
    assert record.performance is not None
    assert record.performance.rows > 900
    assert {one.subject for one in record.named("shift")} <= {"when"}


def test_a_back_test_hides_as_the_endpoint_does(settings: Settings) -> None:
    place = place_of(settings, task_of(settings, **HIDDEN))
    rows = rows_of(make_frame(20, start=str(BEGIN)).assign(carrier="zz-secret-carrier"))
    Offline(place).post("/predict", {"rows": rows, "ids": [str(row) for row in range(20)]})
    frame = place.log.frame(columns=["carrier"])
    assert set(frame["carrier"]) == {"zz-secret-carrier"}
    assert having(frame, ["weight"]).empty
    assert b"zz-secret" not in stored(settings)


def test_a_file_that_is_served_says_what_its_log_hides(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(settings)
    shelf = Shelf([make_bundle(settings.folder.parent / "bundle")])
    monkeypatch.setattr("flows.workplace.open_versions", lambda _: shelf)
    good, wrong = make_task(log={"drop": ["weight"]}), make_task(log={"drop": ["wieght"]})
    with pytest.raises(TaskError, match=r"unknown column in `log` 'wieght'.*did you mean 'weight'"):
        take_over_log(settings, wrong)
    assert load(settings.task_file("handmade")) == task
    take_over_log(settings, good)
    assert load(settings.task_file("handmade")) == task.model_copy(update={"log": good.log})


def test_a_search_refuses_a_column_that_the_data_do_not_have() -> None:
    first, *_ = examine(make_frame(400), make_task(log={"encrypt": ["carier"]}))
    assert (first.level, first.column) == ("fatal", "carier")
    assert str(first).endswith("the data have no such column (did you mean 'carrier'?); correct `log` in the task")
