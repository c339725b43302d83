"""Improvement with a real search and a real gate: degraded, searched, judged, promoted; killed anywhere, completed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.commands_decide import outcome_line, tried_lines
from flows.deeds import summary
from flows.improve import _tried, complete, improve, one_at_a_time
from flows.intents import Intent, Intents
from flows.lifecycle import lifecycle
from flows.retracing import Proof
from flows.rows import kept, known_rows, unseen_rows
from flows.wishes import wished
from flows.workplace import Workplace
from registry.decisions import Remedy, parse_remedies
from registry.errors import BusyError, InputError, NoModelError
from registry.ledger import Entry
from registry.scoring import Scores
from tests.flows.conftest import TINY_SEARCH, fill
from tests.handmade import make_frame, make_schema

AS_OF = datetime(2024, 3, 16)


@pytest.fixture
def degraded(make_place: Callable[..., Workplace], tmp_path: Path) -> Workplace:
    """Two weeks in which the relation to the target is reversed, with their labels."""
    research = {"trials": 2, "seconds": 20, "history": "14d"}
    place = make_place(search=TINY_SEARCH, research=research, gate={"min_rows": 150, "latency_ratio": 100})
    fill(place.log, make_frame(2016, seed=5, start="2024-03-02", flip=1.0), tmp_path / "bundle")
    return place


def kinds(place: Workplace) -> Counter[str]:
    return Counter(entry.kind for entry in place.ledger.read())


def run_and_die(where: str) -> None:
    """Run the lifecycle in a process that is killed, without notice, as soon as it has done `where`."""
    code = f"""
import os, signal
from registry.versions import Versions

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

publish, promote = Versions.publish, Versions.promote
if {where!r} == "publish":
    Versions.publish = lambda *args, **more: die(publish(*args, **more))
else:
    Versions.promote = lambda *args: promote(*args, step=die)

from datetime import datetime
from flows.lifecycle import lifecycle
lifecycle.fn("handmade", as_of=datetime({AS_OF.year}, {AS_OF.month}, {AS_OF.day}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def test_degraded_searched_judged_promoted_and_killed_in_between(degraded: Workplace) -> None:
    watched = {"window": 2, "decision": 1, "alert": 1, "radius": 1}
    run_and_die("publish")
    assert kinds(degraded) == {**watched, "intent": 1, "remedy": 2}  # its champion has no networks to be trained on
    assert degraded.versions.get("handmade", "champion") == "1"
    (bundle,) = degraded.study.glob("*/research/bundle/bundle.json")
    made = bundle.stat().st_mtime_ns

    run_and_die("promote")
    assert kinds(degraded) == {**watched, "intent": 1, "remedy": 3, "gate": 1}
    assert bundle.stat().st_mtime_ns == made
    assert [one.version for one in degraded.versions.list("handmade")] == ["1", "2"]

    found = lifecycle.fn("handmade", as_of=AS_OF)["improvement"]
    assert (found["outcome"], found["version"], found["champion"]) == ("promote", "2", "1")
    assert "auc" in found["reasons"][0]
    done = {"intent": 1, "remedy": 3, "gate": 1, "promotion": 1, "improvement": 1, "notice": 1}
    assert kinds(degraded) == {**watched, **done}
    assert {entry.at for entry in degraded.ledger.read(kinds=done)} == {AS_OF}
    aliases = {alias: degraded.versions.get("handmade", alias) for alias in ("champion", "previous", "challenger")}
    assert aliases == {"champion": "2", "previous": "1", "challenger": None}
    assert not list(degraded.study.iterdir())
    _is_its_child(degraded)

    assert wished(degraded) is None
    again = improve.fn("handmade", as_of=AS_OF.replace(tzinfo=UTC))
    assert {**again, "already": ""} == found
    assert "as of 2024-03-16 00:00: version 2 was promoted, and is the champion;" in outcome_line("handmade", again)
    assert kinds(degraded) == {**watched, **done}


def _is_its_child(place: Workplace) -> None:
    manifest = place.versions.fetch("handmade", "2").manifest
    assert manifest.lineage.parent_version == "1"
    assert manifest.lineage.known_until is not None
    assert manifest.lineage.known_until < AS_OF
    assert manifest.data_schema.names == make_schema().names


def test_a_decision_nobody_followed_is_followed_by_the_next_pass(place: Workplace) -> None:
    at = datetime(2024, 3, 9)
    place.ledger.write(Entry(task="handmade", kind="decision", at=at, outcome="research", reasons=("auc fell",)))
    wish = wished(place)
    assert wish is not None
    assert (wish.as_of, wish.reason, wish.remedies) == (at, "auc fell", "research")
    Intents(place.ledger, "handmade").begin("improve", at, champion="1")
    assert wished(place).reason == "an improvement was broken off"  # type: ignore[union-attr]
    with one_at_a_time(place):
        assert wished(place) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected some of recalibrate, follow, fine_tune, research, search with commas"),
        (" , ", "expected some of recalibrate"),
        ("fine_tun,research", r"unknown remedy 'fine_tun': expected one of .*\(did you mean 'fine_tune'"),
        ("none", "unknown remedy 'none'"),
    ],
)
def test_words_that_are_no_remedies_are_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_remedies(text)


