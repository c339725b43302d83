"""The pins hold: newer releases of these four break one another in ways that no version check sees.

The third way, a scheduler that never schedules, is guarded by the scheduled run in `tests/flows/test_services.py`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["prefect.server.api.server", "evidently"])
def test_the_pinned_versions_go_together(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
