"""p99 while versions are swapped, against the quiet p99 of the same server in the same run.

Three kinds of drives in turn: quiet; `control`, where the registry's database is written to as often, but nothing is
swapped; `swaps`, where the champion's alias goes from one version to the other every two seconds. Who moves the alias
is a process on the client's core, at a low priority.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from benchmarks.serving_champion import Home, remember
from benchmarks.serving_load import Drive, drive
from benchmarks.serving_process import Cores, own_environment, running
from benchmarks.serving_rivals import CONTENDERS, EVERFIT, ROOT, SERVERS, Bench, server_of
from benchmarks.serving_rounds import Running

CONNECTIONS, EVERY_SECONDS = 4, 2.0
KINDS = ("quiet", "control", "swaps")


@dataclass(frozen=True)
class Swaps:
    """Each kind's drives, and how many swaps the endpoint made in all."""

    drives: dict[str, list[Drive]]
    swaps: int


@contextmanager
def moving(home: Home, kind: str, every: float) -> Iterator[None]:
    """Aliases that move while the block lasts."""
    first, second = home.versions[:2]
    command = [sys.executable, str(SERVERS / "mover.py"), kind, str(every), home.task, second, first]
    environment = own_environment(ROOT, **home.environment())
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the process that moves the aliases did not start")
        try:
            yield
        finally:
            process.stdin.close()
            process.stdout.read()


def measure_swaps(bench: Bench, cores: Cores, *, seconds: float, repeats: int) -> Swaps:
    """Drive Everfit at four connections, single rows."""
    remember(bench.home)
    server, load = server_of(bench, EVERFIT), CONTENDERS[EVERFIT].load(bench.rows, 1)
    drives: dict[str, list[Drive]] = {kind: [] for kind in KINDS}
    with running(server, cores.server) as (process, _):
        endpoint = Running(server, process)
        settle(endpoint)
        drive(server.port, load, CONNECTIONS, 1.0)
        for repeat in range(repeats):
            for kind in KINDS[:: 1 if repeat % 2 == 0 else -1]:
                moves = nullcontext() if kind == "quiet" else moving(bench.home, _alias(kind), EVERY_SECONDS)
                with moves:
                    drives[kind].append(drive(server.port, load, CONNECTIONS, seconds))
                settle(endpoint)
        swaps = int(endpoint.ask("/model")["swaps"])
    return Swaps(drives, swaps)


def _alias(kind: str) -> str:
    return "champion" if kind == "swaps" else kind


def settle(endpoint: Running) -> None:
    """Wait until the registry was asked and the log is in the store."""
    while endpoint.ask("/health/ready")["registry"] == "not asked yet" or endpoint.ask("/model")["log_backlog"] > 0:
        time.sleep(0.1)
