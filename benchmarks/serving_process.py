"""Servers as processes of their own: started on one core, awaited, weighed, and stopped with all they started."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from benchmarks.serving_load import Load

PATIENCE_SECONDS = 90.0
KEEPER, SCOUT = "serving.keeper", "serving.scout"


class Cores(NamedTuple):
    """The core of all of a server's processes, and the client's."""

    server: int | None
    client: int | None


class Weight(NamedTuple):
    """Memory of a process or several, in megabytes (10^6 bytes): resident, and with shared pages divided by those who
    share them (`Pss` of `smaps_rollup`; resident where the system has none)."""

    rss: float
    pss: float


@dataclass(frozen=True)
class Server:
    """How a server is started, on a port of its own."""

    name: str
    command: tuple[str, ...]
    port: int
    probe: Load
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


def two_cores() -> Cores:
    """The first two cores that this process may use; none where the system cannot bind processes, or has one core."""
    if not hasattr(os, "sched_getaffinity") or len(found := sorted(os.sched_getaffinity(0))) < 2:
        return Cores(None, None)
    return Cores(found[0], found[1])


def bind(core: int | None) -> None:
    """Keep this process, and all it starts from now on, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(server: Server, core: int | None) -> tuple[subprocess.Popen[bytes], float]:
    """Start a server; also the seconds until its first good answer to the probe. Raises `SystemExit` when it
    ends or does not answer, and prints the end of its output."""
    folder = server.folder or Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{server.name.replace(' ', '-')}-{server.port}.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            server.command,
            cwd=folder,
            env=dict(server.environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: bind(core),
        )
    try:
        _await(process, server)
    except BaseException:
        stop(process)
        print(Path(log.name).read_text(errors="replace")[-3000:])
        raise
    return process, time.perf_counter() - began


@contextmanager
def running(server: Server, core: int | None) -> Iterator[tuple[psutil.Process, float]]:
    """A server's first process and its start-up seconds, from its first good answer to the end of the block."""
    process, seconds = start(server, core)
    try:
        yield psutil.Process(process.pid), seconds
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all processes it started: asked at first, then made to."""
    family = tree(psutil.Process(process.pid)) if process.poll() is None else []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=40)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        _, family = psutil.wait_procs(family, timeout=1)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                end(one)
    process.wait(timeout=30)


@contextmanager
def at_rest(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Hold other servers' processes still: what they do while nobody asks them must cost the measured one nothing."""
    held = [one for process in processes for one in tree(process)]
    for one in held:
        with suppress(psutil.NoSuchProcess):
            one.suspend()
    try:
        yield
    finally:
        for one in held:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def _await(process: subprocess.Popen[bytes], server: Server) -> None:
    url, deadline = f"http://127.0.0.1:{server.port}{server.probe.path}", time.monotonic() + PATIENCE_SECONDS
    with httpx.Client(trust_env=False, timeout=PATIENCE_SECONDS) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.TransportError):
                headers = {"content-type": server.probe.kind}
                if client.post(url, content=server.probe.bodies[0], headers=headers).status_code == 200:
                    return
            time.sleep(0.01)
    raise SystemExit(f"{server.name} gave no good answer on port {server.port} in {PATIENCE_SECONDS:.0f} s")


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all it started that live."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def cpu_seconds(process: psutil.Process) -> dict[int, float]:
    """CPU-seconds so far of a process and of each that it started."""
    found = {}
    for one in tree(process):
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            found[one.pid] = times.user + times.system
    return found


def is_keeper(process: psutil.Process) -> bool:
    """Whether a process is the one that moves an endpoint's journal into the store."""
    return _runs(process, KEEPER)


def is_scout(process: psutil.Process) -> bool:
    """Whether a process is the one that asks the registry for an endpoint."""
    return _runs(process, SCOUT)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process of an endpoint's is the one that answers."""
    return not is_keeper(process) and not is_scout(process)


def _runs(process: psutil.Process, module: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return module in process.cmdline()
    return False


def weigh(process: psutil.Process, chosen: Callable[[psutil.Process], bool] = lambda _: True) -> Weight:
    """The memory of those of a process and its children that are chosen."""
    weights = [_weight(one) for one in tree(process) if chosen(one)]
    return Weight(sum(one.rss for one in weights), sum(one.pss for one in weights))


def _weight(process: psutil.Process) -> Weight:
    try:
        rss = process.memory_info().rss / 1e6
        return Weight(rss, _pss(process.pid) or rss)
    except psutil.NoSuchProcess:
        return Weight(0.0, 0.0)


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def own_environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of Everfit's own programs: this checkout's code, one thread a library."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": str(root), **more}


def foreign_environment(python: str, **more: str) -> dict[str, str]:
    """The environment of a rival's programs: its own interpreter first, none of this checkout's code, and nothing that
    reports to anybody."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    silent = {
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OTEL_SDK_DISABLED": "true",
    }
    path = f"{Path(python).parent}{os.pathsep}{kept.get('PATH', '')}"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **silent, **threads, "PATH": path, **more}


def lines_of(command: Sequence[str], environment: Mapping[str, str], core: int | None) -> list[str]:
    """The output of a program that was run on one core to its end, by lines."""
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=True, preexec_fn=lambda: bind(core)
    )
    return done.stdout.splitlines()
