"""Moves aliases of a task in its registry until its standard input ends, and prints a line for each move.

    python benchmarks/servers/mover.py champion|control SECONDS TASK VERSION VERSION

`champion` promotes the two versions in turn every SECONDS; `control` moves an alias that no endpoint follows, so that
the registry and the machine have the same work and nothing is swapped. The settings are those of `EVERFIT_*`.
"""

from __future__ import annotations

import itertools
import os
import select
import sys

from registry.settings import Settings
from registry.versions import Versions


def main(what: str, seconds: float, task: str, versions: list[str]) -> None:
    """Move."""
    os.nice(10)
    settings = Settings()
    registry = Versions(settings.tracking, settings.artifacts, settings.folder / "bundles")
    registry.get(task, "champion")  # MLflow is imported now
    print("ready", flush=True)
    for version in itertools.cycle(versions):
        if select.select([sys.stdin], [], [], seconds)[0]:
            return
        if what == "champion":
            registry.promote(task, version)
        else:
            registry.set(task, "control", version)
        print(version, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:])
