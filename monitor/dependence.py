"""How much less rows say that depend on their neighbours: the design effect, learnt from the reference in time order.

Rows of one day share their weather: the mean of n of them varies more than that of n independent ones, by a factor that
grows with n (Kish 1965, ch. 5: 1 + (n - 1) rho). It is seen in the reference cut into stretches as long as the window.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from scipy.special import chdtri

LEAST_BLOCKS = 8
"""Fewest stretches that show how they vary."""

_SURE = 0.9


def design_effect(values: npt.NDArray[Any], rows: int, *, stride: float = 1.0, lasting: bool = True) -> float:
    """How many times the variance of a mean of `rows` consecutive rows is that of independent ones; at least 1.

    `values` (m, k) are k quantities on reference rows in time order, of which there is one in `stride` rows of the
    stream; their effects are averaged, weighted by variance. Where the reference is thinned, or too short for stretches
    as long, the correlation of rows in shorter ones is taken to hold further out; unless it is `lasting`, only as far
    as they reach: longer ones count as made of independent ones. Few stretches tell it badly: the excess over 1 is the
    one that is exceeded with a probability of 10 % only, by the chi-squared law.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> design_effect(rng.normal(size=(10_000, 1)), 500) < 1.5
    True
    >>> 5 < design_effect(np.repeat(rng.normal(size=(1_000, 1)), 10, axis=0), 500) < 25
    True
    """
    block = min(max(2, round(rows / stride)), len(values) // LEAST_BLOCKS)
    if rows < 2 or block < 2:
        return 1.0
    count = len(values) // block
    used = values[: count * block]
    spread = float(used.var(axis=0).sum())
    if not spread > 0:
        return 1.0
    means = used.reshape(count, block, -1).mean(axis=1)
    effect = block * float(means.var(axis=0, ddof=1).sum()) / spread
    excess = max(0.0, effect - 1) * unsure(count)
    reach = rows if lasting else min(rows, block * stride)
    return 1 + excess * max(0.0, reach - 1) / (block - 1)


def unsure(count: int) -> float:
    """How many times larger a variance may be than the one that `count` values show: with a probability of 10 % it is.

    >>> round(unsure(20), 2), round(unsure(200), 2)
    (1.63, 1.14)
    """
    return (count - 1) / float(chdtri(count - 1, _SURE))
