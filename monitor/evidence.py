"""Evidence that adds up over windows, and may be looked at after each of them: e-values and e-detectors.

An e-value is a number that is at most 1 on average when nothing has changed: a bet against that. From a standard score
z, whose mean is at most 0 then and whose tails are a normal's, a bet of size b makes exp(b z - b^2 / 2). An e-detector
(Shin, Ramdas & Rinaldo 2024, arXiv 2203.03532) adds up bets begun at every window, the Shiryaev-Roberts recursion

    M_t = (M_{t-1} + 1) e_t,    M_0 = 0

so that E[M_T] <= E[T] for any moment T at which one stops, while nothing has changed. Hence the first window where
M >= n comes after n windows at least, on average: one false alarm in n windows, for ever, however often one looks. Bets
of several sizes, and streams of several measures, are averaged: the average of e-detectors is one. Small bets find what
is small and lasts, large ones what is large at once.

What it asks of the scores: that a window's, given those before it, has mean 0 at most. All windows have one reference,
so the mean is that given its luck (`significance.py`). It does not ask that measures of one window be independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, ndtr, ndtri, stdtr

from registry.metrics import Array

BETS = np.array([0.5, 1.0, 2.0, 4.0])
"""Sizes of bets, in standard errors of one window."""

MOST = 8.0
"""Largest score either way: no tail is known further out."""

MASS = 0.9
"""Probability that the interval of an onset holds."""

_LEAST_SKEW = 0.01


def score_of(p_value: float) -> float:
    """The standard score of a one-sided p-value.

    >>> round(score_of(0.025), 2), score_of(0.0), score_of(1.0)
    (1.96, 8.0, -8.0)
    """
    return min(max(-float(ndtri(p_value)), -MOST), MOST)  # in this order NaN stays


def scores_of(p_values: Array) -> Array:
    """The standard scores of one-sided p-values of any shape; NaN stays."""
    return np.asarray(np.clip(-ndtri(p_values), -MOST, MOST), dtype=np.float64)


def part_of(p_value: float, units: float) -> float:
    """The p-value of a look at less than one independent row: its standard score is that of a whole one times the root
    of the part, so that looks at all the parts add up to the whole one's score.

    >>> round(part_of(0.025, 0.25), 3), part_of(0.025, 3.0)
    (0.164, 0.025)
    """
    return p_value if units >= 1 else float(ndtr(-math.sqrt(units) * score_of(p_value)))


def tail(deviation: float, skew: float = 0.0, freedom: float = math.inf) -> float:
    """Chance of a standardised mean beyond `deviation`: normal, or with a skew to the right, as few rare events have
    it, that of a gamma (Pearson's type III); at least Student's where its error is known with so many degrees of
    freedom. NaN where deviation or skew are.

    >>> round(tail(3.7), 5), round(tail(3.7, skew=0.5), 4), round(tail(3.7, freedom=19), 4)
    (0.00011, 0.0013, 0.0008)
    """
    return float(tails(*np.array([[deviation], [skew], [freedom]]))[0])


def tails(deviations: Array, skews: Array, freedoms: Array) -> Array:
    """`tail` of many (k,), at once."""
    found = ndtr(-deviations)
    if (skewed := ~(skews < _LEAST_SKEW)).any():
        shape = 4 / skews[skewed] ** 2
        found[skewed] = gammaincc(shape, np.maximum(0.0, shape + deviations[skewed] * np.sqrt(shape)))
    if (few := ~np.isinf(freedoms)).any():
        found[few] = np.maximum(stdtr(freedoms[few], -deviations[few]), found[few])
    return np.asarray(found, dtype=np.float64)


def detect(scores: Array, *, cap: float = np.inf) -> Array:
    """The e-detector of each of k streams after each of T windows, (T, k), from scores (T, k) in time order.

    A NaN is no look: the stream stays as it is. `cap` is what one size of bet alone can bring the detector to: a bound
    costs only evidence for what has alarmed already, and lets that come down soon when the change is over.
    """
    unseen, most = np.isnan(scores), len(BETS) * cap
    bets, out = _bets(np.where(unseen, 0.0, scores)), np.empty((len(scores), len(BETS), scores.shape[1]))
    state = np.zeros(out.shape[1:])
    for bet, grown, hidden, blind in zip(bets, out, unseen, np.asarray(unseen.any(axis=1)).tolist(), strict=True):
        np.add(state, 1, out=grown)
        np.multiply(grown, bet, out=grown)
        np.minimum(grown, most, out=grown)
        if blind:
            np.copyto(grown, state, where=hidden)
        state = grown
    return np.asarray(out.mean(axis=1), dtype=np.float64)


def _bets(scores: Array) -> Array:
    """e-values of scores (T, k) under each bet, (T, bets, k)."""
    z = np.clip(scores, -MOST, MOST)[:, None, :]
    return np.asarray(np.exp(BETS[:, None] * z - BETS[:, None] ** 2 / 2), dtype=np.float64)


def alarming(detectors: Array, windows: float) -> npt.NDArray[np.bool_]:
    """Which of k streams carry an alarm that is raised once in `windows` windows at most, all streams together.

    There is one when the mean of all detectors, an e-detector itself, reaches `windows`. It is carried by those that
    e-BH picks (Wang & Ramdas 2022): the largest j for which the j-th largest is at least k / j times as much.
    """
    k = len(detectors)
    if not k or detectors.mean() < windows:
        return np.zeros(k, dtype=bool)
    ordered = np.sort(detectors)[::-1]
    enough = np.flatnonzero(ordered * np.arange(1, k + 1) >= k * windows)
    return np.asarray(detectors >= ordered[enough[-1] if len(enough) else 0], dtype=bool)


@dataclass(frozen=True)
class Onset:
    """The window since which something has changed, and the windows between which that lies with probability
    `MASS`; positions in the stream."""

    at: int
    first: int
    last: int


def onset(scores: Sequence[float] | Array) -> Onset:
    """When the change in a stream of at least one score began: the posterior over windows, each as likely beforehand,
    whose likelihood ratio is that of the bets begun there. NaN are passed over."""
    z = np.clip(np.asarray(scores, dtype=np.float64), -MOST, MOST)
    z[np.isnan(z)] = 0.0
    terms = BETS[:, None] * z - BETS[:, None] ** 2 / 2
    since = np.cumsum(terms[:, ::-1], axis=1)[:, ::-1]
    weights = np.exp(since - since.max()).sum(axis=0)
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    held = order[: int(np.searchsorted(weights[order].cumsum(), MASS)) + 1]
    return Onset(int(order[0]), int(held.min()), int(held.max()))
