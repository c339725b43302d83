"""The cores that a process may use: fewer than the machine's where it is held to some, or to a share of time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.cores import cores, quota


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_a_process_held_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from registry.cores import cores; "
    done = subprocess.run([sys.executable, "-c", f"{code}print(cores())"], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("above", "own", "expected"),
    [("max 100000", "150000 100000", 2), ("100000 100000", "max 100000", 1), ("400000 100000", "400000 100000", 4)],
)
def test_a_share_of_time_is_a_number_of_cores(tmp_path: Path, above: str, own: str, expected: int) -> None:
    """The smallest on the way from the process's own cgroup to the root counts."""
    groups, place = tmp_path / "cgroup", tmp_path / "cgroup" / "docker" / "one"
    place.mkdir(parents=True)
    (place.parent / "cpu.max").write_text(f"{above}\n")
    (place / "cpu.max").write_text(f"{own}\n")
    (tmp_path / "own").write_text("9:cpuset:/\n0::/docker/one\n")
    assert quota(groups, tmp_path / "own") == expected


def test_without_a_share_of_time_it_does_not_count(tmp_path: Path) -> None:
    """No cgroup of the second version, no limit, or a system that knows no cgroups."""
    (tmp_path / "own").write_text("3:cpuset:/\n0::/\n")
    for own in (tmp_path / "own", tmp_path / "nothing"):
        assert quota(tmp_path, own) > 10_000
