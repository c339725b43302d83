"""Paired comparison on the same rows: what leaving out each of their blocks says about a difference.

Rows of one day depend on one another (one storm delays all flights), so that errors from single rows would be far too
small. Whole blocks are left out instead, one at a time (the jackknife of grouped data: Kunsch 1989; Davison & Hinkley
1997, ch. 2 and 8): days where there are a few of them, else a twentieth of the rows in time order, else, without times,
single rows or groups of them. Bounds are Student's with as many degrees of freedom as there are blocks, less one
(Cameron, Gelbach & Miller 2008): simulated (`benchmarks/gate.py`), they hold from four days on, where quantiles of a
bootstrap over the same days are exceeded more often than they promise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry.metrics import BLOCKS, Array
from retrain.splits import Rows

MIN_DAYS = 4
MOST_BLOCKS = 500
"""Rows that do not depend on one another are resampled in so many groups at most."""


@dataclass(frozen=True)
class Interval:
    """A value with a lower and an upper bound, each one-sided at the confidence asked for. NaN where undefined."""

    value: float
    low: float
    high: float


def blocks_of(times: npt.NDArray[np.datetime64] | None, rows: int) -> Rows:
    """The block (0 to G - 1) of each row: its day, if there are at least `MIN_DAYS` days; else one of `BLOCKS` equal
    runs in time order; else, without times, a block of its own, or every `MOST_BLOCKS`th row together."""
    if times is None or rows == 0:
        return np.arange(rows, dtype=np.int64) % MOST_BLOCKS
    days = np.unique(times.astype("datetime64[D]"), return_inverse=True)[1]
    if days.max() + 1 >= MIN_DAYS:
        return np.asarray(days, dtype=np.int64)
    out = np.empty(rows, dtype=np.int64)
    out[np.argsort(times, kind="stable")] = np.arange(rows) * min(BLOCKS, rows) // rows
    return out


def jackknife(statistics: Callable[[Array], Sequence[Array]], blocks: Rows, *, confidence: float) -> list[Interval]:
    """Intervals of statistics of the same rows, each block left out in turn. `statistics` takes how often each sample
    holds each block (d, G), as `Metric.by_block` does, and gives each statistic's values (d,)."""
    count = int(blocks.max()) + 1
    samples = np.concatenate([np.ones((1, count)), 1 - np.eye(count)])
    return [_interval(float(values[0]), values[1:], confidence) for values in statistics(samples)]


def _interval(value: float, without: Array, confidence: float) -> Interval:
    """Bounds from the values without each of the G blocks (G,)."""
    from scipy.stats import t

    known, blocks = without[np.isfinite(without)], len(without)
    if not np.isfinite(value) or blocks < 2 or len(known) < 0.9 * blocks:
        return Interval(value, float("nan"), float("nan"))
    error = float(np.sqrt((blocks - 1) * known.var()))
    reach = float(t.ppf(confidence, blocks - 1)) * error
    return Interval(value, value - reach, value + reach)


def clustered(per_row: Array, blocks: Rows, value: float, *, confidence: float) -> Interval:
    """The interval of a value whose influence on each row is known, rows of a block depending on one another (Liang &
    Zeger 1986). `per_row` is (n,) with mean 0, see `Metric.influence`."""
    from scipy.stats import t

    sums = np.bincount(np.unique(blocks, return_inverse=True)[1], weights=per_row)
    if len(sums) < 2 or not np.isfinite(sums).all() or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"))
    error = float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(per_row))
    reach = float(t.ppf(confidence, len(sums) - 1)) * error
    return Interval(value, value - reach, value + reach)
