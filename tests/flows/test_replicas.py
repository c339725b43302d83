"""Two endpoints as two machines have them: a home each, one store and one registry between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.processes import Desk
from flows.services import everfit_environment, running, up
from flows.workplace import Workplace
from registry.settings import Settings
from tests.flows.conftest import free_ports
from tests.handmade import make_bundle, make_frame
from tests.serving.conftest import wait_for

pytestmark = pytest.mark.postgres


@pytest.fixture
def settings(settings: Settings, empty_postgres: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With a store that both reach."""
    made = settings.model_copy(update={"store_url": empty_postgres, "drain_seconds": 0.1})
    for name, value in everfit_environment(made).items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def replicas(place: Workplace, settings: Settings, tmp_path: Path) -> Iterator[tuple[Settings, Settings]]:
    """Both, answering; the second one's home knows nothing of the task."""
    (port,) = free_ports(1)
    second = settings.model_copy(update={"home": tmp_path / "second", "port": port, "tracking_url": settings.tracking})
    code = "import sys; from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "handmade"]
    process = subprocess.Popen(command, env=os.environ | everfit_environment(second), stderr=subprocess.DEVNULL)
    try:
        up(settings, "handmade", only=["endpoint"], say=lambda _: None)
        wait_for(lambda: process.poll() is not None or ready(second), 90)
        yield settings, second
    finally:
        process.terminate()
        process.wait(timeout=30)
        Desk(settings.folder).stop("endpoint", grace=5.0)


def ready(replica: Settings) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{replica.endpoint_url}/health/ready", trust_env=False, timeout=30).is_success
    return False


def ask(replica: Settings, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{replica.endpoint_url}{path}", json=body, trust_env=False, timeout=30)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def version_of(replica: Settings) -> str:
    return str(httpx.get(f"{replica.endpoint_url}/model", trust_env=False, timeout=30).json()["version"])


def test_two_replicas_keep_one_log_and_one_champion(
    replicas: tuple[Settings, Settings], place: Workplace, tmp_path: Path
) -> None:
    """Every row is asked of one, every third of the other too, as a balancer does that tries again; labels go to the
    one that has not answered; one of them is killed and comes back; a promotion reaches both."""
    first = replicas[0]
    frame = make_frame(120, seed=3)
    rows = frame.drop(columns="late").assign(when=lambda own: own["when"].astype(str)).to_dict("records")
    wanted = []
    for place_of, row in enumerate(rows):
        mine, other = replicas if place_of % 2 else replicas[::-1]
        body = {"ids": [f"row-{place_of}"], "rows": [row]}
        wanted += [one["id"] for one in ask(mine, "/predict", body)["predictions"]]
        if place_of % 3 == 0:
            ask(other, "/predict", body)
        ask(other, "/feedback", {"labels": [{"id": f"row-{place_of}", "label": str(frame["late"][place_of])}]})
    (pid,) = (one.pid for one in running(first) if one.name == "endpoint")
    os.kill(pid, signal.SIGKILL)
    psutil.Process(pid).wait(timeout=10)
    up(first, "handmade", only=["endpoint"], say=lambda _: None)
    wait_for(lambda: len(place.log.frame()) == len(rows), 60)
    logged = place.log.frame(columns=())
    assert sorted(logged["__id__"]) == sorted(wanted)
    assert logged["__label__"].notna().all()
    place.versions.promote("handmade", place.versions.publish(make_bundle(tmp_path / "next", quality=-1.0)))
    wait_for(lambda: {version_of(one) for one in replicas} == {"2"}, 60)