def test_each_remedy_that_was_tried_is_told_with_its_verdict(place: Workplace) -> None:
    """Of one that could not be carried out, the reason is."""
    intents, version = Intents(place.ledger, "handmade"), {"version": "2"}
    intent = intents.begin("improve", AS_OF, champion="1", remedies=["recalibrate", "fine_tune", "research"])
    refused = {"outcome": "refused", "reasons": ("too few rows",)}
    intents.write(intent, "remedy", details={"remedy": "recalibrate"}, **refused)
    intents.write(intent, "remedy", details={"remedy": "fine_tune"}, outcome="registered", **version)
    judged = {"outcome": "hold", "reasons": ("auc +.001",)}
    intents.write(intent, "gate", details={"remedy": "fine_tune", **version}, **judged, **version)
    tried = list(_tried(intents, intent))
    assert [(one["remedy"], one["version"], one["outcome"]) for one in tried] == [
        ("recalibrate", None, "refused"),
        ("fine_tune", "2", "hold"),
    ]
    done = summary(intents.end(intent, outcome="hold", version="2", reasons=("auc +.001",), details={"tried": tried}))
    assert outcome_line("handmade", done) == "handmade: hold (fine_tune, version 2)"
    assert list(tried_lines(done)) == [
        "recalibrate: refused",
        "  too few rows",
        "fine_tune, version 2: hold",
        "  auc +.001",
    ]
    assert list(tried_lines({**done, "tried": tried[1:]})) == ["auc +.001"]


def test_a_decision_with_more_than_one_remedy_is_followed_in_its_order(place: Workplace) -> None:
    details = {"then": ["research"]}
    decision = Entry(task="handmade", kind="decision", at=AS_OF, outcome="fine_tune", details=details)
    place.ledger.write(decision)
    assert wished(place).remedies == "fine_tune,research"  # type: ignore[union-attr]


def test_a_rollback_by_hand_answers_a_decision(place: Workplace) -> None:
    at = datetime(2024, 3, 9)
    place.ledger.write(Entry(task="handmade", kind="decision", at=at, outcome="search", reasons=("auc fell",)))
    assert wished(place).remedies == "search"  # type: ignore[union-attr]
    place.ledger.write(Entry(task="handmade", kind="rollback", at=at, version="0"))
    assert wished(place) is None


def test_only_one_at_a_time(place: Workplace) -> None:
    with one_at_a_time(place), pytest.raises(BusyError, match=rf"{os.getpid()}"):
        improve.fn("handmade")


def test_nothing_to_learn_from_is_refused_and_written_down(place: Workplace) -> None:
    before = datetime(2023, 12, 1)  # the source begins in 2024
    entry = complete(place, before)
    assert (entry.kind, entry.outcome, entry.version) == ("improvement", "refused", None)
    assert "no labelled row is known by 2023-12-01" in entry.reasons[0]
    assert place.versions.get("handmade", "challenger") is None
    assert Intents(place.ledger, "handmade").open("improve") is None


