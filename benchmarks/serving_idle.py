"""Idle connections: an endpoint that holds 10,000 of them answers others as before, and what they cost in memory.

    PYTHONPATH=. python benchmarks/serving_idle.py [CONNECTIONS]

Both ends of a connection need a file, and server and client are processes of their own: each needs a limit on open
files (`ulimit -n`) somewhat above the number. The connections send nothing, as a balancer's spare ones do.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import orjson
import psutil

from tests.handmade import make_bundle

SPARE_FILES = 200
REQUESTS = 500
ROW = {"when": "2024-03-01T10:00:00", "amount": 0.5, "weight": 2.0, "member": True, "carrier": "AA"}


def main(connections: int = 10_000) -> None:
    """Print memory and latency without and with the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"expected a limit of {wanted:,} open files at least (ulimit -Hn), got {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with TemporaryDirectory() as folder, ExitStack() as held:
        url, process = started(Path(folder), held)
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        client = held.enter_context(httpx.Client(base_url=url, trust_env=False))
        latencies(client)
        before = report("no idle connections", process, client)
        begun = time.perf_counter()
        for _ in range(connections):
            held.enter_context(socket.create_connection(address, timeout=30))
        seconds = time.perf_counter() - begun
        after = report(f"{connections:,} idle connections", process, client)
        print(f"opened in {seconds:.1f} s, {(after - before) / connections / 1024:.1f} KiB each")


def started(home: Path, held: ExitStack) -> tuple[str, psutil.Process]:
    """An endpoint of a small model, ready, and its process; ended with `held`."""
    bundle = make_bundle(home / "bundle", rows=200)
    (home / "served").mkdir()
    (home / "served" / "handmade.json").write_bytes(orjson.dumps({"version": "1", "folder": str(bundle.folder)}))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    told = {"HOME": home, "PORT": port, "TRACKING_URL": "http://127.0.0.1:9", "IDLE_SECONDS": 600}
    environment = {**os.environ, **{f"EVERFIT_{name}": str(value) for name, value in told.items()}}
    server = subprocess.Popen([sys.executable, "-m", "serving", "handmade"], env=environment)
    held.callback(server.wait)
    held.callback(server.terminate)
    url = f"http://127.0.0.1:{port}"
    while not ready(url):
        time.sleep(0.2)
    return url, psutil.Process(server.pid)


def ready(url: str) -> bool:
    """Whether it answers."""
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def latencies(client: httpx.Client) -> list[float]:
    """Milliseconds of requests, one after another, in order of size."""
    found = []
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        assert client.post("/predict", json=ROW).status_code == 200
        found.append(1000 * (time.perf_counter() - begun))
    return sorted(found)


def report(what: str, process: psutil.Process, client: httpx.Client) -> int:
    """Print a line; returns the process's bytes of memory."""
    found, memory = latencies(client), process.memory_info().rss
    tail = found[int(0.99 * len(found))]
    print(f"{what:<28} {memory / 2**20:6.1f} MiB, median {statistics.median(found):.2f} ms, 99 % {tail:.2f} ms")
    return memory


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:2]))
