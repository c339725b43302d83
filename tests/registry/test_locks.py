"""The lock: one holder, named to the others, and free again when the holder is gone."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from registry.errors import BusyError, StoreError
from registry.locks import exclusive, holder

HOLD = """
import sys, time
from pathlib import Path
from registry.locks import exclusive
with exclusive(Path(sys.argv[1]), "a search of task flights"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_waited_for_and_looked_at(tmp_path: Path) -> None:
    """Whoever looks takes nothing away from whoever waits."""
    path = tmp_path / "replay.lock"
    assert holder(path) is None
    with ThreadPoolExecutor(1) as pool:
        with exclusive(path, "a replay"):
            assert holder(path) == f"process {os.getpid()}: a replay"
            waits = pool.submit(_held, path, patience=30.0)
            with pytest.raises(BusyError):
                _held(path, patience=0.2)
            assert not waits.done()
        assert waits.result(30)
    assert holder(path) is None


def test_who_may_only_read_sees_the_holder() -> None:
    """Such as a user who is not the one that the endpoint runs as, or one of a home on a read-only disk."""
    nobody, me = 65_534, os.geteuid()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "replay.lock"
        with exclusive(path, "a replay"):
            path.chmod(0o444)
            Path(folder).chmod(0o555)
            os.seteuid(nobody if me == 0 else me)
            try:
                assert holder(path) == f"process {os.getpid()}: a replay"
                assert holder(path.with_name("other.lock")) is None
                assert os.listdir(folder) == [path.name]
            finally:
                os.seteuid(me)
                Path(folder).chmod(0o755)


def test_two_who_look_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "replay.lock"
    assert _held(path, patience=0.0)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(holder, [path] * 2_000)) == {None}


def _held(path: Path, *, patience: float) -> bool:
    with exclusive(path, "a replay", patience=patience):
        return True


def test_a_lock_is_held_once_and_free_again(tmp_path: Path) -> None:
    """Within one process too, and after an error inside the block."""
    path = tmp_path / "new" / "search.lock"
    with (
        exclusive(path, "a search"),
        pytest.raises(BusyError, match=rf"a search cannot begin: process {os.getpid()} is busy with the same since 20"),
        exclusive(path, "a search"),
    ):
        pytest.fail("the lock was given twice")
    with pytest.raises(ZeroDivisionError), exclusive(path, "a search"):
        raise ZeroDivisionError
    with exclusive(path, "a search"):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    """Another process is named by its id while it holds the lock; kill -9 frees it."""
    path = tmp_path / "search.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as caught, exclusive(path, "it"):
            pytest.fail("the lock was given twice")
        pid, what, since = path.read_text().splitlines()
        assert (int(pid), what) == (process.pid, "a search of task flights")
        assert str(caught.value) == (
            f"it cannot begin: process {pid} is busy with {what} since {since}: wait until it ends, or end it "
            f"(kill {pid}); the lock is {path}"
        )
        assert datetime.now(UTC) - datetime.fromisoformat(since.replace(" UTC", "Z")) < timedelta(minutes=2)
        process.send_signal(signal.SIGKILL)
    with exclusive(path, "it"):
        assert path.read_text().startswith(f"{os.getpid()}\nit\n")


def test_who_only_looks_is_not_taken_for_one_at_work(tmp_path: Path) -> None:
    """What the file says is then of a holder that has gone."""
    path = tmp_path / "search.lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(f"{gone.pid}\na search\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with (
            pytest.raises(BusyError, match="another process has the lock: try again later"),
            exclusive(path, "a search"),
        ):
            pytest.fail("a lock that is looked at was given")


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A worker started under the lock does not hold it beyond its parent's block."""
    path = tmp_path / "search.lock"
    with exclusive(path, "a search"):
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with exclusive(path, "a search"):
        worker.kill()
    worker.wait()


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder in the lock's place is an outside fault that names it."""
    with pytest.raises(StoreError, match="cannot be opened"), exclusive(tmp_path, "a search"):
        pytest.fail("a folder was locked")
