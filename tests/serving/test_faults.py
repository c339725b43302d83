"""What may go wrong around the endpoint, for real: killed processes, a registry or a store that is away, bad models."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import StoreError
from registry.inference_log import InferenceLog
from registry.settings import Settings
from serving.app import create_app
from serving.journal import require_writable
from tests.handmade import make_bundle
from tests.processes import children
from tests.serving.conftest import ROW, FakeVersions, endpoint, serve, wait_for
from tests.serving.test_journal import full_disk

AWAY = "http://127.0.0.1:9"


def log_of(home: Path) -> InferenceLog:
    return InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade")


def hammer(url: str, stop: threading.Event, versions: list[str], failures: list[str]) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
        while not stop.is_set():
            try:
                response = client.post("/predict", json=ROW)
                versions.append(response.json()["model"]["version"])
            except (httpx.HTTPError, KeyError, ValueError) as error:
                failures.append(repr(error))


def test_swaps_under_load_lose_no_request(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """The alias moves back and forth while four clients ask: each answer is one version's, none fails."""
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        seen: list[str] = []
        failures: list[str] = []
        stop = threading.Event()
        threads = [threading.Thread(target=hammer, args=(str(client.base_url), stop, seen, failures)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in ("2", "1", "2", "1", "2"):
            versions.champion = version
            wait_for(lambda version=version: client.get("/model").json()["version"] == version)
            before = len(seen)
            wait_for(lambda before=before: len(seen) > before + 40)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert set(seen) == {"1", "2"}
        assert client.get("/model").json()["swaps"] == 5
        wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
        counts = log_of(tmp_path).versions()
        assert counts == {version: seen.count(version) for version in ("1", "2")}


def test_a_bad_champion_keeps_the_old_one_serving(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """A file that was changed, a graph that fails the golden rows, a model of another task: each is refused."""
    good = bundles["good"]
    broken, liar = (shutil.copytree(good.folder, tmp_path / name) for name in ("broken", "liar"))
    (broken / "model.onnx").write_bytes(b"no graph")
    shutil.copy(bundles["reverse"].model, liar / "model.onnx")
    resealed, other = ModelBundle.seal(liar, good.manifest), make_bundle(tmp_path / "other", rows=50, name="another")
    versions = FakeVersions(v1=good, v2=ModelBundle(broken, good.manifest), v3=resealed, v4=other)
    versions.champion = "1"
    with endpoint(tmp_path / "home", versions) as client:
        for version, why in (("2", "the file was changed"), ("3", "golden rows"), ("4", "expected a model of task")):
            versions.champion = version
            wait_for(lambda why=why: why in (client.get("/model").json()["last_error"] or ""))
            model = client.get("/model").json()
            assert model["version"] == "1"
            assert f"version {version} is the champion but cannot be served" in model["last_error"]
            assert client.get("/health/ready").status_code == 200
            assert client.post("/predict", json=ROW).json()["model"]["version"] == "1"
        time.sleep(0.3)
        assert versions.fetched.count("4") == 1, "a bad version is not tried again at every look"
        versions.champion = "1"
        wait_for(lambda: client.get("/model").json()["last_error"] is None)


def test_registry_away_at_start_and_while_running(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    versions.down = True
    with endpoint(tmp_path, versions, ready=False) as client:
        assert client.get("/health/live").status_code == 200
        wait_for(lambda: "does not answer" in client.get("/health/ready").json()["registry"])
        response = client.post("/predict", json=ROW)
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert "has no model to serve yet" in response.json()["detail"]
        assert client.get("/openapi.json").status_code == 200
        versions.down, versions.champion = False, "1"
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        versions.down = True
        wait_for(lambda: "does not answer" in client.get("/model").json()["registry"])
        assert client.post("/predict", json=ROW).status_code == 200
        assert 'everfit_registry_up{task="handmade"} 0.0' in client.get("/metrics").text
    with endpoint(tmp_path, versions) as client:
        ready = client.get("/health/ready").json()
        assert (ready["ready"], ready["version"]) == (True, "1")
        wait_for(lambda: "does not answer" in client.get("/health/ready").json()["registry"])
        versions.down, versions.champion = False, "2"
        wait_for(lambda: client.get("/model").json()["version"] == "2")


@contextlib.contextmanager
def process(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m serving handmade` in a process of its own, ready; killed at the end."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    known = {"EVERFIT_HOME": str(home), "EVERFIT_TRACKING_URL": AWAY, "EVERFIT_PORT": str(port)}
    server = subprocess.Popen([sys.executable, "-m", "serving", "handmade"], env={**os.environ, **known})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _ready(url), 60)
        yield server, url
    finally:
        server.kill()
        server.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("blocked", ["journal", "journal/handmade"])
def test_a_home_that_cannot_be_written_is_told_before_a_server_begins(tmp_path: Path, blocked: str) -> None:
    nobody, me = 65_534, os.geteuid()
    with TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        (Path(home) / blocked).mkdir(parents=True)
        (Path(home) / "journal").chmod(0o777)
        (Path(home) / blocked).chmod(0o555)
        os.seteuid(nobody if me == 0 else me)
        try:
            with pytest.raises(StoreError, match=f"{blocked}: the journal cannot be written .Permission denied."):
                require_writable(Path(home) / "journal", ["handmade"])
        finally:
            os.seteuid(me)
            (Path(home) / blocked).chmod(0o755)


def test_an_endpoint_whose_home_cannot_be_written_ends_with_its_code_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    file.write_text("no folder")
    known = {"EVERFIT_HOME": str(tmp_path), "EVERFIT_TRACKING_URL": AWAY}
    command = [sys.executable, "-m", "serving", "handmade"]
    done = subprocess.run(command, env={**os.environ, **known}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr == f"{file}: the journal cannot be written (File exists)\n"


def test_ctrl_c_ends_in_silence_with_the_code_of_what_is_interrupted(
    tmp_path: Path, bundles: dict[str, ModelBundle], capfd: pytest.CaptureFixture[str]
) -> None:
    remember(tmp_path, bundles["good"])
    with process(tmp_path) as (server, _):
        capfd.readouterr()
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
        told = capfd.readouterr().err.splitlines()
        assert not [line for line in told if "the registry cannot be asked" not in line]  # said while it runs


def test_ctrl_c_while_it_loads_is_as_silent(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Held back while Python itself starts, as `everfit serve` does, then at some moments of the imports."""
    remember(tmp_path, bundles["good"])
    command = [sys.executable, "-m", "serving", "handmade"]
    settings = {"EVERFIT_HOME": str(tmp_path), "EVERFIT_TRACKING_URL": AWAY, "EVERFIT_PORT": "18766"}
    for seconds in (0.0, 0.05, 0.15):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        server = subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.PIPE)
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        time.sleep(seconds)
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=30)
        assert (server.returncode, told) == (130, b"")


def remember(home: Path, bundle: ModelBundle) -> None:
    (home / "served").mkdir(parents=True)
    (home / "served" / "handmade.json").write_bytes(orjson.dumps({"version": "1", "folder": str(bundle.folder)}))


def test_killed_without_warning_no_acknowledged_prediction_is_lost(
    tmp_path: Path, bundles: dict[str, ModelBundle]
) -> None:
    remember(tmp_path, bundles["good"])
    acknowledged: list[str] = []

    def ask(url: str) -> None:
        with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=url, trust_env=False) as client:
            while True:
                answer = client.post("/predict", json=[ROW, ROW]).json()
                acknowledged.extend(one["id"] for one in answer["predictions"])

    with process(tmp_path) as (server, url):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(acknowledged) > 300)
        os.kill(server.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    with process(tmp_path) as (_, url):
        known = set(acknowledged)
        wait_for(lambda: httpx.get(f"{url}/model", trust_env=False).json()["log_backlog"] == 0)
        wait_for(lambda: known <= set(log_of(tmp_path).frame(columns=[])["__id__"]))
    assert len(acknowledged) == len(known)
    ids = list(log_of(tmp_path).frame(columns=[])["__id__"])
    assert len(ids) == len(set(ids))


def test_a_store_that_is_away_is_bridged_up_to_a_bound(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Another program holds the database: predictions go on until the journal is at its bound; then 503, no ids."""
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions, max_backlog_bytes=40_000) as client:
        client.post("/predict", json=ROW)
        wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
        other = sqlite3.connect(tmp_path / "everfit.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        accepted = 1
        while (response := client.post("/predict", json=ROW)).status_code == 200:
            accepted += 1
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "the store has not taken" in response.json()["detail"]
        assert client.get("/model").json()["log_backlog"] == accepted - 1 > 20
        other.execute("ROLLBACK")
        other.close()
        wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
        assert client.post("/predict", json=ROW).status_code == 200
    assert log_of(tmp_path).counts().predictions == accepted + 1


def test_a_full_disk_is_said_and_survived(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        client.post("/predict", json=ROW)
        with full_disk(1_500):
            statuses = [client.post("/predict", json=ROW).status_code for _ in range(10)]
        assert statuses[-1] == 503
        assert client.post("/predict", json=ROW).status_code == 200
        accepted = statuses.count(200) + 2
    assert log_of(tmp_path).counts().predictions == accepted
    assert list((tmp_path / "journal" / "handmade").iterdir()) == [], "a clean stop leaves nothing behind"


def test_a_keeper_that_dies_is_replaced(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        client.post("/predict", json=[ROW] * 10)
        wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
        (keeper,) = children("serving.keeper")
        keeper.kill()
        wait_for(lambda: client.get("/model").json()["log"] != "ok")
        client.post("/predict", json=[ROW] * 10)
        wait_for(lambda: client.get("/model").json() | {"log_backlog": 0, "log": "ok"} == client.get("/model").json())
        assert client.post("/feedback", json={"id": "x", "label": "no"}).status_code == 200
    assert log_of(tmp_path).counts().predictions == 20


def test_follows_the_real_registry(tmp_path: Path, bundles: dict[str, ModelBundle], empty_registry: Path) -> None:
    from registry.versions import Versions

    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    settings = Settings(home=tmp_path, poll_seconds=0.1)
    versions = Versions(settings.tracking, settings.artifacts, settings.folder / "bundles")
    version = versions.publish(bundles["good"])
    with serve(create_app(settings, "handmade", versions=versions)) as client:
        wait_for(lambda: client.get("/model").json()["registry"] == "ok")
        assert client.get("/health/ready").status_code == 503
        versions.promote("handmade", version)
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        assert client.post("/predict", json=ROW).json()["model"]["version"] == version


def test_imports_neither_torch_nor_mlflow() -> None:
    program = "import sys, serving.app; print([n for n in ('torch', 'mlflow', 'sqlalchemy') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
