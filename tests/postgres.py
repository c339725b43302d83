"""A real PostgreSQL server for tests, from Debian's binaries, thrown away afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp


def binaries() -> Path | None:
    """The folder of the newest server's programs, or None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """A fresh server on loopback; yields its SQLAlchemy URL. It refuses to run as root, so root lends it a user."""
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(mkdtemp(prefix="everfit-postgres-"))
    port = _free_port()
    try:
        if user:
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
        initdb = [
            programs / "initdb",
            "-D",
            folder / "data",
            "-U",
            "everfit",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run([*initdb, "--locale=C.UTF-8"], user=user, cwd=folder, check=True, capture_output=True)
        options = ["-p", str(port), "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        command = [programs / "postgres", "-D", folder / "data", "-h", "127.0.0.1", *options]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log) as process,
        ):
            try:
                _wait(programs, port, process, folder / "log")
                yield f"postgresql://everfit@127.0.0.1:{port}/postgres"
            finally:
                process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
                process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(programs: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(ready).returncode == 0:
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
