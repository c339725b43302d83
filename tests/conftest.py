"""What every test stands on: no telemetry, one thread, and no trace outside the test's own folder."""

from __future__ import annotations

import gc
import os
import shutil
import ssl
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from httpx._transports import default as transports

from registry.bundle import MANIFEST, ModelBundle
from registry.locks import exclusive
from registry.metrics import Problem
from registry.quiet import QUIET
from registry.task import TaskSpec
from registry.versions import Versions
from tests import postgres
from tests.handmade import make_frame, make_task

gc.set_threshold(50_000, 20, 20)  # by itself it looks every 700 objects, and the libraries bring a million

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ |= QUIET
for name in [name for name in os.environ if name.startswith("EVERFIT_")]:
    if name != "EVERFIT_DATA" and not name.endswith("_PYTHON"):
        del os.environ[name]


_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4e9:
    # Tests' folders are in memory where they can be: thousands of commits wait for no disk, and no test is about one
    # that loses its power. They take 200 MB.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


_new_context = transports.create_ssl_context
_the_worlds = cache(partial(_new_context, trust_env=False))


def _context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """What a client of httpx trusts. The authorities of the world are read once: each client takes 20 ms for them by
    itself, and a test has one for each question."""
    named = trust_env and ("SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ)
    return _the_worlds() if verify is True and cert is None and not named else _new_context(verify, cert, trust_env)


transports.create_ssl_context = _context  # type: ignore[attr-defined]


def pytest_collection_finish() -> None:
    """What was imported stays: no test's garbage is looked for in it."""
    gc.collect()
    gc.freeze()


def task_of(problem: Problem, **more: object) -> TaskSpec:
    """The handmade task, to be searched for an MLP."""
    return make_task(problem, search={"families": ["mlp"], "workers": 1, "max_epochs": 9}, **more)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of a run share: what is slow to make, and only read, one of them makes there."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", params=["binary", "regression"])
def champion(request: pytest.FixtureRequest, run_folder: Path) -> ModelBundle:
    """A searched model of the first half of January 2024: 2,000 rows of seed 1, one every 10 minutes."""
    from retrain.search.session import search

    problem: Problem = request.param
    task = task_of(problem, metric={"binary": "log_loss", "regression": "rmse"}[problem])
    folder = run_folder / f"champion-{problem}"
    with exclusive(folder / "lock", "the search of a champion", patience=300):
        if (folder / "champion" / MANIFEST).is_file():
            return ModelBundle.load(folder / "champion")
        frame = make_frame(2_000, seed=1, problem=problem, start="2024-01-01")
        return search(task, frame, folder=folder / "study", out=folder / "champion", trials=1, seconds=60, seed=0)


@pytest.fixture(scope="session")
def empty_registry(run_folder: Path) -> Path:
    """MLflow's tables, made once: that takes seconds. To be copied, not written. Which of its migrations is the newest
    one, MLflow finds by reading all of them, for each registry: here once."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    file = run_folder / "registry" / "mlflow.db"
    with exclusive(file.with_name("lock"), "the making of a registry", patience=120):
        if not file.with_name("made").exists():
            Versions(f"sqlite:///{file}", file.parent / "artifacts", file.parent / "cache").get("any", "champion")
            file.with_name("made").touch()
    return file


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
