"""Lightning's Fabric, loaded when the first network is trained and not before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@cache
def make_fabric() -> Fabric:
    """Lightning's Fabric on one CPU, the same one for all networks of a process. The first call imports it, which takes
    seconds: a worker makes one before it has a trial, and a process that does not train never does."""
    with _absent("torchmetrics"):
        from lightning_fabric import Fabric

    return Fabric(accelerator="cpu", devices=1)


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """A library that is not loaded yet passes for one that is not installed.

    Fabric imports torchmetrics, with SciPy's statistics and matplotlib, to compare its version for a monitor of loss
    spikes that is not used here: half of the time and a fifth of the memory that a worker of a search takes to start.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what `import` takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[name]
