"""Greedy ensemble selection with replacement from a library of models (Caruana et al. 2004), on stored outputs, by
clear steps only.

Validation rows of one stretch of time favour whichever model had luck there, and plain greedy selection collects that
luck. So a step must be worth `SURE` of its own standard errors, paired on the same rows (in the spirit of Breiman et
al. 1984, section 3.4.3, for trees): the mixture begins with the best models, each of which enters unless it surely does
harm, and a weight moves only when that is surely better. Where validation tells little, the result is a plain mean,
which is hard to beat. Models of several groups (new ones, and those of a former ensemble) take turns: members that
learnt from different times err apart. But one that is by far worse alone than the best of another group stays out: it
learnt from a world that is gone, and of many members one that does harm is not seen to do it on few rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from registry.metrics import Array, Labels, Metric

ROUNDS = 24
SURE, FAR = 2.0, 3.0
"""Standard errors: what a step must be worth, and how far behind another group's best a model is not of its world."""


def select(
    outputs: Array,
    labels: Labels,
    metric: Metric,
    *,
    size: int,
    groups: Sequence[int] | None = None,
    sizes: Sequence[float] | None = None,
    room: float | None = None,
) -> Array:
    """Weights (m,) of m models, summing to 1, at most `size` of each group above 0.

    `outputs` is (m, n, k) probabilities or (m, n) predicted numbers on n validation rows in time order with these
    `labels`. The best models enter first, taken from the `groups` (m,) in turn, that of the best model first, up to
    `size` of a group; then each round adds the model, chosen before or not, that makes the mixture best, for as long as
    it surely gains. With `room`, a model enters only where the `sizes` (m,) of those chosen leave as much.

    >>> from registry.metrics import metrics_for
    >>> labels, good, bad = np.r_[0.0, 1.0, 2.0, 3.0], np.r_[0.0, 1.0, 2.0, 3.1], np.r_[3.0, 2.0, 1.0, 0.0]
    >>> select(np.stack([bad, good]), labels, metrics_for("regression")["rmse"], size=2)
    array([0., 1.])
    """
    if len(outputs) == 0 or size < 1:
        raise ValueError(f"expected at least one model and a size of 1 or more, got {len(outputs)} and {size}")
    chosen, group = _Mixture(outputs, labels, metric), np.asarray(groups or [0] * len(outputs))
    large, most = np.asarray(sizes or [0.0] * len(outputs)), np.inf if room is None else room * (1 + 1e-9)

    def open_to(index: int) -> bool:
        fits = large[chosen.counts > 0].sum() + large[index] <= most
        return bool(chosen.counts[index] or (fits and np.count_nonzero(chosen.counts[group == group[index]]) < size))

    best = int(chosen.alone.argmax())
    for index in _in_turns(chosen.alone, group.tolist()):
        of_its_world = group[index] == group[best] or chosen.lead(index, best) >= -FAR
        if open_to(index) and of_its_world and chosen.gain(index) >= -SURE:
            chosen.add(index)
    for _ in range(ROUNDS):
        gains = {index: chosen.gain(index) for index in filter(open_to, range(len(outputs)))}
        step = max(gains, key=gains.__getitem__)
        if not gains[step] > SURE:
            break
        chosen.add(step)
    return np.asarray(chosen.counts / chosen.counts.sum(), dtype=np.float64)


class _Mixture:
    """The mean of the models chosen so far, each as often as it was chosen."""

    def __init__(self, outputs: Array, labels: Labels, metric: Metric) -> None:
        self.outputs, self.labels, self.metric = outputs, labels, metric
        self.alone = np.array([self._value(one) for one in outputs])
        self.counts = np.zeros(len(outputs))
        self.mean = np.zeros(outputs.shape[1:])

    def add(self, index: int) -> None:
        """Choose a model (once more)."""
        self.mean = self._with(index)
        self.counts[index] += 1

    def lead(self, index: int, other: int) -> float:
        """How far one model alone is ahead of another one alone, in standard errors of that difference."""
        if self.alone[index] == self.alone[other]:
            return 0.0
        return self._difference(self.outputs[index], self.outputs[other])

    def gain(self, index: int) -> float:
        """What a model would add, in standard errors of that difference: infinity for the first of all, minus infinity
        for one that changes nothing on any row, which is not worth a place."""
        return self._difference(self._with(index), self.mean) if self.counts.any() else np.inf

    def _difference(self, new: Array, old: Array) -> float:
        gain, error = self._value(new) - self._value(old), self.metric.paired_error(self.labels, new, old)
        return gain / error if error > 0 else np.inf if gain > 0 else -np.inf

    def _with(self, index: int) -> Array:
        total = self.counts.sum()
        return np.asarray((self.mean * total + self.outputs[index]) / (total + 1), dtype=np.float64)

    def _value(self, mixture: Array) -> float:
        """Larger is better; NaN, of a metric undefined on these rows, loses against every number."""
        value = self.metric.gain(self.metric.value(self.labels, mixture), 0.0)
        return value if value == value else -np.inf


def _in_turns(alone: Array, groups: Sequence[int]) -> list[int]:
    """Models by their own value, best first, the groups taking turns."""
    order = np.argsort(-alone, kind="stable").tolist()
    ranks: dict[int, int] = {}
    turns = {}
    for index in order:
        turns[index] = ranks[groups[index]] = ranks.get(groups[index], -1) + 1
    return sorted(order, key=turns.__getitem__)
