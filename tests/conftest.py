"""What every test stands on: no telemetry, one thread, and no trace outside the test's own folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.bundle import ModelBundle
from registry.metrics import Problem
from registry.quiet import QUIET
from registry.task import TaskSpec
from tests import postgres
from tests.handmade import make_frame, make_task

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ |= QUIET
for name in [name for name in os.environ if name.startswith("EVERFIT_")]:
    if name != "EVERFIT_DATA" and not name.endswith("_PYTHON"):
        del os.environ[name]


def task_of(problem: Problem, **more: object) -> TaskSpec:
    """The handmade task, to be searched for an MLP."""
    return make_task(problem, search={"families": ["mlp"], "workers": 1, "max_epochs": 9}, **more)


@pytest.fixture(scope="session", params=["binary", "regression"])
def champion(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """A searched model of the first half of January 2024: 2,000 rows of seed 1, one every 10 minutes."""
    from retrain.search.session import search

    problem: Problem = request.param
    task = task_of(problem, metric={"binary": "log_loss", "regression": "rmse"}[problem])
    folder: Path = tmp_path_factory.mktemp(problem)
    frame = make_frame(2_000, seed=1, problem=problem, start="2024-01-01")
    return search(task, frame, folder=folder / "study", out=folder / "champion", trials=1, seconds=60, seed=0)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a real server's own database; skips where there is no server to start."""
    if (programs := postgres.binaries()) is None:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")
    with postgres.server(programs) as url:
        yield url


@pytest.fixture
def empty_postgres(postgres_url: str) -> str:
    """The URL of a real server's database, without tables."""
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return postgres_url
