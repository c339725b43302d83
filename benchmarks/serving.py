"""Single-row `POST /predict`, logging on, against an empty FastAPI endpoint: one worker each, same body, side by side.

    python benchmarks/serving.py [--bundle FOLDER] [--repeats 5] [--seconds 4] [--connections 4]

Both servers run at once, each as a process of its own (uvicorn, uvloop, httptools, no access log); a closed loop of
several connections drives them in turn. Also measured: the journal's own cost of one request.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import httpx
import orjson
import psutil
import uvicorn
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before this folder, where `serving` is this file

from registry.bundle import ModelBundle
from registry.scoring import Scorer
from serving.champion import Served
from serving.journal import Journal
from serving.openapi import example_row
from tests.handmade import make_bundle

REACH = 0.6


class Round(NamedTuple):
    """One drive of one server."""

    rate: float
    p50: float
    p99: float
    cpu: float
    """Microseconds of the server process a request."""


class Client(asyncio.Protocol):
    """One connection of a closed loop: the next request leaves when the last answer is whole."""

    def __init__(self, request: bytes, latencies: list[float], until: float, done: asyncio.Future[None]) -> None:
        self._request, self._latencies, self._until, self._done = request, latencies, until, done
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Collect an answer; at its end, ask again."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(self._buffer[:500].decode()))
            return
        self._buffer = b""
        now = perf_counter()
        self._latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._transport.close()
            self._done.set_result(None)

    def _send(self) -> None:
        self._sent = perf_counter()
        self._transport.write(self._request)


async def _drive(port: int, body: bytes, connections: int, seconds: float) -> list[float]:
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    loop, latencies = asyncio.get_running_loop(), []
    until = perf_counter() + seconds
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for end in ends:
        make = lambda end=end: Client(head.encode() + body, latencies, until, end)  # noqa: E731
        await loop.create_connection(make, "127.0.0.1", port)
    await asyncio.gather(*ends)
    return latencies


def measure(process: psutil.Process, port: int, body: bytes, connections: int, seconds: float) -> Round:
    """Drive one server for a while."""
    before, started = process.cpu_times(), perf_counter()
    latencies = sorted(uvloop.run(_drive(port, body, connections, seconds)))
    wall, after = perf_counter() - started, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    n = len(latencies)
    return Round(n / wall, latencies[n // 2] * 1e6, latencies[n * 99 // 100] * 1e6, cpu / n * 1e6)


def empty_app() -> Any:
    """The endpoint to compare with: FastAPI parses the same body and answers a small dictionary."""
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/predict")
    async def predict(body: dict[str, Any]) -> dict[str, Any]:
        return {"columns": len(body)}

    return app


@contextmanager
def running(command: list[str], port: int, path: str, **environment: str) -> Iterator[psutil.Process]:
    """A server process, from its first good answer to the end of the block."""
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **environment})
    try:
        _await(port, path, process)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _await(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            if answer.status_code == 200 and "not asked yet" not in answer.text:  # the registry's import is over
                return
        time.sleep(0.1)
    raise SystemExit(f"no server on port {port}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _serving_home(home: Path, bundle: ModelBundle) -> dict[str, str]:
    """A home whose endpoint serves the bundle from its cache; its registry is away."""
    memory = home / "served" / f"{bundle.manifest.task.name}.json"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(orjson.dumps({"version": "1", "folder": str(bundle.folder.resolve())}))
    away = "http://127.0.0.1:9"
    return {"EVERFIT_HOME": str(home), "EVERFIT_TRACKING_URL": away, "EVERFIT_POLL_SECONDS": "3600"}


def journal_cost(folder: Path, served: Served, row: dict[str, Any], *, synced: bool, requests: int) -> float:
    """Microseconds to store one single-row request."""
    journal = Journal(folder, max_bytes=10**12, synced=synced)
    scores = served.scorer.run(served.reader.one(row))
    body = orjson.dumps(row)
    started = perf_counter()
    for _ in range(requests):
        answer = served.answers.write(["0660d8c4ce0cdb73e9f0759f"], scores)
        journal.append(served.version, served.record, b'{"received":1,"answer":%b,"sent":%b}' % (answer, body), 1)
        if synced:
            journal.settle()
    total = perf_counter() - started
    started = perf_counter()
    for _ in range(requests):
        served.answers.write(["0660d8c4ce0cdb73e9f0759f"], scores)
    return (total - (perf_counter() - started)) / requests * 1e6


def _graph_cost(bundle: ModelBundle, served: Served, row: dict[str, Any]) -> float:
    feed, scorer = served.reader.one(row), Scorer.load(bundle)
    times = []
    for _ in range(2_000):
        started = perf_counter()
        scorer.run(feed)
        times.append(perf_counter() - started)
    return statistics.median(times) * 1e6


def compare(options: argparse.Namespace, home: Path) -> float:
    """Print the comparison; returns the ratio of the median rates."""
    bundle = ModelBundle.load(options.bundle) if options.bundle else make_bundle(home / "bundle")
    task, row = bundle.manifest.task.name, example_row(bundle.manifest.data_schema)
    served, body = Served.load(bundle, "1", task), orjson.dumps(row)
    print(f"{len(row)} columns, body of {len(body)} bytes, graph {_graph_cost(bundle, served, row):.0f} us")
    for synced, requests in ((False, 20_000), (True, 200)):
        cost = journal_cost(home / "cost", served, row, synced=synced, requests=requests)
        print(f"journal, EVERFIT_LOG_SYNC={'disk' if synced else 'os'}: {cost:.1f} us a request")
    ports = _free_port(), _free_port()
    environment = _serving_home(home / "everfit", bundle) | {"EVERFIT_PORT": str(ports[0])}
    with (
        running(["-m", "serving", task], ports[0], "/health/ready", **environment) as ours,
        running([__file__, "--empty", str(ports[1])], ports[1], "/docs") as empty,
    ):
        return _rounds({"everfit": (ours, ports[0]), "empty FastAPI": (empty, ports[1])}, body, options)


def _rounds(servers: dict[str, tuple[psutil.Process, int]], body: bytes, options: argparse.Namespace) -> float:
    for process, port in servers.values():
        measure(process, port, body, options.connections, 1.0)  # warm-up
    found: dict[str, list[Round]] = {name: [] for name in servers}
    for number in range(options.repeats):
        order = list(servers) if number % 2 == 0 else list(servers)[::-1]
        for name in order:
            found[name].append(measure(*servers[name], body, options.connections, options.seconds))
    print(f"{'':16}{'req/s':>10}{'p50 us':>10}{'p99 us':>10}{'CPU us':>10}    (medians of {options.repeats} repeats)")
    for name, rounds in found.items():
        print(f"{name:16}" + "".join(f"{statistics.median(values):10.0f}" for values in zip(*rounds, strict=True)))
    ratios = sorted(a.rate / b.rate for a, b in zip(*found.values(), strict=True))
    spent = sorted(b.cpu / a.cpu for a, b in zip(*found.values(), strict=True))
    middle = statistics.median(ratios)
    print(f"ratio of the rates: {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); to reach: {REACH}")
    print(f"by the server's CPU time: {statistics.median(spent):.2f} ({spent[0]:.2f} to {spent[-1]:.2f})")
    return middle


def main() -> None:
    """Read the options; run the comparison, or, when asked, the empty server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="folder of the bundle to serve; default: a small one made by hand")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--empty", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.empty:
        uvicorn.run(
            empty_app(), port=options.empty, loop="uvloop", http="httptools", log_level="warning", access_log=False
        )
        return
    with tempfile.TemporaryDirectory() as home:
        reached = compare(options, Path(home))
    raise SystemExit(0 if reached >= REACH else 1)


if __name__ == "__main__":
    main()
