"""The rounds: servers started, driven in turn, and weighed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import orjson
import psutil

from benchmarks.serving_champion import remember
from benchmarks.serving_load import ARROW, Drive, Load, drive
from benchmarks.serving_process import (
    Cores,
    Server,
    Weight,
    at_rest,
    cpu_seconds,
    is_keeper,
    is_scout,
    is_worker,
    lines_of,
    own_environment,
    running,
    weigh,
)
from benchmarks.serving_rivals import (
    CONTENDERS,
    EVERFIT,
    EVERFIT_ARROW,
    ROOT,
    SERVERS,
    Bench,
    Contender,
    arrow_contender,
    server_of,
)

BARE = "ONNX Runtime"
DRAIN_SECONDS = 120.0


class Plan(NamedTuple):
    """How much is measured: rows a request, connections, repeats of a round, its seconds, starts of each server."""

    batches: tuple[int, ...]
    connections: tuple[int, ...]
    repeats: int
    seconds: float
    starts: int


class Round(NamedTuple):
    """One drive of one server: requests a second, latencies in milliseconds, CPU-milliseconds of all its processes a
    request; and for a server that logs, the share of them that its keeper took and the seconds until its log was in the
    store."""

    rate: float
    p50: float
    p99: float
    cpu: float
    keeper: float = 0.0
    drain: float = 0.0


Cell = tuple[str, int, int]
"""Contender, rows a request, connections."""


@dataclass
class Results:
    """What was found. `limit` is the bare graph's calls a second by rows a call, one value a repeat; `worker` and
    `keeper` and `scout` are Everfit's processes apart, after the load."""

    rounds: dict[Cell, list[Round]] = field(default_factory=dict)
    limit: dict[int, list[float]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    fresh: dict[str, Weight] = field(default_factory=dict)
    loaded: dict[str, Weight] = field(default_factory=dict)
    worker: Weight | None = None
    keeper: Weight | None = None
    scout: Weight | None = None
    fresh_worker: Weight | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Running:
    """A server that is up."""

    server: Server
    process: psutil.Process

    def ask(self, path: str) -> Any:
        """What a path of it answers."""
        return httpx.get(f"http://127.0.0.1:{self.server.port}{path}", trust_env=False, timeout=60).json()


def measure(
    bench: Bench, names: list[str], plan: Plan, cores: Cores, results: Results, tell: Callable[[int], None] | None
) -> None:
    """Start every server, as often as planned; then drive them all, if there is somebody to `tell` of each size of
    batch that is done."""
    for name in names:
        for _ in range(plan.starts - (tell is not None)):
            with _started(bench, name, cores, results):
                pass
    if tell is None:
        return
    with ExitStack() as stack:
        up = {name: stack.enter_context(_started(bench, name, cores, results)) for name in names}
        if EVERFIT in up:
            _await_registry(up[EVERFIT])
        contenders = [CONTENDERS[name] for name in names]
        if EVERFIT in up and _takes_arrow(bench, up[EVERFIT], results):
            contenders.insert(1, arrow_contender(bench.bundle))
        for size in plan.batches:
            for connections in plan.connections:
                _drive_all(bench, up, contenders, (size, connections), plan, results)
                with at_rest([one.process for one in up.values()]):
                    _measure_limit(bench, size, plan, cores, results)
            tell(size)
        for name, one in up.items():
            results.loaded[name] = weigh(one.process)
        if EVERFIT in up:
            _weigh_apart(up[EVERFIT], results)


def _await_registry(everfit: Running) -> None:
    """Wait until the registry was asked: the scout imports MLflow for seconds, on the server's core."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while everfit.ask("/health/ready")["registry"] == "not asked yet" and time.monotonic() < deadline:
        time.sleep(0.2)


@contextmanager
def _started(bench: Bench, name: str, cores: Cores, results: Results) -> Iterator[Running]:
    """A server that is up, its start-up and its first memory noted."""
    if name == EVERFIT:
        remember(bench.home)
    server = server_of(bench, name)
    with running(server, cores.server) as (process, seconds):
        results.starts.setdefault(name, []).append(seconds)
        results.fresh.setdefault(name, weigh(process))
        if name == EVERFIT and results.fresh_worker is None:
            results.fresh_worker = weigh(process, is_worker)
        yield Running(server, process)


def _takes_arrow(bench: Bench, everfit: Running, results: Results) -> bool:
    load = arrow_contender(bench.bundle).load(bench.rows, 32)
    url = f"http://127.0.0.1:{everfit.server.port}{load.path}"
    headers = {"content-type": ARROW, "accept": ARROW}
    answer = httpx.post(url, content=load.bodies[0], headers=headers, trust_env=False, timeout=60)
    taken = answer.status_code == 200
    told = f"answered as {answer.headers.get('content-type')}" if taken else f"not taken ({answer.status_code})"
    results.notes.append(f"Arrow bodies: {told}")
    return taken


def _drive_all(
    bench: Bench,
    up: dict[str, Running],
    contenders: list[Contender],
    cell: tuple[int, int],
    plan: Plan,
    results: Results,
) -> None:
    """All rounds of one size and one number of connections, those of a repeat one after another."""
    loads = {one.name: one.load(bench.rows, cell[0]) for one in contenders}
    gone: set[str] = set()
    for repeat in range(-1, plan.repeats):  # the first is a warm-up
        for name in list(loads)[:: 1 if repeat % 2 == 0 else -1]:
            server = _server_name(name)
            others = [one.process for other, one in up.items() if other != server]
            if name in gone:
                continue
            with at_rest(others):
                try:
                    found = _round(up[server], loads[name], cell[1], plan.seconds if repeat >= 0 else 0.3)
                except (RuntimeError, ConnectionError) as error:
                    gone.add(name)
                    told = " ".join(str(error).split())[:200]
                    results.notes.append(f"{name}, {cell[0]} rows, {cell[1]} connections: {told}")
                    continue
            if repeat >= 0:
                results.rounds.setdefault((name, *cell), []).append(found)
    print(f"{cell[0]:,} rows a request, {cell[1]} connections: done", file=sys.stderr, flush=True)


def _server_name(contender: str) -> str:
    return EVERFIT if contender == EVERFIT_ARROW else contender


def _round(one: Running, load: Load, connections: int, seconds: float) -> Round:
    before = cpu_seconds(one.process)
    driven = drive(one.server.port, load, connections, seconds)
    drained = _drain(one) if one.server.name == EVERFIT else 0.0
    spent = {pid: now - before.get(pid, 0.0) for pid, now in cpu_seconds(one.process).items()}
    keeper = sum(value for pid, value in spent.items() if psutil.pid_exists(pid) and is_keeper(psutil.Process(pid)))
    return as_round(driven, sum(spent.values()), keeper, drained)


def as_round(driven: Drive, cpu: float, keeper: float = 0.0, drained: float = 0.0) -> Round:
    """A drive in the units of `Round`; `cpu` and `keeper` are CPU-seconds."""
    p50, p99 = driven.quantile(0.5) * 1e3, driven.quantile(0.99) * 1e3
    return Round(driven.rate, p50, p99, cpu / driven.answers * 1e3, keeper / cpu if cpu > 0 else 0.0, drained)


def _drain(one: Running) -> float:
    """Wait until the log is in the store; the seconds."""
    began = time.monotonic()
    while one.ask("/model")["log_backlog"] > 0:
        if time.monotonic() - began > DRAIN_SECONDS:
            raise RuntimeError(f"the log is not in the store after {DRAIN_SECONDS:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began


def _measure_limit(bench: Bench, size: int, plan: Plan, cores: Cores, results: Results) -> None:
    """The bare graph on the servers' core; once for each number of connections, so that it is measured at all times of
    the run."""
    rows = bench.scratch / "rows.json"
    rows.write_bytes(orjson.dumps(bench.rows))
    command = [sys.executable, str(SERVERS / "bare.py"), str(bench.bundle.folder), str(rows)]
    (line,) = lines_of([*command, str(plan.seconds), str(size)], own_environment(ROOT), cores.server)
    results.limit.setdefault(size, []).append(float(line.split()[1]))


def _weigh_apart(everfit: Running, results: Results) -> None:
    results.worker = weigh(everfit.process, is_worker)
    results.keeper = weigh(everfit.process, is_keeper)
    results.scout = weigh(everfit.process, is_scout)
