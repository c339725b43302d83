"""A home with registered versions and its endpoint, as a process of its own: what a user's requests meet."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from flows.services import child_environment
from flows.stream import Stream, open_stream
from flows.workplace import Workplace, register_task
from registry.settings import Settings
from tests.handmade import make_bundle, make_frame, make_task


@dataclass
class House:
    """A home with two registered versions, and its running endpoint."""

    place: Workplace
    url: str
    environment: dict[str, str]

    def stream(self, rows: int, *, seed: int, start: str = "2024-03-04", **changes: Any) -> Stream:
        """Rows of their own: each test has its own ids in the shared log."""
        return open_stream(make_frame(rows, seed=seed, start=start, **changes), self.place.task, name=f"seed{seed}")

    def logged(self, stream: Stream) -> pd.DataFrame:
        """What the log holds of a stream, in its order."""
        found = self.place.log.frame(columns=())
        return found[found["__id__"].isin(stream.ids(0, len(stream)))]


@contextmanager
def open_house(folder: Path, registry: Path, **changes: Any) -> Iterator[House]:
    """The handmade task with its champion, version 1, and a better one beside it, in a copy of an empty registry;
    `changes` are the task's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(home=folder / "home", port=port, poll_seconds=0.1)
    settings.folder.mkdir()
    shutil.copy(registry, settings.folder / "mlflow.db")
    make_frame(300).to_csv(folder / "history.csv", index=False)
    task = make_task(source={"kind": "file", "path": str(folder / "history.csv")}, **changes)
    register_task(settings, task)
    place = Workplace.open(settings, task)
    for quality in (1.0, 0.5):
        place.versions.publish(make_bundle(folder / f"bundle{quality}", quality=quality))
    place.versions.promote(task.name, "1")
    environment = child_environment(settings, ())
    url = f"http://127.0.0.1:{port}"
    with (folder / "endpoint.log").open("wb") as log:
        command = [sys.executable, "-m", "serving", task.name]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(url, process, folder / "endpoint.log")
            yield House(place, url, environment)
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