def test_too_few_fresh_rows_are_refused_before_the_search(place: Workplace, tmp_path: Path) -> None:
    fill(place.log, make_frame(40, start="2024-03-02"), tmp_path / "bundle")
    entry = complete(place, AS_OF)
    assert (entry.outcome, entry.version) == ("refused", None)
    assert entry.reasons == ("only 40 fresh labelled rows, 200 are needed to judge a new model",)
    assert kinds(place) == {"intent": 1, "improvement": 1}
    assert [one.version for one in place.versions.list("handmade")] == ["1"]


def test_without_a_time_column_only_rows_logged_since_the_promotion_are_unseen(
    make_place: Callable[..., Workplace], tmp_path: Path
) -> None:
    place = make_place()
    fill(place.log, make_frame(400, start="2024-03-02"), tmp_path / "bundle")
    assert unseen_rows(place, "1", make_schema(), AS_OF) == 0  # nobody knows since when it is the champion
    at = datetime(2024, 3, 4)
    place.ledger.write(Entry(task="handmade", kind="promotion", at=at, version="1", outcome="promoted"))
    later = make_frame(400, start="2024-03-02")["when"] > pd.Timestamp(at)
    assert unseen_rows(place, "1", make_schema(), AS_OF) == later.sum()
    assert unseen_rows(place, "2", make_schema(), AS_OF) == 0


def test_without_a_champion_there_is_nothing_to_improve(place: Workplace) -> None:
    place.versions.unset("handmade", "champion")
    with pytest.raises(NoModelError, match="run `everfit search` first"):
        complete(place, AS_OF)
    assert kinds(place) == {}


def test_the_same_twice_is_answered_once_and_more_is_done(place: Workplace, tmp_path: Path) -> None:
    """An event that comes twice starts nothing; other remedies do, and the same ones when what they led to is gone."""
    fill(place.log, make_frame(40, start="2024-03-02"), tmp_path / "bundle")
    intents, at = Intents(place.ledger, "handmade"), datetime(2024, 3, 3)
    intent = intents.begin("improve", at, champion="1", remedies=["research"])
    ended = intents.end(intent, outcome="hold", version="2", details={"champion": "1"})
    assert complete(place, at, remedies=(Remedy.RESEARCH,)).id == ended.id
    assert complete(place, at, remedies=(Remedy.RECALIBRATE,)).outcome == "refused"  # 40 rows are too few to judge
    assert kinds(place)["improvement"] == 2
    intent = intents.begin("improve", at, champion="1", remedies=["research"])
    intents.end(intent, outcome="promote", version="2", details={"champion": "1"})
    assert complete(place, at, remedies=(Remedy.RESEARCH,)).outcome == "refused", "the champion is 1 again"
    assert kinds(place)["improvement"] == 4


def test_rows_that_a_kill_left_behind_are_removed_by_the_next_one(place: Workplace) -> None:
    """They are in plain, whatever the log hides. Studies of searches stay."""
    intents, at = Intents(place.ledger, "handmade"), datetime(2024, 3, 3)
    intent = intents.begin("improve", at, champion="1", remedies=["research"])
    for name in (intent.id, "a-search"):
        kept(place.study / name, lambda: (make_frame(5), make_frame(3, seed=1)))
    intents.end(intent, outcome="hold", version="2", details={"champion": "1"})
    assert complete(place, at + timedelta(days=1)).outcome == "refused"
    assert [path.name for path in place.study.iterdir()] == ["a-search"]


def test_a_champion_changed_by_hand_is_not_overruled(place: Workplace, tmp_path: Path) -> None:
    fill(place.log, make_frame(40, start="2024-03-02"), tmp_path / "bundle")
    bundle = place.versions.fetch("handmade", "1")
    proved, chosen = place.versions.publish(bundle), place.versions.publish(bundle)
    intents = Intents(place.ledger, "handmade")
    intent = intents.begin("improve", datetime(2024, 3, 3), champion="1")
    write_proof(intents, intent, proved)
    place.versions.promote("handmade", chosen)
    entry = complete(place, intent.at)
    assert (entry.outcome, entry.reasons) == ("refused", ("version 2 was proved against 1, but 3 is the champion now",))
    assert place.versions.get("handmade", "champion") == chosen


def write_proof(intents: Intents, intent: Intent, version: str) -> None:
    intents.write(intent, "remedy", version=version, details={"remedy": "research"})
    verdict = {"outcome": "promote", "reasons": [], "checks": []}
    intents.write(intent, "gate", version=version, details={"verdict": verdict, "version": version})


