"""Following the champion: what is asked of the registry, what is remembered, when a bad version is tried again."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.errors import NoModelError
from serving import champion
from serving.champion import Follower, Slot
from tests.handmade import make_frame
from tests.serving.conftest import FakeVersions


class Watch:
    """A follower of the task `handmade`, looked at by hand."""

    def __init__(self, folder: Path, versions: FakeVersions) -> None:
        self.slot, self.lines = Slot("handmade"), list[tuple[int, str]]()
        self.memory = folder / "served" / "handmade.json"
        self.follower = Follower(
            self.slot, versions, self.memory, seconds=0, report=lambda *line: self.lines.append(line)
        )

    def look(self) -> None:
        asyncio.run(self.follower.look())


def test_no_champion_is_no_fault(tmp_path: Path) -> None:
    watch = Watch(tmp_path, FakeVersions())
    watch.look()
    assert (watch.slot.registry_error, watch.slot.last_error, watch.lines) == (None, None, [])
    with pytest.raises(NoModelError, match="no model to serve yet: the registry has no champion"):
        watch.slot.served()


def test_until_the_first_champion_is_loaded_it_is_said_that_it_is_being_loaded(
    tmp_path: Path, bundles: dict[str, ModelBundle]
) -> None:
    said: list[str] = []

    class Slow(FakeVersions):
        def fetch(self, task: str, version: str) -> ModelBundle:
            with pytest.raises(NoModelError) as error:
                watch.slot.served()
            said.append(str(error.value))
            return super().fetch(task, version)

    versions = Slow(v1=bundles["good"])
    versions.champion = "1"
    watch = Watch(tmp_path, versions)
    with pytest.raises(NoModelError, match="no model to serve yet: the registry has not answered yet"):
        watch.slot.served()
    watch.look()
    assert said == ["task 'handmade' has no model to serve yet: version 1 is being loaded"]
    assert (watch.slot.served().version, watch.slot.awaited) == ("1", None)


def test_a_champion_is_fetched_once_and_remembered(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    watch = Watch(tmp_path, versions)
    for _ in range(3):
        watch.look()
    assert versions.fetched == ["1"]
    assert watch.slot.served().version == "1"
    assert orjson.loads(watch.memory.read_bytes())["version"] == "1"
    assert watch.lines == [(logging.INFO, "task 'handmade': version 1 is served")]
    again = Watch(tmp_path, FakeVersions())
    asyncio.run(again.follower.remember())
    assert again.slot.served().version == "1"


def test_two_looks_at_once_load_once(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """A task that is loaded looks by itself while whoever loads it looks too."""
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    watch = Watch(tmp_path, versions)

    async def both() -> None:
        await asyncio.gather(watch.follower.look(), watch.follower.look())

    asyncio.run(both())
    assert versions.fetched == ["1"]
    assert (watch.slot.swaps, watch.slot.previous) == (0, None)


def test_another_radius_is_taken_over_and_remembered(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Without loading anything again; and a new version begins with its own."""
    versions, rows = FakeVersions(v1=bundles["good"], v2=bundles["reverse"]), make_frame(200)
    versions.champion = "1"
    watch = Watch(tmp_path, versions)

    def members() -> float:
        sets = watch.slot.served().scorer.predict(rows).columns()["set"]
        return float(np.mean([sum(one) for one in sets]))

    watch.look()
    before = members()
    versions.radii["1"] = 0.999
    watch.look()
    assert versions.fetched == ["1"]
    assert before < 1.6 < 1.9 < members()
    again = Watch(tmp_path, FakeVersions())
    asyncio.run(again.follower.remember())
    assert again.slot.served().scorer.radius == 0.999
    versions.champion = "2"
    watch.look()
    assert watch.slot.served().scorer.radius is None


def test_a_memory_that_is_damaged_is_said(tmp_path: Path) -> None:
    watch = Watch(tmp_path, FakeVersions())
    watch.memory.parent.mkdir()
    for text in (b"{", b"{}", b'{"version": "1", "folder": "/nowhere"}'):
        watch.memory.write_bytes(text)
        asyncio.run(watch.follower.remember())
        assert "cannot be served again" in (watch.slot.last_error or "")
        assert watch.slot.current is None


def test_a_bad_version_is_tried_again_later_and_later(
    tmp_path: Path, bundles: dict[str, ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(champion.time, "monotonic", lambda: now)
    versions = FakeVersions()
    versions.champion = "9"
    watch = Watch(tmp_path, versions)
    tries = []
    for now in range(60):
        before = len(versions.fetched)
        watch.look()
        tries += [now] * (len(versions.fetched) - before)
    assert tries == [0, 5, 15, 35]
    assert watch.slot.refusals == 4
    assert len(watch.lines) == 1, "said once, not at every try"
    versions.bundles["9"] = bundles["good"]
    now = 100
    watch.look()
    assert watch.slot.served().version == "9"
    assert watch.slot.last_error is None


def test_a_registry_that_fails_is_said_once(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion, versions.down = "1", True
    watch = Watch(tmp_path, versions)
    watch.look()
    watch.look()
    assert len(watch.lines) == 1
    assert watch.slot.registry_error == "the registry does not answer"
    versions.down = False
    watch.look()
    assert watch.slot.registry_error is None
    assert watch.slot.served().version == "1"
