"""Databases of both kinds for the contract suites of the stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from registry.database import open_engine
from registry.versions import Versions


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'everfit.db'}"
    url: str = request.getfixturevalue("empty_postgres")
    return url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """An engine on a fresh database of each kind."""
    engine = open_engine(empty_url)
    yield engine
    engine.dispose()


@pytest.fixture
def home(tmp_path: Path, empty_registry: Path) -> Path:
    """A folder with an embedded registry that holds nothing yet."""
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def versions(home: Path) -> Versions:
    """The registry in `home`."""
    return Versions(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", home / "cache")
