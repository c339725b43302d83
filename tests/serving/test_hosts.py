"""Several tasks on one server: each with its own routes, log and memory; loaded and unloaded while others answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import NoModelError, TaskError
from registry.inference_log import InferenceLog
from registry.settings import Settings
from serving.app import create_app
from serving.hosts import Hosts
from serving.problems import UnknownTaskError
from tests.handmade import make_bundle
from tests.serving.conftest import ROW, FakeVersions, serve, wait_for


class TwoTasks:
    """A registry of two tasks, each a dictionary of its own."""

    def __init__(self, **tasks: FakeVersions) -> None:
        self.tasks = tasks

    def get(self, task: str, alias: str) -> str | None:
        return self._of(task).get(task, alias)

    def radius(self, task: str, version: str) -> float | None:
        return self._of(task).radius(task, version)

    def canary(self, task: str, version: str) -> float:
        return self._of(task).canary(task, version)

    def fetch(self, task: str, version: str) -> ModelBundle:
        return self._of(task).fetch(task, version)

    def _of(self, task: str) -> FakeVersions:
        return self.tasks.get(task, FakeVersions())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return make_bundle(tmp_path_factory.mktemp("other") / "bundle", problem="regression", rows=100, name="other")


@pytest.fixture
def registry(bundles: dict[str, ModelBundle], other: ModelBundle) -> TwoTasks:
    tasks = TwoTasks(handmade=FakeVersions(v1=bundles["good"], v2=bundles["reverse"]), other=FakeVersions(v7=other))
    tasks.tasks["handmade"].champion, tasks.tasks["other"].champion = "1", "7"
    return tasks


@pytest.fixture
def client(tmp_path: Path, registry: TwoTasks) -> Iterator[httpx.Client]:
    settings = Settings(home=tmp_path, poll_seconds=0.05)
    with serve(create_app(settings, "handmade", "other", versions=registry)) as one:
        wait_for(lambda: one.get("/health/ready").status_code == 200)
        yield one


def test_each_task_answers_under_its_name(client: httpx.Client, tmp_path: Path) -> None:
    assert client.post("/models/handmade/predict", json=ROW).json()["model"] == {"task": "handmade", "version": "1"}
    answer = client.post("/models/other/predict", json=ROW).json()
    assert answer["model"] == {"task": "other", "version": "7"}
    (one,) = answer["predictions"]
    counts = client.post("/models/other/feedback", json={"id": one["id"], "label": 2.5}).json()
    assert (counts["stored"], counts["unknown"]) == (1, 0)
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    assert len(InferenceLog(engine, "other").frame()) == 1
    wait_for(lambda: len(InferenceLog(engine, "handmade").frame()) == 1)


def test_short_forms_beside_several_tasks_name_them(client: httpx.Client) -> None:
    paths = "ask /models/handmade/..., /models/other/..."
    for method, path, told in (
        ("POST", "/predict", paths),
        ("GET", "/model", paths),
        ("POST", "/models/handmad/predict", "served: handmade, other"),
    ):
        answer = client.request(method, path)
        assert answer.status_code == 404, path
        assert told in answer.json()["detail"]
    assert [one["task"] for one in client.get("/models").json()["models"]] == ["handmade", "other"]
    assert client.get("/models/other").json()["problem"] == "regression"
    assert set(client.get("/health/ready").json()["tasks"]) == {"handmade", "other"}


def test_metrics_are_labelled_with_the_task(client: httpx.Client) -> None:
    client.post("/models/other/predict", json=[ROW] * 3)
    text = client.get("/metrics").text
    assert 'everfit_predictions_total{task="other",version="7"} 3.0' in text
    assert text.count("# TYPE everfit_ready gauge") == 1
    assert 'everfit_ready{task="handmade"} 1.0' in text


def test_documentation_has_each_task_s_own_columns_and_answers(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert "/predict" not in paths
    names = [one["operationId"] for operations in paths.values() for one in operations.values()]
    assert len(set(names)) == len(names)
    for task in ("handmade", "other"):
        content = paths[f"/models/{task}/predict"]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.post(f"/models/{task}/predict", json=example["value"]).status_code == 200


def test_a_swap_back_needs_no_loading(client: httpx.Client, registry: TwoTasks) -> None:
    """The version before stays warm: the registry is not asked for its bundle again."""
    versions = registry.tasks["handmade"]
    for champion in ("2", "1", "2"):
        versions.champion = champion
        wait_for(lambda: client.get("/models/handmade").json()["version"] == versions.champion)
    assert versions.fetched == ["1", "2"]
    state = client.get("/models/handmade").json()
    assert (state["warm"], state["swaps"]) == ("1", 3)


def test_a_task_is_loaded_and_unloaded(tmp_path: Path, registry: TwoTasks) -> None:
    async def run() -> None:
        hosts = Hosts(Settings(home=tmp_path), ["handmade"], registry)
        await hosts.open()
        assert hosts.short is hosts.named("handmade")
        assert {"/predict", "/models/handmade/predict"} <= set(hosts.routes)
        await hosts.load("other")
        assert {"/models/other/predict", "/models/handmade/predict"} <= set(hosts.routes)
        assert hosts.routes["/predict"] == hosts.named("handmade").predict  # its clients know nothing of the other one
        with pytest.raises(NoModelError, match="third"):
            await hosts.load("third")
        await hosts.unload("handmade")
        assert hosts.short is hosts.named("other")
        with pytest.raises(UnknownTaskError, match="'handmade' is served here"):
            await hosts.unload("handmade")
        await hosts.close()

    asyncio.run(run())


def test_what_graphs_take_is_bounded(tmp_path: Path, registry: TwoTasks, bundles: dict[str, ModelBundle]) -> None:
    """A version that is only kept warm goes first; then a new one is refused and the old one goes on."""
    versions, size = registry.tasks["handmade"], bundles["good"].model.stat().st_size

    async def run() -> None:
        hosts = Hosts(Settings(home=tmp_path, max_graph_bytes=int(2.5 * size)), ["handmade"], registry)
        await hosts.open()
        host = hosts.named("handmade")
        await host.follower.look()
        versions.champion = "2"
        await host.follower.look()
        assert host.slot.previous is not None
        await hosts.load("other")
        assert host.slot.previous is None
        versions.champion = "1"
        await host.follower.look()
        assert host.slot.served().version == "2"
        assert "EVERFIT_MAX_GRAPH_BYTES" in str(host.slot.last_error)
        await hosts.close()

    asyncio.run(run())


def test_two_that_load_at_once_do_not_both_take_the_room_of_one(
    tmp_path: Path, bundles: dict[str, ModelBundle], other: ModelBundle
) -> None:
    """Each has looked for room, and waits until the other has too, before it answers."""
    both = threading.Barrier(2)

    class Waiting(FakeVersions):
        def radius(self, task: str, version: str) -> float | None:
            if version == "2":
                with suppress(threading.BrokenBarrierError):
                    both.wait(1)
            return super().radius(task, version)

    registry = TwoTasks(handmade=Waiting(v1=bundles["good"], v2=bundles["reverse"]), other=Waiting(v1=other, v2=other))
    sizes = [one.model.stat().st_size for one in (bundles["good"], bundles["reverse"], other)]
    most = sum(sizes) + max(sizes) // 2

    async def run() -> None:
        hosts = Hosts(Settings(home=tmp_path, max_graph_bytes=most), ["handmade", "other"], registry)
        for version in ("1", "2"):
            for versions in registry.tasks.values():
                versions.champion = version
            await asyncio.gather(*(host.follower.look() for host in hosts))
        slots = [host.slot for host in hosts]
        assert sum(slot.graph_bytes for slot in slots) <= most
        assert sorted(slot.served().version for slot in slots) == ["1", "2"]
        assert sum("EVERFIT_MAX_GRAPH_BYTES" in str(slot.last_error) for slot in slots) == 1
        assert [slot.loading for slot in slots] == [0, 0]
        for host in hosts:
            host.follower.close()

    asyncio.run(run())


@pytest.mark.parametrize("names", [("handmade", "handmade"), ("handmade", "No")])
def test_names_that_cannot_be(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(TaskError):
        create_app(Settings(home=tmp_path), *names)
