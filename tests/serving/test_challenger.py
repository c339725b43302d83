"""A canary answers its share of the requests, the same ones each time, and none that the champion alone can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson

from registry.bundle import ModelBundle
from registry.errors import BundleError
from serving.challenger import Cast, Understudy, chosen
from serving.champion import Served, Slot
from serving.metrics import Counts
from serving.prediction import Predictor
from serving.request import Request
from tests.serving.conftest import ROW, FakeVersions, endpoint, wait_for
from tests.serving.test_faults import log_of


def version_for(client: httpx.Client, key: str) -> str:
    answer = client.post("/predict", json=ROW, headers={"X-Everfit-Key": key})
    return str(answer.raise_for_status().json()["model"]["version"])


def test_a_share_of_the_users_meets_it_and_always_the_same(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    versions.champion, versions.challenger = "1", "2"
    with endpoint(tmp_path, versions, shadow=False) as client:
        users = [f"user {number}" for number in range(200)]
        assert {version_for(client, user) for user in users[:20]} == {"1"}
        versions.shares["2"] = 0.2
        wait_for(lambda: client.get("/model").json()["canary"] == {"version": "2", "share": 0.2})
        met = {user for user in users if version_for(client, user) == "2"}
        assert 20 <= len(met) <= 60
        assert {user for user in users if version_for(client, user) == "2"} == met
        versions.shares["2"] = 0.5
        wait_for(lambda: client.get("/model").json()["canary"]["share"] == 0.5)
        more = {user for user in users if version_for(client, user) == "2"}
        assert met < more
        assert len({client.post("/predict", json=ROW).json()["model"]["version"] for _ in range(5)}) == 1
        versions.challenger = None
        wait_for(lambda: client.get("/model").json()["canary"] is None)
        assert {version_for(client, user) for user in more} == {"1"}
        count = 20 + 3 * 200 + 5 + len(more)
        wait_for(lambda: log_of(tmp_path).counts().predictions == count)
    assert log_of(tmp_path).versions()["2"] in range(len(met) * 2 + len(more), len(met) * 2 + len(more) + 6)


class Written:
    """A log that keeps who answered."""

    synced = False

    def __init__(self) -> None:
        self.versions: list[str] = []

    def append(self, version: str, *_: object) -> None:
        """One request's records."""
        self.versions.append(version)


def test_what_it_cannot_answer_is_the_champions(bundles: dict[str, ModelBundle]) -> None:
    """A challenger that wants a column which clients do not send."""
    slot, written = Slot("handmade"), Written()
    slot.put(Served.load(bundles["good"], "1", "handmade"))
    wider = Served.load(bundles["reverse"], "2", "handmade")
    wider.reader._columns.append(("absent", float, float))
    logbook: Any = written
    predict = Predictor(slot, logbook, Counts())
    slot.canary = wider, 1.0
    answer = asyncio.run(predict.answer(Request([dict(ROW)]), orjson.dumps(ROW), b"any"))
    assert answer.served.version == "1"
    assert written.versions == ["1"]


def understudy(lines: list[str], cast: Cast | None = None) -> tuple[Understudy, Slot]:
    async def attempt(work: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        try:
            return work(*args), None
        except BundleError as error:
            return None, error

    found: Callable[..., Awaitable[Any]] = attempt
    slot = Slot("handmade")
    return Understudy(slot, found, lambda _level, line: lines.append(line), cast), slot


def test_one_that_cannot_be_loaded_is_said_once(bundles: dict[str, ModelBundle]) -> None:
    class Damaged(FakeVersions):
        def fetch(self, task: str, version: str) -> ModelBundle:
            self.fetched.append(version)
            raise BundleError("the file was changed")

    versions, lines = Damaged(v2=bundles["good"]), list[str]()
    versions.challenger, versions.shares["2"] = "2", 1.0
    follower, slot = understudy(lines)
    for _ in range(3):
        asyncio.run(follower.look(versions))
    assert slot.canary is None
    assert versions.fetched == ["2"]
    assert lines == ["task 'handmade': challenger 2: the file was changed"]


def test_a_challenger_that_is_replaced_leaves_the_shadow_though_the_next_one_is_bad(
    bundles: dict[str, ModelBundle],
) -> None:
    versions, told = FakeVersions(v2=bundles["good"]), list[str | None]()
    follower, _ = understudy([], lambda version, _folder: told.append(version))
    versions.challenger = "2"
    asyncio.run(follower.look(versions))
    versions.challenger = "9"
    versions.bundles["9"] = ModelBundle(bundles["good"].folder / "nowhere", bundles["good"].manifest)
    for _ in range(2):
        asyncio.run(follower.look(versions))
    assert told == ["2", None]


def test_keys_are_spread_evenly() -> None:
    for share in (0.0, 0.05, 0.5, 1.0):
        met = sum(chosen(f"{number}".encode(), share) for number in range(20_000)) / 20_000
        assert abs(met - share) < 0.01
