"""Models by the Open Inference Protocol: loaded and unloaded while others answer, asked for by version, guarded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.settings import Settings
from serving.app import create_app
from serving.keys import add_key
from tests.handmade import make_bundle
from tests.serving.conftest import ROW, FakeVersions, endpoint, serve, wait_for
from tests.serving.test_hosts import TwoTasks
from tests.serving.test_v2 import INFER, asked, asked_binary, read


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_bundle(tmp_path_factory.mktemp("other") / "bundle", problem="regression", rows=100, name="other")


class Traffic:
    """One request after another in a thread: how many were answered, how long the slowest took, what was not a 200."""

    def __init__(self, client: httpx.Client) -> None:
        self._url = client.base_url.join(INFER)
        self._done = threading.Event()
        self.answered, self.slowest, self.others = 0, 0.0, [0] * 0

    @contextmanager
    def flowing(self) -> Iterator[None]:
        thread = threading.Thread(target=self._flow)
        thread.start()
        yield
        self._done.set()
        thread.join()

    def _flow(self) -> None:
        body, headers = asked_binary()
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not self._done.is_set():
                begun = time.perf_counter()
                status = client.post(self._url, content=body, headers=headers).status_code
                self.slowest = max(self.slowest, time.perf_counter() - begun)
                self.answered += status == 200
                self.others += [status] * (status != 200)


def test_loaded_and_unloaded_while_another_answers(
    tmp_path: Path, bundles: dict[str, ModelBundle], other: ModelBundle
) -> None:
    """No request of the other task fails or waits for it; those of this one are answered as long as it is there."""
    registry = TwoTasks(handmade=FakeVersions(v1=bundles["good"]), other=FakeVersions(v7=other))
    registry.tasks["handmade"].champion, registry.tasks["other"].champion = "1", "7"
    with serve(create_app(Settings(home=tmp_path, poll_seconds=0.05), "handmade", versions=registry)) as client:
        wait_for(lambda: client.get("/v2/health/ready").status_code == 200)
        traffic, begun, ids = Traffic(client), time.perf_counter(), []
        with traffic.flowing():
            for _ in range(2):
                assert client.post("/v2/repository/models/other/load", json={}).json() == {}
                index = client.post("/v2/repository/index").json()
                assert [(one["name"], one["version"], one["state"]) for one in index] == [
                    ("handmade", "1", "READY"),
                    ("other", "7", "READY"),
                ]
                outputs = read(client.post("/v2/models/other/infer", json=asked(ROW)))
                assert outputs["interval"][0][0] <= outputs["prediction"][0][0] <= outputs["interval"][0][1]
                ids += [one for (one,) in outputs["id"]]
                unload = {"parameters": {"unload_dependents": False}}
                assert client.post("/v2/repository/models/other/unload", json=unload).status_code == 200
                assert client.post("/v2/models/other/infer", json=asked(ROW)).status_code == 404
        took = time.perf_counter() - begun
        assert not traffic.others
        assert traffic.answered > 20
        assert traffic.slowest < min(0.5, took / 4)
        assert client.post("/invocations", json={"dataframe_records": [ROW]}).status_code == 200
    log = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "other")
    assert list(log.frame()["__id__"]) == ids


def test_a_key_of_the_first_task_is_not_told_of_what_is_loaded_beside_it(
    tmp_path: Path, bundles: dict[str, ModelBundle], other: ModelBundle
) -> None:
    registry = TwoTasks(handmade=FakeVersions(v1=bundles["good"]), other=FakeVersions(v7=other))
    registry.tasks["handmade"].champion, registry.tasks["other"].champion = "1", "7"
    mine, admin = (
        {"authorization": f"Bearer {add_key(tmp_path / 'keys.json', name, scopes, task=task)}"}
        for name, scopes, task in (("mine", ["read", "predict"], "handmade"), ("admin", ["admin"], None))
    )
    shared = ("/", "/models", "/metrics", "/docs", "/openapi.json", "/v2/repository/index", "/modls/other")
    own = ("/model", "/models/handmade", "/version", "/v2", "/v2/models/handmade")
    with serve(create_app(Settings(home=tmp_path, poll_seconds=0.05), "handmade", versions=registry)) as client:
        wait_for(lambda: client.get("/v2/health/ready").status_code == 200)

        def refused() -> set[str]:
            return {path for path in (*shared, *own) if client.get(path, headers=mine).status_code == 403}

        assert refused() == set()
        assert client.post("/v2/repository/models/other/load", json={}, headers=admin).status_code == 200
        assert refused() == set(shared)
        assert client.post("/predict", json=ROW, headers=mine).status_code == 200
        assert client.post("/v2/repository/index", headers=mine).status_code == 403
        assert client.post("/v2/repository/models/other/unload", json={}, headers=admin).status_code == 200
        assert refused() == set()


def test_what_the_registry_does_not_have_is_not_loaded(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    with endpoint(tmp_path, versions, ready=False) as client:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/ping").status_code == 503
        assert client.get("/v2/models/handmade/ready").json() == {"name": "handmade", "ready": False}
        assert client.get("/v2/models/handmade").status_code == 503
        assert "no model to serve yet" in client.post(INFER, json=asked(ROW)).json()["error"]
        (one,) = client.post("/v2/repository/index", json={}).json()
        assert one["state"] == "UNAVAILABLE"
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        refused = client.post("/v2/repository/models/handmade/load", json={"parameters": {"config": "{}"}})
        assert "expected no parameters" in refused.json()["error"]
        versions.champion = "1"
        assert client.post("/v2/repository/models/handmade/load", json={}).status_code == 200
        assert client.get("/v2/models/handmade/ready").json() == {"name": "handmade", "ready": True}


def test_versions_that_are_loaded_answer_by_name(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """The champion, the one before and a canary; without a version the champion and, for its keys, the canary."""
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"], v3=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        (first,) = read(client.post(INFER, json=asked(ROW)))["probabilities"]
        versions.champion = "2"
        wait_for(lambda: client.get("/model").json()["version"] == "2")
        versions.challenger, versions.shares["3"] = "3", 1.0
        wait_for(lambda: client.get("/model").json()["canary"] is not None)
        assert client.get("/v2/models/handmade").json()["versions"] == ["2", "3", "1"]
        for version in ("1", "2", "3"):
            answer = client.post(f"/v2/models/handmade/versions/{version}/infer", json=asked(ROW))
            assert answer.json()["model_version"] == version
            assert (read(answer)["probabilities"] == [first]) == (version != "2")
        assert client.post(INFER, json=asked(ROW)).json()["model_version"] == "3"
        versions.shares["3"] = 0.5
        wait_for(lambda: client.get("/model").json()["canary"]["share"] == 0.5)
        for key in map(str, range(12)):
            headers = {"X-Everfit-Key": key}
            expected = client.post("/predict", json=ROW, headers=headers).json()["model"]["version"]
            assert client.post(INFER, json=asked(ROW), headers=headers).json()["model_version"] == expected
            answer = client.post("/invocations", json={"inputs": [ROW]}, headers=headers).json()
            assert answer["model"]["version"] == expected
    frame = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade").frame()
    assert set(frame["__version__"]) == {"1", "2", "3"}


def test_a_key_guards_all_but_health(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions, api_key="s3cret") as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/ping"):
            assert client.get(path).status_code == 200
        for method, path in (
            ("GET", "/v2"),
            ("GET", "/v2/models/handmade"),
            ("POST", INFER),
            ("POST", "/v2/models/handmade/versions/1/infer"),
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/repository/models/handmade/unload"),
        ):
            response = client.request(method, path)
            assert (response.status_code, list(response.json())) == (401, ["error"])
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.post("/invocations").json()["error_code"] == "UNAUTHENTICATED"
        assert client.get("/version").status_code == 401
        allowed = {"authorization": "Bearer s3cret"}
        assert client.post(INFER, json=asked(ROW), headers=allowed).status_code == 200
