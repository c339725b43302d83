"""The process of the deployments: tasks that are registered while it runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from prefect.runner import Runner

from flows.deployments import Watches
from registry.settings import Settings


def test_what_fails_is_told_once_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is: a follower that ended would leave each later task unwatched, and nobody would hear of it."""
    faults = [OSError("the disk"), OSError("the disk"), ValueError("an answer that is none"), None]
    asked = []

    class Faulty(Watches):
        async def add(self) -> None:
            asked.append(fault := faults[min(len(asked), len(faults) - 1)])
            if fault is not None:
                raise fault

    async def follow() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(Faulty(Runner(name="none"), settings).follow(), 0.5)

    monkeypatch.setattr("flows.deployments.FOLLOW_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING, "everfit"):
        asyncio.run(follow())
    assert len(asked) > 4
    assert [one.getMessage().rpartition(": ")[2] for one in caplog.records] == ["the disk", "an answer that is none"]
