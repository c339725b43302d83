"""A canary on live traffic, from end to end: a real endpoint, users with keys, windows, labels, and a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.lifecycle import lifecycle
from flows.rollout import KIND, roll_out
from flows.services import everfit_environment
from flows.status_snapshot import _served
from flows.stream import Stream
from serving.challenger import chosen
from tests.flows.house import House, open_house
from tests.handmade import make_bundle

BEGIN = datetime(2024, 3, 2)  # after all that the handmade bundles know
WEEK, WEEKLY = timedelta(days=7), 168
SHARE, USERS = 0.4, tuple(f"user {number}" for number in range(21))
THEIRS = {user for user in USERS if chosen(user.encode(), SHARE)}
"""Whose requests are the canary's."""
BATCH = WEEKLY // len(USERS)

KILLED_BEFORE_IT_IS_TOLD = """
import os, signal, sys
from datetime import datetime
from flows.lifecycle import lifecycle
from registry.ledger import Ledger

write = Ledger.write

def fatal(self, entry):
    if entry.kind == "promotion":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, entry)

Ledger.write = fatal
lifecycle.fn("handmade", as_of=datetime.fromisoformat(sys.argv[1]))
"""


class Users:
    """Users who ask all the time, each with a key of theirs; who answered each of them, and what failed."""

    def __init__(self, house: House, stream: Stream) -> None:
        self._client = httpx.Client(base_url=house.url, trust_env=False, timeout=20)
        self._rows, self._ids = stream.records(0, len(USERS)), stream.ids(0, len(USERS))
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._ask, daemon=True)
        self.met: dict[str, list[str]] = {user: [] for user in USERS}
        self.sent, self.failed = 0, list[str]()

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)
        self._client.close()

    def _ask(self) -> None:
        while not self._stop.is_set():
            for user, row, one in zip(USERS, self._rows, self._ids, strict=True):
                answer = self._client.post(
                    "/predict", json={"rows": [row], "ids": [one]}, headers={"X-Everfit-Key": user}
                )
                self.sent += 1
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                elif (version := answer.json()["model"]["version"]) != [None, *self.met[user]][-1]:
                    self.met[user].append(version)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[House]:
    with open_house(
        tmp_path_factory.mktemp("house"), empty_registry, gate={"canary": {"share": SHARE, "windows": 2}}
    ) as opened:
        yield opened


@pytest.fixture
def _same_home(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows read the settings at their own door."""
    for name, value in everfit_environment(house.place.settings).items():
        monkeypatch.setenv(name, value)


def model(house: House) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{house.url}/model", trust_env=False).json()
    return found


def wait(house: House, version: str, canary: str | None) -> None:
    """Until the endpoint serves a version, and this canary beside it."""
    for _ in range(600):
        found = model(house)
        if (found["version"], (found["canary"] or {}).get("version")) == (version, canary):
            return
        time.sleep(0.05)
    raise AssertionError(found)


def pass_week(house: House, stream: Stream, number: int) -> dict[str, str]:
    """Send a week of rows, each user's in one request, and their labels; by user, who answered."""
    ids, met, first = stream.ids(0, len(stream)), {}, number * WEEKLY
    with httpx.Client(base_url=house.url, trust_env=False, timeout=60) as client:
        for user, start in zip(USERS, range(first, first + WEEKLY, BATCH), strict=True):
            stop = min(start + BATCH, first + WEEKLY)
            body = {"rows": stream.records(start, stop), "ids": ids[start:stop]}
            answer = client.post("/predict", json=body, headers={"X-Everfit-Key": user}).raise_for_status().json()
            met[user] = answer["model"]["version"]
        labels = stream.feedback(first, first + WEEKLY, timedelta(hours=1))
        client.post("/feedback", json={"labels": labels}).raise_for_status()
    while model(house)["log_backlog"]:
        time.sleep(0.05)
    return met


@pytest.mark.usefixtures("_same_home")
def test_one_that_is_worse_answers_its_share_and_is_let_go(house: House, tmp_path: Path) -> None:
    place, stream = house.place, house.stream(2 * WEEKLY, seed=7, start=str(BEGIN), every="1h")
    version = place.versions.publish(make_bundle(tmp_path / "worse", quality=-1.0))
    with Users(house, house.stream(len(USERS), seed=8, start="2024-02-20")) as users:
        roll_out(place, version, "1", ("better",), BEGIN)
        wait(house, "1", version)
        assert _served(place) == f"version 1, {SHARE:.0%} by {version}", "the status page tells who answers beside it"
        assert pass_week(house, stream, 0) == {user: version if user in THEIRS else "1" for user in USERS}
        first = lifecycle.fn("handmade", as_of=BEGIN + WEEK + timedelta(hours=2))
        assert (first["improvement"]["by"], first["improvement"]["outcome"]) == ("canary", "hold")
        pass_week(house, stream, 1)
        second = lifecycle.fn("handmade", as_of=BEGIN + 2 * WEEK + timedelta(hours=2))
        assert (second["improvement"]["by"], second["improvement"]["outcome"]) == ("canary", "reject")
        wait(house, "1", None)
        time.sleep(0.5)
    assert users.failed == []
    assert users.sent > 100
    assert users.met == {user: ["1", version, "1"] if user in THEIRS else ["1"] for user in USERS}
    assert place.versions.get("handmade", "challenger") is None
    logged = house.logged(stream).groupby("__version__").size().to_dict()
    assert logged.keys() == {"1", version}
    assert sum(logged.values()) == 2 * WEEKLY


@pytest.mark.usefixtures("_same_home")
def test_one_that_is_not_is_promoted_though_its_promotion_was_killed(house: House, tmp_path: Path) -> None:
    place, begin = house.place, BEGIN + 2 * WEEK
    stream = house.stream(2 * WEEKLY, seed=9, start=str(begin), every="1h")
    version = place.versions.publish(make_bundle(tmp_path / "as-good"))
    with Users(house, house.stream(len(USERS), seed=10, start="2024-02-20")) as users:
        roll_out(place, version, "1", ("better",), begin)
        wait(house, "1", version)
        for number in range(2):
            assert pass_week(house, stream, number) == {user: version if user in THEIRS else "1" for user in USERS}
        as_of = begin + 2 * WEEK + timedelta(hours=2)
        command = [sys.executable, "-c", KILLED_BEFORE_IT_IS_TOLD, as_of.isoformat()]
        killed = subprocess.run(command, env=house.environment, check=False, timeout=120)
        assert killed.returncode == -9
        assert place.ledger.read(kinds={"promotion"}) == []
        wait(house, version, None)  # the aliases had moved
        done = lifecycle.fn("handmade", as_of=as_of)
        assert (done["improvement"]["by"], done["improvement"]["outcome"]) == ("canary", "promote")
        time.sleep(0.5)
    assert users.failed == []
    assert users.met == {user: ["1", version] for user in USERS}  # theirs sooner, and nobody back and forth
    (told,) = place.ledger.read(kinds={"promotion"})
    assert (told.version, told.details["previous"]) == (version, "1")
    assert [one.outcome for one in place.ledger.read(kinds={KIND})][-2:] == ["begun", "promoted"]
    assert place.versions.canary("handmade", version) == 0
