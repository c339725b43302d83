"""Paired comparison on the same rows: what resampling those rows, in blocks, says about a difference.

Rows of one day depend on one another (one storm delays all flights), so that a bootstrap over single rows would be far
too sure of itself. Whole blocks are drawn instead: days where there are enough of them, else a twentieth of the rows
in time order, else, without times, single rows or groups of them. Blocks are drawn with replacement (Kunsch 1989;
Davison & Hinkley 1997, ch. 8). With few blocks the spread of such draws is too small by (G - 1) / G and its tails too
thin: both are corrected, the latter by the ratio of Student's to the normal quantile (Cameron, Gelbach & Miller 2008).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry.metrics import BLOCKS, Array
from retrain.splits import Rows

DRAWS = 500
MIN_DAYS = 10
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


def bootstrap(
    statistics: Callable[[Array], Sequence[Array]], blocks: Rows, *, confidence: float, seed: int, draws: int = DRAWS
) -> list[Interval]:
    """Intervals of statistics from resampling all of them together: as many blocks as there are, drawn with
    replacement. `statistics` takes how often each resample holds each block (d, G), as `Metric.by_block` does, and
    gives each statistic's values (d,)."""
    count = int(blocks.max()) + 1
    values = [float(value[0]) for value in statistics(np.ones((1, count)))]
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = statistics(times.astype(np.float64))
    return [_interval(value, one, count, confidence) for value, one in zip(values, drawn, strict=True)]


def _interval(value: float, drawn: Array, blocks: int, confidence: float) -> Interval:
    """Bounds by the draws' quantiles around their mean, so that a statistic's bias under resampling cancels."""
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(known) < 0.9 * len(drawn) or blocks < 2:
        return Interval(value, float("nan"), float("nan"))
    around = (known - known.mean()) * _few(blocks, confidence)
    low, high = np.quantile(around, [1 - confidence, confidence])
    return Interval(value, value + float(low), value + float(high))


def _few(blocks: int, confidence: float) -> float:
    """How much wider an interval from so few blocks must be."""
    from scipy.stats import norm, t

    return float(np.sqrt(blocks / (blocks - 1)) * t.ppf(confidence, blocks - 1) / norm.ppf(confidence))


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
