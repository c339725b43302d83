"""Several workers share a port and a log: nothing is lost or written twice, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import orjson
import psutil
import pyarrow as pa
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from tests.handmade import make_bundle
from tests.serving.conftest import ROW, wait_for


class Together:
    """The parent process of two workers, and a place to send requests to."""

    def __init__(self, home: Path, bundle: ModelBundle, **more: str) -> None:
        memory = home / "served" / "handmade.json"
        memory.parent.mkdir(parents=True)
        memory.write_bytes(orjson.dumps({"version": "1", "folder": str(bundle.folder)}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {
            "EVERFIT_HOME": str(home),
            "EVERFIT_PORT": str(self.port),
            "EVERFIT_WORKERS": "2",
            "EVERFIT_TRACKING_URL": "http://127.0.0.1:9",
            "EVERFIT_DRAIN_SECONDS": "0.1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving", "handmade"], env={**os.environ, **own, **more}
        )
        wait_for(lambda: len(self.workers()) == 2 and self.ready())

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if "--worker" in command_of(one)]

    def ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready", trust_env=False).status_code == 200
        return False

    def call(self, method: str, path: str) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=30)

    def answering(self, task: str) -> set[int]:
        """How a task's questions are answered, on so many connections that either worker has had some."""
        found: set[int] = set()
        for _ in range(16):
            with suppress(httpx.TransportError):
                found.add(self.call("GET", f"/models/{task}").status_code)
        return found

    def predict(self, count: int, found: list[str]) -> None:
        """Add the ids of requests that were acknowledged, each on a connection of its own."""
        for _ in range(count):
            with suppress(httpx.TransportError):
                answer = httpx.post(f"http://127.0.0.1:{self.port}/predict", json=ROW, trust_env=False)
                found += [one["id"] for one in answer.json()["predictions"]]


def command_of(process: psutil.Process) -> list[str]:
    """Nothing of one that was killed and is not waited for yet."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def told_of(together: Together) -> set[str]:
    """The workers that a scrape is told of; whichever is asked."""
    with suppress(httpx.TransportError):
        text = httpx.get(f"http://127.0.0.1:{together.port}/metrics", trust_env=False).text
        assert text.count("# TYPE everfit_ready gauge") == 1
        return set(re.findall(r'everfit_ready{task="handmade",worker="(\d+)"} 1.0', text))
    return set()


@pytest.fixture
def together(tmp_path: Path, bundles: dict[str, ModelBundle]) -> Iterator[Together]:
    one = Together(tmp_path, bundles["good"])
    yield one
    if one.process.poll() is None:
        one.process.kill()
    one.process.wait(timeout=30)


def test_workers_share_port_and_log_and_are_replaced(together: Together, tmp_path: Path) -> None:
    """Four clients, one worker killed without warning while they ask: what was acknowledged is logged, once."""
    ids: list[str] = []
    wait_for(lambda: len(told_of(together)) >= 2)
    clients = [threading.Thread(target=together.predict, args=(40, ids)) for _ in range(4)]
    for one in clients:
        one.start()
    first = together.workers()[0]
    wait_for(lambda: len(ids) > 20)
    first.send_signal(signal.SIGKILL)
    for one in clients:
        one.join()
    assert len({one[14:] for one in ids}) >= 2, "ids say that two processes answered"
    wait_for(lambda: len(together.workers()) == 2 and first not in together.workers())
    wait_for(together.ready)
    wait_for(lambda: len(told_of(together)) >= 2)
    together.process.terminate()
    assert together.process.wait(timeout=40) == 0
    logged = InferenceLog(open_engine(f"sqlite:///{tmp_path}/everfit.db"), "handmade").frame()["__id__"]
    assert logged.is_unique
    assert set(ids) <= set(logged)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what a process has mapped")
def test_workers_answer_without_pandas_and_end_with_their_parent(together: Together) -> None:
    """Also with a body and an answer in Arrow, for which pyarrow would load it."""
    table = pa.Table.from_pylist([ROW] * 3)
    with pa.BufferOutputStream() as sink:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body = sink.getvalue().to_pybytes()
    answers = [httpx.post(f"http://127.0.0.1:{together.port}/predict", content=body) for _ in range(8)]
    assert [one.status_code for one in answers] == [200] * 8
    assert pa.ipc.open_stream(answers[0].content).read_all().num_rows == 3
    workers = together.workers()
    mapped = [{one.path for one in worker.memory_maps()} for worker in workers]
    assert all(any("onnxruntime" in path for path in one) for one in mapped)
    assert not any("pandas" in path for one in mapped for path in one)
    together.process.kill()
    together.process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=40)
    assert (len(gone), alive) == (2, [])


def test_what_one_worker_loads_or_unloads_the_others_do_too(together: Together, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", rows=100, name="other")
    (tmp_path / "served" / "other.json").write_bytes(orjson.dumps({"version": "4", "folder": str(other.folder)}))
    together.call("POST", "/v2/repository/models/other/load")
    wait_for(lambda: together.answering("other") == {200})
    together.workers()[0].send_signal(signal.SIGKILL)  # another one takes its place, and follows
    wait_for(lambda: len(together.workers()) == 2 and together.answering("other") == {200})
    together.call("POST", "/v2/repository/models/other/unload")
    wait_for(lambda: together.answering("other") == {404})
    assert together.answering("handmade") == {200}
