"""What computing takes: CPU-seconds, and the energy they stand for.

Energy is CPU-time times `WATTS`: an estimate, no measurement.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

WATTS = 12.0
"""Estimate of what a busy core takes, its share of memory and supply included."""


_lasting = set[int]()


def cpu_seconds() -> float:
    """CPU-seconds of this process, of its children that have ended, and of those that last (`count`)."""
    return sum(os.times()[:4]) + sum(map(_taken, tuple(_lasting)))


def count(child: int, *, lasts: bool = True) -> None:
    """Count what this child takes while it runs, with its own children that have ended: it lasts longer than the work
    that it does for others. No more once this process has waited for its end, which counts it."""
    _lasting.add(child) if lasts else _lasting.discard(child)


def _taken(child: int) -> float:
    """By /proc, on Linux; else 0."""
    with suppress(OSError):
        fields = Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def watt_hours(cpu: float) -> float:
    """The energy that CPU-seconds stand for, in watt-hours.

    >>> watt_hours(300)
    1.0
    """
    return cpu * WATTS / 3600


def costs(cpu: float) -> dict[str, float]:
    """CPU-seconds and the energy they stand for, in watt-hours, as the ledger holds them."""
    return {"cpu": round(cpu, 2), "watt_hours": round(watt_hours(cpu), 4)}
