"""The scout answers what the registry does, with its errors, and is replaced when it dies."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from registry.bundle import ModelBundle
from registry.errors import NoModelError, RegistryError
from registry.settings import Settings
from registry.versions import Versions
from serving.scout import Scout
from tests.processes import children


def scouts() -> list[psutil.Process]:
    return children("serving.scout")


@pytest.fixture(scope="module")
def scout(
    tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, ModelBundle], empty_registry: Path
) -> Iterator[Scout]:
    """Of a real registry in which version 1 is the champion."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_registry, home / "mlflow.db")
    settings = Settings(home=home)
    versions = Versions(settings.tracking, settings.artifacts, home / "elsewhere")
    versions.promote("handmade", versions.publish(bundles["good"]))
    one = Scout(settings)
    yield one
    one.close()
    assert scouts() == []


def test_it_answers_what_the_registry_does(scout: Scout, bundles: dict[str, ModelBundle]) -> None:
    assert scout.get("handmade", "champion") == "1"
    assert scout.get("handmade", "challenger") is None
    assert scout.radius("handmade", "1") is None
    assert scout.canary("handmade", "1") == 0.0
    assert scout.fetch("handmade", "1").manifest == bundles["good"].manifest


def test_errors_are_those_of_the_registry(scout: Scout) -> None:
    with pytest.raises(NoModelError, match="handmade"):
        scout.fetch("handmade", "7")


def test_one_that_dies_is_replaced(scout: Scout) -> None:
    """The question in the air fails as a registry that is away does; the next one is answered."""
    assert scout.get("handmade", "champion") == "1"
    for one in scouts():
        one.kill()
        one.wait()
    with pytest.raises(RegistryError, match="does not answer"):
        scout.get("handmade", "champion")
    assert scout.get("handmade", "champion") == "1"


def test_threads_take_turns(scout: Scout) -> None:
    found: list[str | None] = []

    def ask() -> None:
        found.extend(scout.get("handmade", "champion") for _ in range(5))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert found == ["1"] * 20
