"""How long `everfit --help` takes, beside an interpreter that does nothing: medians over runs that alternate.

Usage: .venv/bin/python benchmarks/cli_start.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

BOUND_SECONDS = 0.5


def seconds(command: list[str]) -> float:
    """Wall-clock of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Run both in turns and print the medians."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "everfit --help": [str(Path(sys.executable).parent / "everfit"), "--help"],
    }
    for command in commands.values():
        seconds(command)  # the first run compiles
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            taken[name].append(seconds(command))
    for name, values in taken.items():
        print(f"{name:<16} median {statistics.median(values):.3f} s, slowest {max(values):.3f} s, {runs} runs")
    median = statistics.median(taken["everfit --help"])
    print(f"bound {BOUND_SECONDS} s: {'held' if median < BOUND_SECONDS else 'BROKEN'}")
    sys.exit(median >= BOUND_SECONDS)


if __name__ == "__main__":
    main()
