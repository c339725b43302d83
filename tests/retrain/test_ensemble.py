"""Greedy selection: better than its best member where members err apart, and never larger than asked."""

from __future__ import annotations

import numpy as np
import pytest

from registry.metrics import METRICS, binary_auc, rmse
from retrain.ensemble import select

RNG = np.random.default_rng(0)
LABELS = RNG.normal(size=300)


def quality(mean: np.ndarray) -> float:
    return -rmse(LABELS, mean)


def noisy(*errors: float) -> np.ndarray:
    return np.stack([LABELS + RNG.normal(0, error, 300) for error in errors])


def test_members_that_err_apart_are_joined_and_beat_the_best() -> None:
    """Two equally good models with independent errors share the weight; a poor one gets little or none."""
    outputs = noisy(1.0, 1.0, 5.0)
    weights = select(outputs, quality, size=3)
    assert weights.sum() == pytest.approx(1)
    assert weights[:2] == pytest.approx([0.5, 0.5], abs=0.15)
    assert quality(weights @ outputs) > max(quality(one) for one in outputs)


def test_the_ensemble_is_no_larger_than_asked() -> None:
    """Ten good models, but two places."""
    weights = select(noisy(*[1.0] * 10), quality, size=2)
    assert np.count_nonzero(weights) == 2


def test_copies_of_one_model_bring_nothing() -> None:
    """Equal outputs cannot improve on the first pick: one model stays alone."""
    one = noisy(1.0)[0]
    assert select(np.stack([one, one, one]), quality, size=3).tolist() == [1, 0, 0]


def test_a_model_whose_value_is_undefined_loses() -> None:
    """NaN is never the best; if all are NaN the first is taken."""
    outputs = noisy(1.0, 1.0)
    assert select(outputs, lambda mean: np.nan if mean[0] == outputs[0, 0] else quality(mean), size=1)[0] == 0
    assert select(outputs, lambda mean: np.nan, size=1).tolist() == [1, 0]


def test_probabilities_are_mixed_by_a_task_metric() -> None:
    """(m, n, k) works as (m, n) does, for a metric of the table."""
    labels = (LABELS > 0).astype(np.int64)
    positive = 1 / (1 + np.exp(-noisy(2.0, 2.0, 2.0)))
    outputs = np.stack([1 - positive, positive], axis=2)
    auc = next(metric for metric in METRICS if metric.name == "auc")
    weights = select(outputs, lambda mean: auc.value(labels, mean), size=3)
    mixed = np.einsum("m,mnk->nk", weights, outputs)
    assert binary_auc(labels, mixed[:, 1]) > max(binary_auc(labels, one[:, 1]) for one in outputs)


def test_nothing_to_choose_from_is_an_error() -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="at least one model"):
        select(np.empty((0, 3)), quality, size=1)


def test_a_mixture_that_begins_with_several_does_not_hang_on_one() -> None:
    """The best of many on few rows had luck; begun with three, the mixture is better on other rows."""
    better = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, errors = rng.normal(size=1_000), rng.normal(size=(8, 1_000))
        outputs, seen, unseen = truth + errors, slice(0, 20), slice(20, None)
        lone, begun = (
            select(outputs[:, seen], lambda mean, truth=truth: -rmse(truth[:20], mean), size=4, start=start, rounds=3)
            for start in (1, 3)
        )
        better.append(rmse(truth[unseen], lone @ outputs[:, unseen]) - rmse(truth[unseen], begun @ outputs[:, unseen]))
    assert np.mean(better) > 0


def test_groups_take_turns_at_the_beginning() -> None:
    """The best of the poorer group is in, though two of the other are better."""
    outputs = np.stack([LABELS + step for step in (0.1, 0.2, 0.3, 0.9)])
    weights = select(outputs, quality, size=4, start=2, groups=[0, 0, 1, 1], rounds=2)
    assert weights.tolist() == [0.5, 0, 0.5, 0]
