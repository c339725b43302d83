"""Null distributions in closed form, each for the sample sizes at hand. They take rows as independent."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, chdtrc, kolmogorov, ndtr, ndtri, rel_entr

from registry.metrics import Array

LEAST_EXPECTED = 5.0


def wilson(hits: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a share (Wilson 1927); `rows` is not 0.

    >>> low, high = wilson(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    z = float(ndtri((1 + confidence) / 2))
    share, room = hits / rows, 1 + z**2 / rows
    centre = (share + z**2 / (2 * rows)) / room
    half = z * math.sqrt(share * (1 - share) / rows + (z / (2 * rows)) ** 2) / room
    return max(0.0, centre - half), min(1.0, centre + half)


def share_below(hits: int, rows: int, promised: float) -> float:
    """Chance of at most so many hits when each row hits with the promised probability (binomial tail)."""
    return float(bdtr(hits, rows, promised))


@lru_cache(maxsize=4096)
def share_above(hits: int, rows: int, reference_hits: int, reference_rows: int) -> float:
    """Chance of at least so many hits if they were spread over both samples at random (Fisher's exact test).

    >>> round(share_above(3, 3, 0, 3), 3)
    0.05
    """
    total = hits + reference_hits
    if rows == 0 or reference_rows == 0 or total == 0:
        return 1.0
    first, last = max(hits, total - reference_rows), min(rows, total)
    chosen = _log_choose(rows, first) + _log_choose(reference_rows, total - first)
    log_chance = chosen - _log_choose(rows + reference_rows, total)
    if log_chance < _LEAST_LOG:
        return float(first * (rows + reference_rows) < total * rows)  # the far side of nearly all chances
    counts = np.arange(first, last, dtype=np.float64)
    ratios = (rows - counts) * (total - counts) / ((counts + 1) * (reference_rows - total + counts + 1))
    return float(min(1.0, math.exp(log_chance) * (1 + ratios.cumprod().sum())))


_LEAST_LOG = -600.0
"""Below, chances are no numbers any more."""


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def smirnov_p(distance: float, first: float, second: float) -> float:
    """p-value of a two-sample Kolmogorov-Smirnov distance between so many rows, by the asymptotic law with Stephens'
    (1970) correction for small samples. Conservative where values are tied, or the distance is taken between bins."""
    return float(smirnov_ps(np.array(distance), np.array(first), np.array(second)))


def smirnov_ps(distances: Array, first: Array, second: Array) -> Array:
    """`smirnov_p` of many (k,), at once."""
    root = np.sqrt(first * second / (first + second))
    return np.asarray(kolmogorov((root + 0.12 + 0.11 / root) * distances), dtype=np.float64)


def jensen_shannon(first: Array, second: Array) -> float:
    """Jensen-Shannon distance of two vectors of counts, 0 to 1 (base 2, Endres & Schindelin 2003). Empty bins are no
    matter. Neither sums to 0."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(math.sqrt(max(0.0, (rel_entr(p, middle) + rel_entr(q, middle)).sum() / (2 * math.log(2)))))


def homogeneity(first: Array, second: Array) -> float:
    """p-value of Pearson's chi-squared test that two vectors of counts come from one distribution; bins expected fewer
    than five times in either are judged as one (Cochran 1954). Neither sums to 0."""
    both = first + second
    small = min(first.sum(), second.sum()) / both.sum()
    rare = both * small < LEAST_EXPECTED
    table = np.array([[*counts[~rare], counts[rare].sum()] for counts in (first, second)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))


class Spread(NamedTuple):
    """Mean and variance of so many values: the one NaN of none, the other of fewer than two."""

    mean: float
    variance: float
    rows: int


def spread_of(values: Array) -> Spread:
    """That of (n,) values."""
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    return Spread(mean, float(values.var(ddof=1)) if n > 1 else math.nan, n)


def means_differ(first: Spread, second: Spread) -> float:
    """Two-sided p-value of Welch's test with the normal law: for means of many rows. At least two rows in each."""
    error = math.sqrt(first.variance / first.rows + second.variance / second.rows)
    gap = abs(first.mean - second.mean)
    return (1.0 if gap == 0 else 0.0) if error == 0 else float(2 * ndtr(-gap / error))
