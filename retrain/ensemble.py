"""Greedy ensemble selection with replacement from a library of models (Caruana et al. 2004), on stored outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from registry.metrics import Array

ROUNDS = 24


def select(outputs: Array, value: Callable[[Array], float], *, size: int, rounds: int = ROUNDS) -> Array:
    """Weights (m,) of m models, summing to 1, at most `size` of them above 0.

    `outputs` is (m, n, k) probabilities or (m, n) predicted numbers on the validation rows; `value` judges a mixture
    of them, (n, k) or (n,), and is larger for a better one. Each round adds the model, chosen before or not, that
    makes the mixture best; the weights are those of the earliest best round, so that no model is kept for nothing.

    >>> good, bad = np.zeros(4), np.ones(4)
    >>> select(np.stack([bad, good]), lambda mean: -float(mean.mean()), size=2)
    array([0., 1.])
    """
    if len(outputs) == 0 or size < 1:
        raise ValueError(f"expected at least one model and a size of 1 or more, got {len(outputs)} and {size}")
    counts, best_counts = np.zeros(len(outputs)), np.zeros(len(outputs))
    total, best = np.zeros_like(outputs[0], dtype=np.float64), -np.inf
    for done in range(rounds):
        open_to = np.flatnonzero(counts) if np.count_nonzero(counts) >= size else range(len(outputs))
        values = {index: _finite(value((total + outputs[index]) / (done + 1))) for index in open_to}
        chosen = max(values, key=values.__getitem__)
        total += outputs[chosen]
        counts[chosen] += 1
        if values[chosen] > best + 1e-12:
            best, best_counts = values[chosen], counts.copy()
    counts = best_counts if best_counts.any() else counts
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _finite(value: float) -> float:
    """NaN, of a metric undefined on these rows, loses against every number."""
    return float(value) if value == value else -np.inf
