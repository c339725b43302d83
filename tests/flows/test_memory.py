"""Memory of a process tree."""

from __future__ import annotations

import subprocess
import sys
import time

from flows.memory import MemoryWatch, sample


def test_descendants_count() -> None:
    code = "import sys; block = b'x' * 60_000_000; print('there', flush=True); sys.stdin.read()"
    with MemoryWatch(every=0.02) as memory:
        before = sum(sample().values())
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        assert sum(sample().values()) - before > 50_000_000
        time.sleep(0.2)
        child.communicate()
    assert memory.peak - before > 50_000_000
    assert any(str(child.pid) in name for name in memory.at_peak)
