"""MLflow's own server delivers its webhook: an alias is moved there, and the endpoint serves another version."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_webhook_url

from registry.bundle import ModelBundle
from registry.settings import Settings
from registry.versions import Versions
from serving.app import create_app
from serving.webhook import PATH
from tests.serving.conftest import serve, wait_for

SECRET = "s3cret"
MOVES = ["model_version_alias.created", "model_version_alias.deleted"]
PRIVATE = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
"""What `deployment/README.md` says that an MLflow server needs to reach an endpoint in its own network."""


@contextmanager
def mlflow_server(database: Path, artifacts: Path, **settings: str) -> Iterator[str]:
    """MLflow's server as `everfit up` starts it, and with these settings; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ("--backend-store-uri", f"sqlite:///{database}", "--default-artifact-root", artifacts.as_uri())
    listens = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--no-serve-artifacts")
    key = {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode()}
    jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *stores, *listens],
        env={**os.environ, **key, **jobs, **settings},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or _answers(f"{url}/health"), seconds=120)
        assert process.poll() is None, "MLflow's server ended"
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, trust_env=False).status_code == 200
    return False


def test_mlflow_s_server_wakes_the_endpoint(
    tmp_path: Path, bundles: dict[str, ModelBundle], empty_registry: Path
) -> None:
    """The endpoint asks the registry once an hour: what it serves a moment after the alias was moved it knows from the
    webhook. One without the secret is refused."""
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    artifacts = tmp_path / "artifacts"
    with mlflow_server(tmp_path / "mlflow.db", artifacts, **PRIVATE, MLFLOW_WEBHOOK_CACHE_TTL="1") as url:
        versions, client = Versions(url, artifacts, tmp_path / "cache"), MlflowClient(url, url)
        assert [versions.publish(bundles[name]) for name in ("good", "reverse")] == ["1", "2"]
        versions.set("handmade", "champion", "1")
        asked = {"tracking_url": url, "poll_seconds": 3600, "webhook_secret": SECRET, "api_key": "key"}
        settings = Settings.model_validate({"home": tmp_path / "home", **asked})
        with serve(create_app(settings, "handmade"), settings) as endpoint:
            own = {"authorization": "Bearer key"}
            served = lambda: endpoint.get("/model", headers=own).json().get("version")  # noqa: E731
            wait_for(lambda: served() == "1", seconds=60)
            address = str(endpoint.base_url.join(PATH))
            forged = client.create_webhook("forged", address, ["registered_model.created"])
            told = client.test_webhook(forged.webhook_id)
            assert (told.success, told.response_status) == (False, 401), "it is not signed"
            made = client.create_webhook("everfit", address, MOVES, secret=SECRET)
            assert client.test_webhook(made.webhook_id).response_status == 204
            versions.set("handmade", "champion", "2")
            wait_for(lambda: served() == "2", seconds=60)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_mlflow_refuses_the_endpoint_s_address_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Why `deployment/README.md` names its settings: without them neither HTTP nor a private address is taken."""
    with pytest.raises(MlflowException, match={"http": "scheme", "https": "non-public"}[scheme]):
        _validate_webhook_url(f"{scheme}://127.0.0.1:8000{PATH}")
    for name, value in PRIVATE.items():
        monkeypatch.setenv(name, value)
    _validate_webhook_url(f"{scheme}://127.0.0.1:8000{PATH}")
