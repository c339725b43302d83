"""Null distributions in closed form, each for the sample sizes at hand. They take rows as independent.

All windows of a champion share one reference. What that is off by luck does not average out: a p-value that takes both
samples as drawn anew is true on average over references, and for ever too small beside an unlucky one, whereas evidence
that adds up (`evidence.py`) needs scores with mean 0 at most for the very reference there is. So where a law asks for a
`doubt`, it is that of the window given the worst reference that is left once those of this probability are set aside,
as for calibration-conditional conformal p-values (Bates, Candes, Lei, Romano & Sesia 2023, arXiv 2104.08279).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import bdtr, bdtrc, betaincinv, chdtri, chndtr, kolmogi, kolmogorov, ndtr, ndtri, rel_entr

from registry.metrics import Array

LEAST_EXPECTED = 5.0

LUCK = 0.05
"""The probability that a reference is off by more than is allowed for, in any of the looks at it."""


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


def share_beyond(hits: int, rows: int, reference_hits: int, reference_rows: int, doubt: float) -> float:
    """Chance of at least so many hits, given the reference: binomial, with the largest probability that the reference
    leaves room for (Clopper & Pearson 1934), but for a `doubt`.

    >>> round(share_beyond(10, 500, 0, 100, 0.001), 3), round(share_beyond(10, 500, 0, 10_000, 0.001), 12)
    (1.0, 4e-12)
    """
    if rows == 0 or reference_rows == 0 or hits == 0:
        return 1.0
    return float(bdtrc(hits - 1, rows, _highest(reference_hits, reference_rows, doubt)))


@lru_cache(maxsize=4096)
def _highest(hits: int, rows: int, doubt: float) -> float:
    return 1.0 if hits == rows else float(betaincinv(hits + 1, rows - hits, 1 - doubt))


_LEAST_LOG = -600.0
"""Below, chances are no numbers any more."""


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def smirnov_p(distance: float, rows: float, off: float, bins: int) -> float:
    """Chance of so large a Kolmogorov-Smirnov distance, taken at the borders of so many bins or fewer, between a window
    of so many rows and a reference that is at most `off` from what both are drawn from: by the triangle inequality that
    of what is beyond. Between borders the empirical process is not looked at: its limit is the law at a bound that lies
    .5826 root(1 / bins) further out (Siegmund 1985, X.2). Conservative where values are tied."""
    return float(smirnov_ps(np.array(distance), np.array(rows), np.array(off), bins))


def smirnov_ps(distances: Array, rows: Array, off: Array, bins: int) -> Array:
    """`smirnov_p` of many (k,), at once."""
    beyond = np.sqrt(rows) * np.maximum(0.0, distances - off) + _UNSEEN / math.sqrt(bins)
    return np.asarray(kolmogorov(beyond), dtype=np.float64)


def smirnov_off(rows: float, doubt: float, bins: int) -> float:
    """The distance from its own law that so many rows exceed with the probability `doubt`.

    >>> round(smirnov_off(100, 0.001, 32), 3), round(smirnov_off(10_000, 0.001, 32), 3)
    (0.185, 0.018)
    """
    return max(0.0, (float(kolmogi(doubt)) - _UNSEEN / math.sqrt(bins)) / math.sqrt(rows))


_UNSEEN = 0.5826
"""-zeta(1/2) / root(2 pi): the mean overshoot of a normal random walk over a bound, in steps."""


def jensen_shannon(first: Array, second: Array) -> float:
    """Jensen-Shannon distance of two vectors of counts, 0 to 1 (base 2, Endres & Schindelin 2003). Empty bins are no
    matter. Neither sums to 0."""
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    return float(math.sqrt(max(0.0, (rel_entr(p, middle) + rel_entr(q, middle)).sum() / (2 * math.log(2)))))


def homogeneity(window: Array, reference: Array, doubt: float) -> float:
    """Chance of so large a distance of Pearson's between two vectors of counts of one distribution, given the
    reference: the noncentral chi-squared law, the reference being as far off as it is with the probability `doubt`.
    Bins expected fewer than five times in either are judged as one (Cochran 1954). Neither sums to 0."""
    both, times = window + reference, window.sum() / reference.sum()
    small = min(window.sum(), reference.sum()) / both.sum()
    rare = both * small < LEAST_EXPECTED
    sides = np.array([window, reference])
    table = np.hstack([sides[:, ~rare], sides[:, rare].sum(axis=1, keepdims=True)])
    rows, columns = table.sum(axis=1, keepdims=True), table.sum(axis=0)
    table, columns = table[:, there := columns > 0], columns[there]
    if len(columns) < 2:
        return 1.0
    expected = rows * columns / rows.sum()
    apart, freedom = (1 + times) * ((table - expected) ** 2 / expected).sum(), table.shape[1] - 1
    return max(0.0, 1 - float(chndtr(apart, freedom, times * chdtri(freedom, doubt))))


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
