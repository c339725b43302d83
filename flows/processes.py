"""One service as a process of its own: started, recognised, waited for, stopped.

A service is recognised by its record in `HOME/run` (pid, start time, command line) and, where a kill came between the
start and the record, by a mark in its environment, which its own children inherit: `stop` leaves none of them behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from registry.errors import OutsideError, StateError

MARK = "EVERFIT_PROCESS_OF"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Service:
    """What is started and how it is known to be ready.

    `health` is a URL that answers 200, verified by `verify` if it is one of HTTPS, or a file that holds the pid of the
    process that is ready.
    """

    name: str
    what: str
    command: tuple[str, ...]
    health: str | Path
    url: str = ""
    port: int | None = None
    setting: str = ""
    seconds: float = 90.0
    verify: ssl.SSLContext | bool = True
    host: str = "127.0.0.1"
    grpc_port: int | None = None


@dataclass(frozen=True)
class Desk:
    """The folder in which the services of one home leave their records and logs."""

    home: Path

    def log(self, name: str) -> Path:
        """The log file of a service."""
        return self.home / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        """The record of a service that was started."""
        return self.home / "run" / f"{name}.json"

    def ready(self, name: str) -> Path:
        """The file in which a service without a port says that it is ready."""
        return self.home / "run" / f"{name}.ready"

    def mark(self, name: str) -> str:
        """The value of `MARK` in the environment of a service and its children."""
        return f"{name}@{self.home}"

    def find(self, name: str) -> psutil.Process | None:
        """The running process of a service, or None."""
        if (record := self._read(name)) is None:
            return None
        named = _same(record)
        orphans = (one for one in self.marked(name) if _command(one) == record["command"])
        return named or next(orphans, None)

    def command(self, name: str) -> tuple[str, ...]:
        """How a service was started last; empty where it was not, or was stopped in good order since."""
        record = self._read(name)
        return () if record is None else tuple(record["command"])

    def pid(self, name: str) -> int | None:
        """As which process a service was started last; None where that is not known."""
        record = self._read(name)
        return None if record is None else record.get("pid")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(self.record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record

    def marked(self, *names: str) -> list[psutil.Process]:
        """Every process of these services and of their children, oldest first."""
        marks = {self.mark(name) for name in names}
        found = [process for process in psutil.process_iter() if _mark_of(process) in marks]
        return sorted(found, key=_created)

    def start(self, service: Service, environment: Mapping[str, str]) -> psutil.Process:
        """Start a service in a session of its own, so that it outlives whoever started it."""
        for path in (self.log(service.name), self.record(service.name)):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not self._former(service.name).exists():  # else what was recorded since never came up
            with contextlib.suppress(FileNotFoundError):
                self.record(service.name).replace(self._former(service.name))
        self._write_record(service, {})  # first: one that is killed after the start is still found by its command
        with self.log(service.name).open("ab") as log:
            child = subprocess.Popen(
                service.command,
                env={**environment, MARK: self.mark(service.name)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.home,
            )
        child.returncode = 0  # it outlives this process: nothing here waits for it, and nothing need warn of that
        process = psutil.Process(child.pid)
        self._write_record(service, {"pid": process.pid, "created": process.create_time()})
        return process

    def _former(self, name: str) -> Path:
        """The record of the time before, until this one has come up."""
        return self.record(name).with_suffix(".former")

    def _forget(self, name: str) -> None:
        """What never came up is not to be brought back: the record is the former one again, if there is one."""
        try:
            self._former(name).replace(self.record(name))
        except FileNotFoundError:
            self.record(name).unlink(missing_ok=True)

    def _write_record(self, service: Service, process: Mapping[str, float]) -> None:
        partial = self.record(service.name).with_suffix(".partial")
        partial.write_text(json.dumps({"command": service.command, **process}), encoding="utf-8")
        partial.replace(self.record(service.name))

    def wait(self, service: Service, process: psutil.Process) -> None:
        """Wait until the service is ready. Raises `OutsideError` with its last words if it stops or takes too long."""
        deadline = time.monotonic() + service.seconds
        while not is_ready(service, process):
            if not _alive(process):
                self._forget(service.name)
                raise OutsideError(f"{service.what} stopped while starting{self._last_words(service.name)}")
            if time.monotonic() > deadline:
                raise OutsideError(
                    f"{service.what} was not ready within {service.seconds:.0f} s{self._last_words(service.name)}"
                )
            time.sleep(_POLL_SECONDS)
        self._former(service.name).unlink(missing_ok=True)

    def _last_words(self, name: str) -> str:
        path = self.log(name)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return "\n".join([f"; the end of {path}:", *(f"  {line}" for line in lines[-8:])])

    def stop(self, *names: str, grace: float) -> tuple[str, ...]:
        """Ask services to end, and kill what is left of them and their children after `grace` seconds; the names that
        ran. A child with a process group of its own is not asked: it ends when it sees its parent gone."""
        leaders = {name: process for name in names if (process := self.find(name)) is not None}
        members = {*leaders.values(), *self.marked(*names)}
        groups = {process.pid for process in leaders.values()}
        _signal([process for process in members if _group(process) in groups], signal.SIGTERM)
        psutil.wait_procs(list(members), timeout=grace)
        left = {process for process in {*members, *self.marked(*names)} if _alive(process)}
        _signal(left, signal.SIGKILL)
        psutil.wait_procs(list(left), timeout=grace)
        for name in names:
            self.record(name).unlink(missing_ok=True)
            self._former(name).unlink(missing_ok=True)
            self.ready(name).unlink(missing_ok=True)
        return tuple(leaders)


def is_ready(service: Service, process: psutil.Process) -> bool:
    """Whether a service says that it is ready."""
    if isinstance(service.health, Path):
        return service.health.is_file() and service.health.read_text(encoding="utf-8") == str(process.pid)
    try:
        return httpx.get(service.health, timeout=2.0, trust_env=False, verify=service.verify).status_code == 200
    except httpx.HTTPError:
        return False


def require_free(service: Service) -> None:
    """Raise `StateError`, naming port, holder and setting, when a port of a service that does not run is taken, or none
    of its addresses is of this machine."""
    for port, setting in ((service.port, service.setting), (service.grpc_port, "EVERFIT_GRPC_PORT")):
        if port is not None:
            _require_free(service, port, setting)


def _require_free(service: Service, port: int, setting: str) -> None:
    try:
        found = socket.getaddrinfo(service.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        absent = [error for family, kind, _, _, address in found if (error := _absent(family, kind, address))]
        if len(absent) == len(found):
            raise absent[0]
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            where = f"{service.host}, port {port}"
            raise StateError(f"{service.what} cannot listen on {where}: {error.strerror}") from error
        raise StateError(
            f"{service.what}: port {port} is taken by {_holder(port)}; free it, or choose another with {setting}"
        ) from error


def _absent(family: int, kind: int, address: Any) -> OSError | None:
    """Why an address is none of this machine, as a name's `::1` where IPv6 is off. Raises `OSError` of one that is."""
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return error
        raise
    return None


def _holder(port: int) -> str:
    """Who listens on a port, as far as this user may see."""
    try:
        found = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        pids = {one.pid for one in found if one.laddr and one.laddr.port == port and one.pid}
        return ", ".join(f"process {pid} ({psutil.Process(pid).name()})" for pid in sorted(pids)) or "another process"
    except psutil.Error:
        return "another process"


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _same(record: Mapping[str, Any]) -> psutil.Process | None:
    """The process of a record, if it is still the one that was recorded: pids are used again."""
    try:
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["created"] and process.cmdline() == record["command"]
    except (KeyError, psutil.Error):
        return None
    return process if same and _alive(process) else None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return 0


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _created(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.Error:
        return float("inf")
