"""What computing takes: CPU-seconds, and the energy they stand for.

Energy is CPU-time times `WATTS`: an estimate, no measurement.
"""

from __future__ import annotations

import os

WATTS = 12.0
"""Estimate of what a busy core takes, its share of memory and supply included."""


def cpu_seconds() -> float:
    """CPU-seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def watt_hours(cpu: float) -> float:
    """The energy that CPU-seconds stand for, in watt-hours.

    >>> watt_hours(300)
    1.0
    """
    return cpu * WATTS / 3600


def costs(cpu: float) -> dict[str, float]:
    """CPU-seconds and the energy they stand for, in watt-hours, as the ledger holds them."""
    return {"cpu": round(cpu, 2), "watt_hours": round(watt_hours(cpu), 4)}
