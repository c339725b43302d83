"""What to expect of windows whose labels are still to come, after what came true in those before.

The estimate without labels (`estimated.py`) takes it that inputs and labels are related as they were; the gaps
(`gap.py`) of windows whose labels are there show by how much that has failed. They are followed by a local level model
(Durbin & Koopman 2012, ch. 2),

    gap_t = level_t + N(0, s + e_t^2),    level_t = level_(t-1) + N(0, q),    level_0 = 0

e_t being the error of a window's gap. How fast concepts drift (q) and how much a window adds of its own (s) nobody
knows: both are averaged over a grid, each point weighted by a prior that prefers small ones and by how well it foretold
the gaps so far, the newest most (dynamic model averaging, Raftery, Karny & Ettler 2010). So an interval is as wide as
earlier ones ought to have been; without labels it is the estimate's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monitor.comparison import BY_NAME
from monitor.estimated import RANGES
from monitor.measurements import Measurement, WindowRecord
from registry.metrics import Array

STEPS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Standard deviations of the level's steps, in errors of the first estimate."""

OWN = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Those of what a window adds of its own."""

FORGET = 0.9
"""How much less what the windows before foretold counts, a window."""

_Z = 1.96


class _Levels:
    """The model at all points of the grid: of each its weight, and mean and variance of the level."""

    def __init__(self, unit: float) -> None:
        steps, own = (part.ravel() ** 2 for part in np.meshgrid(STEPS, OWN))
        self._steps, self._own = steps * unit**2, own * unit**2
        self._prior: Array = -0.5 * (np.log1p(steps) + np.log1p(own))
        self._logs = self._prior
        self._means, self._variances = np.zeros(len(steps)), np.zeros(len(steps))
        self._taught = False

    def foretell(self) -> tuple[float, float]:
        """Mean and variance of the next gap, the error of its window apart; the level has moved a step to there."""
        if not self._taught:
            return 0.0, 0.0
        self._variances = self._variances + self._steps
        weights = np.exp(self._logs - self._logs.max())
        weights /= weights.sum()
        mean = float(weights @ self._means)
        return mean, float(weights @ (self._variances + self._own + (self._means - mean) ** 2))

    def learn(self, gap: float, error: float) -> None:
        """Take in the gap of the window that was foretold."""
        if not self._taught:
            self._taught, self._variances = True, self._steps.copy()
        total = self._variances + self._own + error**2
        surprise = gap - self._means
        told = -0.5 * (np.log(total) + surprise**2 / total)
        self._logs = self._prior + FORGET * (self._logs - self._prior) + told
        self._means = self._means + self._variances / total * surprise
        self._variances = self._variances * (1 - self._variances / total)


def outlook(records: Sequence[WindowRecord]) -> tuple[Measurement | None, ...]:
    """Of each window of a version, in time order, the metric that was to be expected after the gaps of the windows
    before it; None where nothing is estimated. `reference` is the estimate, `low` and `high` hold the realised metric
    with 95 % confidence; all are cut to the metric's range."""
    out: list[Measurement | None] = []
    levels: _Levels | None = None
    for record in records:
        estimate = next((one for one in record.named("estimated") if one.value is not None and one.error), None)
        if estimate is None or estimate.value is None or not estimate.error:
            out.append(None)
            continue
        levels = levels or _Levels(estimate.error)
        worse, variance = levels.foretell()
        out.append(_measurement(record.metric, estimate, worse, math.sqrt(variance + estimate.error**2)))
        gap = next((one for one in record.named("gap") if one.value is not None and one.error), None)
        if gap is not None:
            levels.learn(gap.value or 0.0, gap.error or 0.0)
    return tuple(out)


def _measurement(metric: str, estimate: Measurement, worse: float, error: float) -> Measurement:
    value = (estimate.value or 0.0) - BY_NAME[metric].gain(1.0, 0.0) * worse
    least, most = RANGES.get(metric, (0.0, math.inf))
    low, middle, high = (float(np.clip(one, least, most)) for one in (value - _Z * error, value, value + _Z * error))
    return Measurement(
        name="outlook",
        value=middle,
        low=low,
        high=high,
        reference=estimate.value,
        error=error,
        rows=estimate.rows,
        note=metric,
    )
