"""A real endpoint for the tests: uvicorn in a thread, a registry that is a dictionary, bundles made by hand."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from registry.bundle import ModelBundle
from registry.errors import NoModelError, RegistryError
from registry.settings import Settings
from serving.app import create_app
from serving.process import server_options
from serving.server import Server
from tests.handmade import make_bundle

ROW = {"when": "2024-03-01T10:00:00", "amount": 0.5, "weight": 2.0, "member": True, "carrier": "AA"}


class FakeVersions:
    """The registry's two questions, answered from memory."""

    def __init__(self, **bundles: ModelBundle) -> None:
        self.bundles = {name.removeprefix("v"): bundle for name, bundle in bundles.items()}
        self.champion: str | None = None
        self.challenger: str | None = None
        self.down = False
        self.fetched: list[str] = []
        self.radii: dict[str, float] = {}
        self.shares: dict[str, float] = {}

    def canary(self, task: str, version: str) -> float:
        self._ask()
        return self.shares.get(version, 0.0)

    def radius(self, task: str, version: str) -> float | None:
        self._ask()
        return self.radii.get(version)

    def get(self, task: str, alias: str) -> str | None:
        self._ask()
        return {"champion": self.champion, "challenger": self.challenger}[alias]

    def fetch(self, task: str, version: str) -> ModelBundle:
        self._ask()
        self.fetched.append(version)
        if version not in self.bundles:
            raise NoModelError(f"no version {version}")
        return ModelBundle.load(self.bundles[version].folder)

    def _ask(self) -> None:
        if self.down:
            raise RegistryError("the registry does not answer")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelBundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "good": make_bundle(folder / "good", rows=100, monitor={"segments": ["carrier"]}),
        "reverse": make_bundle(folder / "reverse", quality=-1.0, rows=100),
        "regression": make_bundle(folder / "regression", problem="regression", rows=100),
        "multiclass": make_bundle(folder / "multiclass", problem="multiclass", rows=100),
    }


@contextmanager
def serve(app: FastAPI, settings: Settings | None = None) -> Iterator[httpx.Client]:
    """The app behind a real socket, served as `python -m serving` does, and a client of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        server = Server(uvicorn.Config(app, **server_options(settings or Settings())))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        cert = settings.tls_cert if settings else None
        url = f"{'https' if cert else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        context = ssl.create_default_context(cafile=cert)
        try:
            wait_for(lambda: server.started)
            with httpx.Client(base_url=url, trust_env=False, timeout=30, verify=context) as one:
                yield one
        finally:
            server.should_exit = True
            thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a module's endpoint."""
    return tmp_path_factory.mktemp("home")


@contextmanager
def endpoint_of(bundle: ModelBundle, home: Path, **changes: object) -> Iterator[httpx.Client]:
    """An endpoint whose champion, version 1, is this bundle."""
    versions = FakeVersions(v1=bundle)
    versions.champion = "1"
    with endpoint(home, versions, **changes) as one:
        yield one


@contextmanager
def endpoint(home: Path, versions: FakeVersions, *, ready: bool = True, **changes: object) -> Iterator[httpx.Client]:
    """An endpoint of the task `handmade`, ready unless told otherwise."""
    settings = Settings.model_validate({"home": home, "poll_seconds": 0.05, **changes})
    with serve(create_app(settings, "handmade", versions=versions), settings) as client:
        if ready:
            wait_for(lambda: client.get("/health/ready").status_code == 200)
        yield client


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when the condition holds; fail when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
