"""Workers of a study: forks of one process that has imported what they need, and none of them outlives the search."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from registry.energy import cpu_seconds
from registry.errors import OutsideError
from retrain.search import crew as crews
from retrain.search.crew import SPARE, Crew
from retrain.search.forkserver import MODULE, begin
from tests.processes import children

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")

ROOT = Path(__file__).parents[2]
_A_CREW = """
import sys, time
from pathlib import Path
from retrain.search.crew import Crew
crew = Crew(Path(sys.argv[1]), 2)
while crew.working:
    time.sleep(0.05)
    print(*(one.pid for one in crew.processes if one.pid), flush=True)
"""


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Two workers, which wait for a plan. What the user's folder holds is not imported: it would end them."""
    (tmp_path / "queue.py").write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    made = Crew(tmp_path / "study", 2)
    yield made
    made.stop()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.05)


def gone(*pids: int) -> bool:
    """Whether these have ended: what has lost its parent is for the system to bury."""
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def forked(crew: Crew) -> bool:
    return crew.working and all(process.pid for process in crew.processes)


def test_workers_are_forks_of_one_process_and_are_counted_with_it(crew: Crew) -> None:
    """It imports nothing that starts a thread, as Arrow does, which pandas loads: a fork in one of several threads may
    find a lock held for ever. Of a worker that dies another one takes the place."""
    until(lambda: forked(crew) or not crew.working)
    assert crew.working
    (server,) = children(MODULE)
    mapped = [one.path for one in server.memory_maps()]
    assert any("/torch/" in path for path in mapped)
    assert not [path for path in mapped if any(f"/{name}/" in path for name in ("pandas", "pyarrow", "onnxruntime"))]
    pids = [process.pid for process in crew.processes]
    assert sorted(pids) == sorted(child.pid for child in server.children())
    assert server.num_threads() == 1

    first, second = pids
    psutil.Process(first).kill()
    until(lambda: crew.processes[0].poll() is not None)
    assert crew.bury() == [first]
    crew.replace(1)
    until(lambda: forked(crew))
    assert children(MODULE) == [server]
    assert crew.processes[0].pid == second
    assert first not in {process.pid for process in crew.processes}

    before = cpu_seconds()
    crew.stop()
    assert cpu_seconds() - before > 0.5  # its imports
    assert gone(server.pid, *(process.pid for process in crew.processes))
    assert not crew.working


def test_the_death_of_a_server_is_one_death_and_another_takes_its_place(tmp_path: Path) -> None:
    """However many workers it had, all of which are dead."""
    crew = Crew(tmp_path, SPARE + 2)
    try:
        until(lambda: forked(crew))
        (server,) = children(MODULE)
        pids = {process.pid for process in crew.processes}
        server.kill()
        until(lambda: not crew.working)
        buried = crew.bury()
        assert set(buried) == pids
        assert len(buried) == SPARE + 2
        until(lambda: gone(*pids))
        crew.replace(len(buried))
        assert (crew.spare, len(crew.processes)) == (SPARE - 1, SPARE + 2)
        until(lambda: forked(crew))
        assert pids.isdisjoint(process.pid for process in crew.processes)
    finally:
        crew.stop()


def test_a_crew_is_stopped_while_its_server_imports(tmp_path: Path) -> None:
    crew = Crew(tmp_path, 2)
    (server,) = children(MODULE)
    crew.stop()
    assert gone(server.pid)
    assert [process.poll() for process in crew.processes] == [-9, -9]


def test_a_server_that_was_begun_before_is_the_next_crew_s(tmp_path: Path) -> None:
    begin()
    begin()
    (server,) = children(MODULE)
    crews = [Crew(tmp_path / name, 1) for name in "ab"]
    try:
        until(lambda: all(map(forked, crews)))
        forks = [psutil.Process(crew.processes[0].pid).ppid() for crew in crews]
        assert forks[0] == server.pid
        assert forks[1] != server.pid
    finally:
        for crew in crews:
            crew.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
    found = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    monkeypatch.setattr("retrain.search.forkserver.environment", lambda: found)
    crew = Crew(tmp_path, 2)
    until(lambda: not crew.working)
    crew.spare = 0
    with pytest.raises(OutsideError, match=r"4 times so far.*no torch today"):
        crew.replace(len(crew.bury()))
    crew.stop()


def test_no_worker_outlives_a_search_that_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _A_CREW, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = next(found for line in process.stdout if len(found := line.split()) == 2)
    (server,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: gone(server.pid, *map(int, pids)))


def test_elsewhere_each_worker_imports_everything_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "FORKS", False)
    crew = Crew(tmp_path, 1)
    (worker,) = children(crews.MODULE)
    assert [worker.pid] == [process.pid for process in crew.processes]
    crew.stop()
    assert gone(worker.pid)
