"""Greedy ensemble selection with replacement from a library of models (Caruana et al. 2004), on stored outputs.

Their sorted initialisation is used: the mixture begins with the few best models, so that it does not hang on one model
that had luck on the validation rows, which matters most where these are one stretch of time. Models of several groups
(new ones, and those of a former ensemble) take turns: members that learnt from different times err apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from registry.metrics import Array

ROUNDS = 24


def select(
    outputs: Array,
    value: Callable[[Array], float],
    *,
    size: int,
    start: int = 1,
    groups: Sequence[int] | None = None,
    rounds: int = ROUNDS,
) -> Array:
    """Weights (m,) of m models, summing to 1, at most `size` of them above 0.

    `outputs` is (m, n, k) probabilities or (m, n) predicted numbers on the validation rows; `value` judges a mixture
    of them, (n, k) or (n,), and is larger for a better one. The mixture begins with the `start` best models, taken from
    the `groups` (m,) in turn, that of the best model first. Each round adds the model, chosen before or not, that makes
    it best; the weights are those of the earliest best round, so that no model is added for nothing.

    >>> good, bad = np.zeros(4), np.ones(4)
    >>> select(np.stack([bad, good]), lambda mean: -float(mean.mean()), size=2)
    array([0., 1.])
    """
    if len(outputs) == 0 or size < 1:
        raise ValueError(f"expected at least one model and a size of 1 or more, got {len(outputs)} and {size}")
    alone = np.array([_finite(value(one)) for one in outputs])
    first = _first(alone, groups or [0] * len(outputs))[: min(start, size)]
    counts = np.bincount(first, minlength=len(outputs)).astype(np.float64)
    total = outputs[first].sum(axis=0, dtype=np.float64)
    best, best_counts = _finite(value(total / len(first))), counts.copy()
    for done in range(len(first), rounds):
        open_to = np.flatnonzero(counts) if np.count_nonzero(counts) >= size else range(len(outputs))
        values = {index: _finite(value((total + outputs[index]) / (done + 1))) for index in open_to}
        chosen = max(values, key=values.__getitem__)
        total += outputs[chosen]
        counts[chosen] += 1
        if values[chosen] > best + 1e-12:
            best, best_counts = values[chosen], counts.copy()
    return np.asarray(best_counts / best_counts.sum(), dtype=np.float64)


def _first(alone: Array, groups: Sequence[int]) -> list[int]:
    """Models by their own value, best first, the groups taking turns."""
    order = np.argsort(-alone, kind="stable").tolist()
    ranks: dict[int, int] = {}
    turns = {}
    for index in order:
        turns[index] = ranks[groups[index]] = ranks.get(groups[index], -1) + 1
    return sorted(order, key=turns.__getitem__)


def _finite(value: float) -> float:
    """NaN, of a metric undefined on these rows, loses against every number."""
    return float(value) if value == value else -np.inf
