"""How many cores this process may use: not how many the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """The cores of this process's affinity (`taskset`, a cgroup's cpuset), or as many as its cgroup's share of time
    fills (`docker run --cpus 2`; of version 2 of cgroups), if those are fewer; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, quota(_CGROUPS, _OWN)))


def quota(groups: Path, own: Path) -> int:
    """The cores that the smallest share of time of a process's cgroup and those above it fills, rounded up; many where
    there is none. `groups` is where cgroups lie, `own` the file that names the process's."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return _MANY
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    places = [groups / path, *(groups / path).parents]
    return min((_share(place / "cpu.max") for place in places if place.is_relative_to(groups)), default=_MANY)


_MANY = 1 << 20


def _share(file: Path) -> int:
    """A file such as `150000 100000`, microseconds of time in each so many: 2 cores."""
    try:
        most, _, period = file.read_text(encoding="ascii").partition(" ")
        return math.ceil(int(most) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # none there, or `max`
        return _MANY
