"""Bundles, made once, and an empty store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.ledger import Ledger
from registry.metrics import Problem
from tests.handmade import make_bundle


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Problem], ModelBundle]:
    """A bundle of each problem, sealed when first asked for."""
    made: dict[str, ModelBundle] = {}

    def get(problem: Problem) -> ModelBundle:
        if problem not in made:
            made[problem] = make_bundle(tmp_path_factory.mktemp("bundles") / problem, problem=problem)
        return made[problem]

    return get


@pytest.fixture
def bundle(bundle_of: Callable[[Problem], ModelBundle]) -> ModelBundle:
    return bundle_of("binary")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_engine(f"sqlite:///{tmp_path / 'everfit.db'}")
    yield made
    made.dispose()


@pytest.fixture
def log(engine: Engine) -> InferenceLog:
    return InferenceLog(engine, "handmade")


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine, "handmade")
