"""What the task's constraints leave to one network of the ensemble, and what is told where nothing keeps to them.

A served graph holds up to `search.ensemble` new networks, and they share `constraints.size_mb` alike, less a tenth for
what else is in the graph: any ensemble of networks that each keep to their share keeps to the limit. A row is answered
by one network after the other: `constraints.latency_ms` is held against each network by itself, in the serving runtime
where torch, which is slower, is above it; the gate measures what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from registry.schema import Frozen
from registry.task import Constraints
from retrain.families.grid import spared_by

BYTES = 4
"""Of a float32."""
WEIGHTS = 0.9
"""The share of a graph's megabytes for its weights; the rest is preparation, nodes and calibration."""
INFEASIBLE = "infeasible"
"""A trial's mark: the key of its candidate, the size in MB and what was allowed."""
PATIENCE, LEAST_PATIENCE = 10, 200
"""A study gives up once so many candidates for each trial of its budget, and at least so many, were too large."""


class Limits(Frozen):
    """Most megabytes and most milliseconds (one row, on one thread) of one network; None: no limit."""

    size_mb: float | None = None
    latency_ms: float | None = None

    @classmethod
    def of(cls, constraints: Constraints, ensemble: int) -> Limits:
        """Those of each network of an ensemble."""
        size = None if constraints.size_mb is None else WEIGHTS * constraints.size_mb / ensemble
        return cls(size_mb=size, latency_ms=constraints.latency_ms)

    def allows_size(self, megabytes: float) -> bool:
        """Whether a network of this size may be trained."""
        return self.size_mb is None or megabytes <= self.size_mb

    def allows_latency(self, milliseconds: float | None) -> bool:
        """Whether a network of this latency may be in the ensemble; one that was not measured may."""
        return self.latency_ms is None or milliseconds is None or milliseconds <= self.latency_ms


def megabytes_of(network: nn.Module) -> float:
    """The size of a network's weights and buffers as they are served, float32 or int8, in MB of 10^6 bytes.

    >>> megabytes_of(nn.Linear(1_000, 250))
    1.001
    """
    count: int = sum(one.numel() for one in network.state_dict().values())
    return (BYTES * count - spared_by(network)) / 1e6


def patience(trials: int) -> int:
    """How many candidates may be too large before a study of so many trials gives up."""
    return max(LEAST_PATIENCE, PATIENCE * trials)


def why_none_fits(limits: Limits, ensemble: int, refused: Sequence[Mapping[str, Any]], slow: Sequence[float]) -> str:
    """One sentence that says how close the nearest candidate came: `refused` are the marks of those that were too
    large, `slow` the milliseconds of those that were trained and took too long."""
    if slow:
        return (
            f"constraints.latency_ms {limits.latency_ms:g}: none of {len(slow)} trained networks answers one row in "
            f"that time; the nearest takes {min(slow):.3g} ms"
        )
    nearest, total = min(float(one["size_mb"]) for one in refused), (limits.size_mb or 0.0) * ensemble / WEIGHTS
    return (
        f"constraints.size_mb {total:g} leaves {limits.size_mb:.3g} MB to each of {ensemble} networks "
        f"(search.ensemble): none of {len(refused)} candidates is that small, the nearest has {nearest:.3g} MB; "
        "raise the limit, lower search.ensemble, or narrow the space to smaller networks (search.choices)"
    )
