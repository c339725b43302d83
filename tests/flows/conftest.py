"""A home with a champion and a log, free ports, and one Prefect database for the few tests that run real flows."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.services import everfit_environment
from flows.workplace import Workplace, open_versions, register_task
from registry.inference_log import Feedback, InferenceLog
from registry.locks import exclusive
from registry.scoring import Scorer
from registry.settings import Settings
from registry.task import TaskSpec
from tests.flows.moving import move
from tests.handmade import make_bundle, make_frame, make_task
from tests.logged_rows import Prediction, append_joined

TINY_SEARCH = {
    "trials": 2,
    "seconds": 20,
    "workers": 1,
    "max_epochs": 2,
    "ensemble": 1,
    "families": ["mlp"],
    "strategy": "random",
}


@pytest.fixture
def settings(tmp_path: Path, empty_registry: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of an empty home with ports of its own; the environment says the same."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_registry, home / "mlflow.db")
    return settings_in(home, monkeypatch)


def settings_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a home with ports of its own; the environment says the same."""
    ports = free_ports(4)
    names = ("port", "status_port", "prefect_port", "mlflow_port")
    made = Settings(home=home, poll_seconds=0.2, **dict(zip(names, ports, strict=True)))
    for name, value in everfit_environment(made).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return made


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def usual_place(run_folder: Path, empty_registry: Path) -> Path:
    """A folder with the home of the handmade task and its champion, made once. To be copied by `move`."""
    folder = run_folder / "usual"
    with exclusive(folder / "lock", "the making of a home", patience=120):
        if not (folder / "made").exists():
            (folder / "place" / "home").mkdir(parents=True)
            shutil.copy(empty_registry, folder / "place" / "home" / "mlflow.db")
            made = settle(Settings(home=folder / "place" / "home"), folder / "place")
            made.log._engine.dispose()  # whole in one file: whoever copies it is another process
            (folder / "made").touch()
    return folder / "place"


def settle(settings: Settings, folder: Path, **changes: object) -> Workplace:
    """Register the handmade task with a source of 400 rows, and make a handmade bundle its champion."""
    make_frame(400).to_parquet(folder / "source.parquet")
    task = _task(folder, **changes)
    register_task(settings, task)
    versions = open_versions(settings)
    bundle = make_bundle(folder / "bundle", **{**changes, "source": task.source.model_dump()})  # type: ignore[arg-type]
    versions.promote(task.name, versions.publish(bundle))
    return Workplace.open(settings, task)


def _task(folder: Path, **changes: object) -> TaskSpec:
    source = {"kind": "file", "path": str(folder / "source.parquet")}
    return make_task(**{"source": source, **changes})  # type: ignore[arg-type]


@pytest.fixture
def make_place(settings: Settings, tmp_path: Path, usual_place: Path) -> Callable[..., Workplace]:
    """Have the handmade task with a source of 400 rows registered, and a handmade bundle its champion."""

    def make(**changes: object) -> Workplace:
        if changes or (settings.folder / "artifacts").exists():
            return settle(settings, tmp_path, **changes)
        move(usual_place, tmp_path)
        return Workplace.open(settings, _task(tmp_path))

    return make


@pytest.fixture
def place(make_place: Callable[..., Workplace]) -> Workplace:
    """The handmade task with its champion."""
    return make_place()


def fill(
    log: InferenceLog,
    frame: pd.DataFrame,
    bundle_folder: Path,
    *,
    delay: timedelta = timedelta(hours=1),
    version: str = "1",
    received: datetime | None = None,
) -> None:
    """Log the predictions of the bundle, a version, on the rows of `make_frame`, and their labels `delay` later. Rows
    are received in their own moment, or all in this one."""
    from registry.bundle import ModelBundle

    scores = Scorer.load(ModelBundle.load(bundle_folder)).predict(frame)
    features = json.loads(frame.drop(columns="late").to_json(orient="records", date_format="iso", date_unit="us"))
    sets = [np.flatnonzero(row).tolist() for row in scores.sets]
    times = [moment.to_pydatetime() for moment in frame["when"]]
    append_joined(
        log,
        [
            Prediction(
                id=f"{times[row]:%Y%m%d%H%M}",
                time=times[row],
                received=received or times[row],
                version=version,
                role="champion",
                features=features[row],
                prediction=str(scores.prediction[row]),
                scores=scores.probabilities[row].tolist(),
                conformal=sets[row],
                uncertainty=float(scores.uncertainty[row]),
                disagreement=float(scores.disagreement[row]),
            )
            for row in range(len(frame))
        ],
    )
    log.add_feedback(
        [
            Feedback(f"{moment:%Y%m%d%H%M}", label, moment + delay, moment + delay)
            for moment, label in zip(times, frame["late"], strict=True)
        ]
    )


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own database for tests; entering takes ten seconds, so once."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield
