"""The conformal radius between remedies: adaptive conformal inference (ACI).

A radius learnt once holds its promise while rows are exchangeable, and breaks it when they are not. Over the labelled
rows of a version in time order, block by block, the level a_t at which the next block is covered follows the errors
that were made (Gibbs & Candès 2021, arXiv 2106.00170, eq. 2),

    a_{t+1} = a_t + RATE (a - err_t),    err_t: the share of block t outside of its sets,    a = 1 - coverage

and the radius is the (1 - a_t) quantile of the scores of the rows just before. The level is kept between 0 and 1: where
scores grow without end, the largest so far is the radius, and more is missed than promised; an infinite interval, which
would make their proposition 4.1 hold there too, helps nobody.

Scores are those of split conformal prediction: 1 - p of the true class, or |y - prediction| / uncertainty. It is all
computed anew from the log each time, so that nothing has to be remembered.
"""

from __future__ import annotations

import math

import numpy as np

from monitor.views import Side
from registry.metrics import Array

BLOCK = 50
RECENT = 500
"""Rows whose scores give the quantile."""

LEAST_ROWS = 200
MOST_ROWS = 5_000
"""The newest labelled rows that are read."""

RATE = 0.05
"""Gibbs & Candès find .005 for single rows; errors of a block of 50 are that much less noisy."""

MATERIAL = 0.02
"""Least relative change of a radius that is worth telling the endpoint."""


def nonconformity(side: Side) -> Array:
    """(m,) scores of the labelled rows that the version answered."""
    labels, scores = side.known
    if scores.probabilities is None:
        apart = np.abs(labels - scores.scores)
        return np.asarray(apart / np.maximum(scores.uncertainty, 1e-12), dtype=np.float64)
    return np.asarray(1 - scores.scores[np.arange(len(labels)), labels.astype(np.int64)], dtype=np.float64)


def follow(scores: Array, *, coverage: float, radius: float) -> float | None:
    """The radius after rows (m,) in time order that began with a given one; None for fewer than `LEAST_ROWS`.

    >>> rng = np.random.default_rng(0)
    >>> harder = np.abs(rng.normal(0, 2, 3_000))
    >>> 3.0 < follow(harder, coverage=0.9, radius=1.64) < 3.6  # about twice the normal quantile
    True
    """
    if len(scores) < LEAST_ROWS:
        return None
    aim = level = 1 - coverage
    for start in range(0, len(scores) - BLOCK + 1, BLOCK):  # whole blocks: a row more is no reason for another radius
        block = scores[start : start + BLOCK]
        level = min(1.0, max(0.0, level + RATE * (aim - float((block > radius).mean()))))
        radius = _quantile(scores[max(0, start + BLOCK - RECENT) : start + BLOCK], 1 - level)
    return radius


def _quantile(scores: Array, share: float) -> float:
    """The conformal quantile: the ceil((n + 1) share)-th smallest score; the largest, or the smallest, beyond them."""
    rank = math.ceil((len(scores) + 1) * share)
    return float(np.sort(scores)[min(max(rank, 1), len(scores)) - 1])