def proved(place: Workplace, tmp_path: Path) -> tuple[Intents, Intent, str]:
    """An improvement whose aliases have moved to a proved version, cut off from the entry of its promotion."""
    fill(place.log, make_frame(40, start="2024-03-02"), tmp_path / "bundle")
    version = place.versions.publish(place.versions.fetch("handmade", "1"))
    intents = Intents(place.ledger, "handmade")
    intent = intents.begin("improve", datetime(2024, 3, 3), champion="1")
    write_proof(intents, intent, version)
    place.versions.promote("handmade", version)
    return intents, intent, version


def test_a_rollback_by_hand_is_not_overruled(place: Workplace, tmp_path: Path) -> None:
    _, intent, version = proved(place, tmp_path)
    place.versions.rollback("handmade")
    place.ledger.write(Entry(task="handmade", kind="rollback", at=AS_OF, version="1", reasons=("by hand",)))
    entry = complete(place, intent.at)
    reason = f"version {version} was proved, but since then a rollback by hand chose version 1"
    assert (entry.outcome, entry.reasons) == ("refused", (reason,))
    assert place.versions.get("handmade", "champion") == "1"


def test_a_promotion_that_is_written_down_is_not_repeated(place: Workplace, tmp_path: Path) -> None:
    intents, intent, version = proved(place, tmp_path)
    intents.write(intent, "promotion", version=version, outcome="promoted")
    place.versions.rollback("handmade")
    assert complete(place, intent.at).outcome == "promote"  # what it had done; the aliases stay as somebody put them
    assert place.versions.get("handmade", "champion") == "1"
    assert len(place.ledger.read(kinds={"promotion"})) == 1


def test_rows_hold_nothing_from_after_the_moment_and_none_twice(place: Workplace, tmp_path: Path) -> None:
    logged = pd.concat([make_frame(400, seed=1).tail(10), make_frame(200, start="2024-03-02")])
    fill(place.log, logged, tmp_path / "bundle", delay=timedelta(hours=2))
    as_of = datetime(2024, 3, 2, 12)
    rows = known_rows(place, make_schema(), as_of)
    assert rows["when"].is_monotonic_increasing
    assert rows["when"].is_unique
    assert len(rows) == 400 + 61  # one every ten minutes, and those of the last two hours have no label yet
    assert rows["when"].max() == pd.Timestamp("2024-03-02 10:00")
    assert rows["late"].isin(["yes", "no"]).all()
    assert len(known_rows(place, make_schema(), datetime(2024, 1, 2))) == 6 * 24 + 1


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (["late"], "the target column 'late', which"),
        (["when"], "the column 'when', which"),
        (["amount", "carrier"], "the columns 'amount', 'carrier', which"),
    ],
)
def test_a_source_that_lost_columns_is_refused_with_its_name_and_theirs(
    place: Workplace, tmp_path: Path, lost: list[str], said: str
) -> None:
    make_frame(400).drop(columns=lost).to_parquet(tmp_path / "source.parquet")
    entry = complete(place, AS_OF)
    assert entry.outcome == "refused"
    (reason,) = entry.reasons
    assert reason.startswith(f"{tmp_path / 'source.parquet'} no longer has {said}")
    assert all(repr(name) in reason for name in lost)


def test_a_proof_takes_the_place_of_another_one_whole(tmp_path: Path) -> None:
    spread = np.ones(3)
    rows, said = make_frame(3), Scores(np.zeros(3), spread, spread, interval=np.zeros((3, 2)))
    Proof(rows, said, said).save(tmp_path)
    Proof(rows.head(2), None, said.take(slice(2))).save(tmp_path)
    found = Proof.load(tmp_path)
    assert found is not None
    assert (found.old, len(found.rows), len(found.new)) == (None, 2, 2)


def test_rows_once_cut_stay_as_they_are(tmp_path: Path) -> None:
    first = kept(tmp_path, lambda: (make_frame(5), make_frame(3, seed=1)))
    again = kept(tmp_path, lambda: (make_frame(9), make_frame(9)))
    pd.testing.assert_frame_equal(first[0], again[0])
    pd.testing.assert_frame_equal(first[1], again[1])
