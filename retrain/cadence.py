"""How often a champion that follows takes a step: as seldom as costs next to nothing.

Each step leaves behind the model that it was taken from, and both answer the rows that come next before their labels
do. What the newer one answers better, by the windows that it is newer, is what a window of freshness is worth. A model
that learns every w windows is (w - 1) / 2 windows older, on average, than one that learns at each: the longest wait is
taken that surely costs no more than `GRANTED`, and no wait is more than twice the one before it (when it pays to
update: Zliobaite, Budka & Stahl 2015, "Towards cost-sensitive adaptation"). It is measured by the squared error, of
probabilities (Brier 1950) as of numbers, in shares of what the labels' frequencies alone would have: so it says on
fewer rows than accuracy which of two models that differ little is the better one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from registry.metrics import Array

WAITS = (1, 2, 4)
"""Windows from one step to the next. Of eight at once too little is learnt (benchmarks/LOG.md)."""
RECENT = 8
"""The newest steps whose answers count."""
GRANTED = 0.0025
"""What waiting may cost on average, as a share of the loss of an answer that knows the labels' frequencies alone."""


def losses(scores: Array, labels: Array, *, classes: bool) -> Array:
    """The squared error (n,) of probabilities (n, k) for the codes of classes (n,), or of numbers (n,).

    >>> losses(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0.0, 1.0]), classes=True).tolist()
    [0.5, 0.0]
    """
    if not classes:
        return np.asarray((scores - labels) ** 2, dtype=np.float64)
    codes = labels.astype(np.int64)
    own = scores[np.arange(len(scores)), codes]
    return np.asarray((scores**2).sum(axis=1) - 2 * own + 1, dtype=np.float64)


def chance(labels: Array, *, classes: bool) -> float:
    """The mean loss of an answer that knows how often each label comes, and nothing else.

    >>> chance(np.array([0.0, 1.0]), classes=True), chance(np.array([0.0, 2.0]), classes=False)
    (0.5, 1.0)
    """
    if not classes:
        return float(labels.var())
    shares = np.bincount(labels.astype(np.int64)) / len(labels)
    return float(1 - (shares**2).sum())


def worth(older: Array, newer: Array, lag: npt.NDArray[np.int64], at_chance: float) -> float:
    """What one window of freshness may be worth: by how much the losses (n,) of a model `lag` windows (n,) older are
    larger, a window, as a share of those at chance, and a standard error more, since few rows tell little. Nan where
    that says nothing."""
    more = older - newer
    upper = more.sum() + more.std() * np.sqrt(len(more))
    return float(upper / lag.sum() / at_chance) if lag.any() and at_chance > 0 else float("nan")


def wait(slope: float, before: int) -> int:
    """For how many windows the next step may wait when a window of freshness is worth so much, and the last one was to
    wait for `before`; one where that is not known.

    >>> [wait(slope, 2) for slope in (-0.001, 0.0016, 0.004, 0.006, float("nan"))]
    [4, 4, 2, 1, 1]
    """
    fit = [one for one in WAITS if one <= 2 * before and slope * (one - 1) / 2 <= GRANTED]
    return max(fit, default=1)
