"""What every test stands on: no telemetry, one thread, and no trace outside the test's own folder."""

from __future__ import annotations

import os

from registry.quiet import QUIET

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ |= QUIET
for name in [name for name in os.environ if name.startswith("EVERFIT_")]:
    if name != "EVERFIT_DATA" and not name.endswith("_PYTHON"):
        del os.environ[name]
