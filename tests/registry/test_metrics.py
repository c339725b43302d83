"""Every metric against scikit-learn's, and every standard error against the spread over fresh samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from registry.fallen import SURE, fall
from registry.metrics import METRICS, Metric, auc, calibration_by_block, calibration_error, error_of_mean, metrics_for
from registry.naive import naive_scores, weakness


def sample(metric: Metric, rows: int, seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if "regression" in metric.problems:
        truth = rng.normal(size=rows)
        return truth, truth + rng.normal(0, 0.7, rows)
    logits = rng.normal(size=(rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (p.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).astype(np.int64), p


RIVALS = {
    "auc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
    "log_loss": sk.log_loss,
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(axis=1)),
    "brier": lambda y, p: 2 * sk.brier_score_loss(y, p[:, 1]),
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": sk.r2_score,
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_values_agree_with_scikit_learn(metric: Metric) -> None:
    labels, scores = sample(metric, 500, seed=1)
    assert metric.value(labels, scores) == pytest.approx(RIVALS[metric.name](labels, scores), abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_resample_by_blocks_is_what_its_rows_give(metric: Metric, classes: int) -> None:
    labels, scores = sample(metric, 200, seed=3, classes=classes)
    scores = scores.round(1) if scores.ndim == 1 else (np.round(scores, 1) + 0.01) / (1 + 0.01 * classes)  # with ties
    rng = np.random.default_rng(0)
    blocks = np.r_[np.arange(12), rng.integers(0, 12, 188)]
    drawn = rng.multinomial(12, np.full(12, 1 / 12), size=5)
    held = [np.repeat(np.arange(200), times[blocks]) for times in drawn]
    expected = [metric.value(labels[rows], scores[rows]) for rows in held]
    assert metric.by_block(labels, scores, blocks)(drawn.astype(float)) == pytest.approx(expected, abs=1e-9)


def test_a_resample_without_one_class_has_no_auc() -> None:
    labels = np.array([0, 0, 1, 1])
    scores = np.column_stack([1 - labels * 0.5, labels * 0.5])
    found = metrics_for("binary")["auc"].by_block(labels, scores, np.array([0, 0, 1, 1]))(np.array([[2.0, 0], [1, 1]]))
    assert np.isnan(found[0])
    assert found[1] == 1.0


def test_calibration_error_by_blocks() -> None:
    labels, scores = sample(metrics_for("binary")["brier"], 300, seed=4)
    blocks = np.arange(300) // 30
    by_block = calibration_by_block(labels, scores, blocks)
    assert by_block(np.ones((1, 10)))[0] == pytest.approx(calibration_error(labels, scores), abs=1e-12)
    twice = np.r_[2.0, 0, np.ones(8)][None]
    rows = np.repeat(np.arange(300), twice[0, blocks].astype(int))
    assert by_block(twice)[0] == pytest.approx(calibration_error(labels[rows], scores[rows]), abs=0.03)  # other bins


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_standard_errors_match_the_spread_over_fresh_samples(metric: Metric) -> None:
    values = [metric.value(*sample(metric, 400, seed=seed)) for seed in range(300)]
    claimed = [metric.standard_error(*sample(metric, 400, seed=seed)) for seed in range(10)]
    assert np.mean(claimed) == pytest.approx(np.std(values), rel=0.2)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_gain_is_positive_when_better(metric: Metric) -> None:
    labels, scores = sample(metric, 500, seed=2)
    worse = np.full_like(scores, scores.mean()) if scores.ndim == 1 else np.full_like(scores, 0.5)
    assert metric.gain(metric.value(labels, scores), metric.value(labels, worse)) > 0


def test_auc_counts_ties_half() -> None:
    labels = np.array([0, 1, 0, 1])
    assert auc(labels, np.full((4, 2), 0.5)) == 0.5


def test_auc_of_one_class_is_undefined() -> None:
    assert np.isnan(auc(np.zeros(3, dtype=np.int64), np.full((3, 2), 0.5)))


def test_multiclass_auc_is_one_against_the_rest() -> None:
    labels, p = sample(METRICS[0], 600, seed=3, classes=3)
    assert auc(labels, p) == pytest.approx(sk.roc_auc_score(labels, p, multi_class="ovr"))


def test_calibration_error_is_small_for_honest_and_large_for_overconfident_probabilities() -> None:
    labels, p = sample(METRICS[0], 20_000, seed=4)
    sharp = p**4 / (p**4).sum(axis=1, keepdims=True)
    assert calibration_error(labels, p) < 0.02
    assert calibration_error(labels, sharp) > 0.1


def test_rows_that_share_their_luck_count_as_few() -> None:
    """Twenty blocks of fifty equal values: the error is that of twenty rows, not of a thousand."""
    means = [np.repeat(np.random.default_rng(seed).normal(size=20), 50) for seed in range(400)]
    claimed = np.mean([error_of_mean(values) for values in means])
    assert claimed == pytest.approx(np.std([values.mean() for values in means]), rel=0.1)
    assert np.isnan(error_of_mean(np.ones(1)))


def test_metrics_fit_their_problem() -> None:
    assert "rmse" not in metrics_for("binary")
    assert set(metrics_for("regression")) == {"rmse", "mae", "r2"}


@pytest.mark.parametrize("metric", [one for one in METRICS if one.name != "r2"], ids=lambda one: one.name)
def test_the_paired_error_is_the_spread_of_the_difference(metric: Metric) -> None:
    def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        if "regression" in metric.problems:
            truth = rng.normal(size=400)
            return truth, truth + rng.normal(0, 0.7, 400), truth + rng.normal(0, 0.5, 400)
        logit = rng.normal(size=400)
        labels = (rng.random(400) < 1 / (1 + np.exp(-logit))).astype(np.int64)
        answers = (1 / (1 + np.exp(-(logit + rng.normal(0, noise, 400)))) for noise in (0.3, 1.0))
        first, second = (np.column_stack([1 - p, p]) for p in answers)
        return labels, first, second

    samples = [drawn(seed) for seed in range(300)]
    differences = [metric.value(y, a) - metric.value(y, b) for y, a, b in samples]
    claimed = np.mean([metric.paired_error(y, a, b) for y, a, b in samples[:40]])
    assert claimed == pytest.approx(np.std(differences), rel=0.25)


def test_what_one_that_knows_nothing_reaches() -> None:
    """The training rows' mean, whose r2 is 0 where the test rows have the same; their shares of the classes, whose
    accuracy is the share of the most frequent one, and whose auc is that of chance."""
    values = np.array([1.0, 3.0, 2.0, 6.0])
    assert metrics_for("regression")["r2"].value(values, naive_scores(values, 0, 4)) == pytest.approx(0.0)
    labels = np.array([0, 1, 1, 2, 1])
    shares = naive_scores(labels, 3, 5)
    assert metrics_for("multiclass")["accuracy"].value(labels, shares) == pytest.approx(0.6)
    assert metrics_for("multiclass")["auc"].value(labels, shares) == 0.5
    assert "is no better than the 0.6000" in (weakness("accuracy", "multiclass", 0.6, 0.6, 0.1) or "")
    assert "is not surely better" in (weakness("accuracy", "multiclass", 0.7, 0.6, 0.1) or "")
    assert weakness("log_loss", "multiclass", 0.7, 0.9, 0.1) is None


@pytest.mark.parametrize(("test", "told"), [(0.70, True), (0.72, False), (0.84, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_fall_is_beyond_luck_and_beyond_what_is_tolerated(test: float, told: bool, sign: int) -> None:
    """Of 0.78 a tolerance of .1 allows .078, three errors .06; whichever direction is worse."""
    metric = "auc" if sign == 1 else "brier"
    value = test if sign == 1 else 2 * 0.78 - test
    found = fall(metric, (value, 0.012), (0.78, 0.016), tolerate=0.1, timed=True)
    assert (found is not None) is told
    assert fall(metric, (value, 0.012), (0.78, SURE), tolerate=0.1, timed=True) is None
    if found is not None:
        assert "newest" in found
        assert "newest" not in (fall(metric, (value, 0.012), (0.78, 0.016), tolerate=None, timed=False) or "")
