"""Greedy selection by one standard error: better than its best member where members err apart, a plain mean where
nothing is clear, and never larger than asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from registry.metrics import binary_auc, metrics_for, rmse
from retrain.ensemble import select

RNG = np.random.default_rng(0)
LABELS = RNG.normal(size=300)
RMSE, AUC = metrics_for("regression")["rmse"], metrics_for("binary")["auc"]


def noisy(*errors: float) -> np.ndarray:
    return np.stack([LABELS + RNG.normal(0, error, 300) for error in errors])


def test_members_that_err_apart_are_joined_and_beat_the_best() -> None:
    """Two equally good models with independent errors share the weight; a poor one gets little or none."""
    outputs = noisy(1.0, 1.0, 5.0)
    weights = select(outputs, LABELS, RMSE, size=3)
    assert weights.sum() == pytest.approx(1)
    assert weights[:2] == pytest.approx([0.5, 0.5], abs=0.15)
    assert rmse(LABELS, weights @ outputs) < min(rmse(LABELS, one) for one in outputs)


def test_the_ensemble_is_no_larger_than_asked() -> None:
    """Ten good models, but two places."""
    weights = select(noisy(*[1.0] * 10), LABELS, RMSE, size=2)
    assert np.count_nonzero(weights) == 2


def test_copies_of_one_model_bring_nothing() -> None:
    """Equal outputs cannot improve on the first pick: one model stays alone."""
    one = noisy(1.0)[0]
    assert select(np.stack([one, one, one]), LABELS, RMSE, size=3).tolist() == [1, 0, 0]


def test_a_model_whose_value_is_undefined_loses() -> None:
    """NaN is never the best; if all are NaN the first is taken."""
    outputs = noisy(1.0, 1.0)
    fails_on_first = replace(RMSE, value=lambda y, mean: np.nan if mean[0] == outputs[0, 0] else rmse(y, mean))
    assert select(outputs, LABELS, fails_on_first, size=1)[0] == 0
    assert select(outputs, LABELS, replace(RMSE, value=lambda y, mean: np.nan), size=2).tolist() == [1, 0]


def test_probabilities_are_mixed_by_a_task_metric() -> None:
    """(m, n, k) works as (m, n) does, for a metric of the table."""
    labels = (LABELS > 0).astype(np.int64)
    positive = 1 / (1 + np.exp(-noisy(2.0, 2.0, 2.0)))
    outputs = np.stack([1 - positive, positive], axis=2)
    weights = select(outputs, labels, AUC, size=3)
    mixed = np.einsum("m,mnk->nk", weights, outputs)
    assert binary_auc(labels, mixed[:, 1]) > max(binary_auc(labels, one[:, 1]) for one in outputs)


def test_nothing_to_choose_from_is_an_error() -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match="at least one model"):
        select(np.empty((0, 3)), LABELS[:3], RMSE, size=1)


def test_those_of_a_world_that_is_gone_stay_out() -> None:
    """A new model among four old ones that are far behind it alone, each of which does little harm to a mean; old ones
    that are near have their places."""
    rng = np.random.default_rng(0)
    labels, accuracy = rng.integers(0, 4, 80), metrics_for("multiclass")["accuracy"]

    def model(sure: float) -> np.ndarray:
        raised = np.exp(sure * np.eye(4)[labels] + rng.normal(size=(80, 4)))
        return raised / raised.sum(axis=1, keepdims=True)

    new, gone = model(3.0), [model(1.5) for _ in range(4)]
    groups = [0, 1, 1, 1, 1]
    assert select(np.stack([new, *gone]), labels, accuracy, size=4, groups=groups).tolist() == [1, 0, 0, 0, 0]
    assert np.count_nonzero(select(np.stack([new, *gone]), labels, accuracy, size=4)) > 1, "each does little harm"
    near = [model(2.8) for _ in range(4)]
    assert np.count_nonzero(select(np.stack([new, *near]), labels, accuracy, size=4, groups=groups)[1:]) > 0


def test_luck_on_the_validation_rows_moves_no_weight() -> None:
    """Eight equally good models, judged on rows that share their luck in blocks: the weights stay those of a mean, and
    plain greedy selection, which follows the luck, is worse on other rows."""
    worse = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, errors = rng.normal(size=1_200), np.repeat(rng.normal(size=(8, 60)), 20, axis=1)
        outputs, seen, unseen = truth + errors, slice(0, 200), slice(200, None)
        weights = select(outputs[:, seen], truth[seen], RMSE, size=8)
        worse.append(rmse(truth[unseen], greedy(outputs[:, seen], truth[seen]) @ outputs[:, unseen]))
        worse[-1] -= rmse(truth[unseen], weights @ outputs[:, unseen])
        assert weights.max() < 0.5
    assert np.mean(worse) > 2 * np.std(worse) / np.sqrt(len(worse))


def greedy(outputs: np.ndarray, truth: np.ndarray, rounds: int = 24) -> np.ndarray:
    """Caruana's selection without any rule against luck."""
    counts = np.zeros(len(outputs))
    for done in range(rounds):
        counts[np.argmin([rmse(truth, (counts @ outputs + one) / (done + 1)) for one in outputs])] += 1
    return counts / rounds


def test_what_does_clear_harm_stays_out() -> None:
    """Four places, but only two models worth one."""
    weights = select(noisy(0.5, 0.5, 8.0, 9.0), LABELS, RMSE, size=4)
    assert weights.tolist() == [0.5, 0.5, 0, 0]


def test_every_group_has_places_of_its_own() -> None:
    """The better of each group comes in, though both of the other group are better than it."""
    outputs = np.stack([LABELS + RNG.normal(0, error, 300) for error in (1.0, 1.0, 1.3, 1.3)])
    weights = select(outputs, LABELS, RMSE, size=1, groups=[0, 0, 1, 1])
    assert np.count_nonzero(weights[:2]) == 1
    assert np.count_nonzero(weights[2:]) == 1
