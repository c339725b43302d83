"""Where paused trainings lie: `paused/NUMBER.safetensors`, by the first trial of their candidate.

They only save time: a training begun anew from its seed comes to the same. So the shelf holds no more than its bound,
and one that is lost, or cannot be read, is no error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from retrain.pausing import Paused

PAUSED = "paused"
MOST_BYTES = 2**30
"""All paused trainings of a study together. Each has about five times the bytes of its network's weights."""


def put(folder: Path, number: int, paused: Paused) -> None:
    """Put a paused training on the shelf of a study's folder, in place of its former one; complete or not at all, such
    as where the disk is full."""
    home = _place(folder, number)
    partial = home.with_name(f"{number}.{os.getpid()}.partial")
    try:
        home.parent.mkdir(exist_ok=True)
        partial.write_bytes(paused.bytes())
        partial.replace(home)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def take(folder: Path, number: int) -> Paused | None:
    """A paused training, which stays there as well: whoever goes on with it may be killed. None where there is none."""
    try:
        return Paused.read(str(_place(folder, number)))
    except (OSError, SafetensorError, ValueError):
        return None


def tidy(folder: Path, kept: Sequence[int], most: int = MOST_BYTES) -> None:
    """Leave only paused trainings of these numbers, and of those the first ones that fit into so many bytes."""
    sizes = {int(path.stem): path.stat().st_size for path in (folder / PAUSED).glob("*.safetensors")}
    left = most
    for number in kept:
        left -= sizes.get(number, 0)
        if left >= 0:
            sizes.pop(number, None)
    for number in sizes:
        _place(folder, number).unlink(missing_ok=True)


def _place(folder: Path, number: int) -> Path:
    return folder / PAUSED / f"{number}.safetensors"
