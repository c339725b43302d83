"""Temperature, conformal radius and the mixtures' uncertainty keep what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from registry.target import Target
from retrain.calibration import (
    Calibration,
    TargetScale,
    conformal_radius,
    conformal_sets,
    fit_level,
    fit_temperature,
)
from retrain.levels import fit_biases

TARGET = Target(problem="multiclass", classes=("a", "b", "c"))
ONE = np.ones(1)


def draw(rows: int, *, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of one member, and labels drawn from the softmax of logits / sharpness."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (rows, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return sharpness * logits[None], labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_undoes_over_and_under_confidence(sharpness: float) -> None:
    """Logits multiplied by a factor get that factor as their temperature."""
    outputs, labels = draw(4_000, seed=1, sharpness=sharpness)
    assert fit_temperature(outputs, ONE, labels) == pytest.approx(sharpness, rel=0.1)


def test_a_frequent_class_is_not_taken_for_a_lack_of_confidence() -> None:
    """A well calibrated model meets a stretch in which one class is three times as frequent: its temperature stays."""
    outputs, labels = draw(30_000, seed=6)
    keep = (labels == 0) | (np.random.default_rng(0).random(len(labels)) < 1 / 3)
    assert fit_temperature(outputs[:, keep], ONE, labels[keep]) == pytest.approx(1, abs=0.1)


def test_luck_of_a_few_days_is_no_temperature() -> None:
    """Ten days, each with a level of its own: whatever temperature looks best there is not sure enough."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        logit, level = rng.normal(0, 1, 2_000), np.repeat(rng.normal(0, 1.5, 10), 200)
        labels = (rng.random(2_000) < 1 / (1 + np.exp(-(logit + level)))).astype(np.int64)
        found.append(fit_temperature(np.stack([-logit / 2, logit / 2], axis=1)[None], ONE, labels))
    assert sum(temperature == 1 for temperature in found) >= 8


def test_a_temperature_never_takes_a_rare_class_away() -> None:
    """A network that hardly dares to differ from the classes' shares, as after one short training: sharpened, it would
    say .001 on average where .13 are true."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=4_000)
    labels = (rng.random(4_000) < 1 / (1 + np.exp(3 - 2 * signal))).astype(np.int64)
    outputs = np.stack([np.zeros(4_000), 0.4 * signal], axis=1)
    outputs += fit_biases(outputs, labels)
    assert fit_temperature(outputs[None], ONE, labels) == 1


def test_a_level_is_temperature_and_class_shares() -> None:
    """A network that is too sure, and of another world's class shares, answers rightly after it."""
    outputs, labels = draw(8_000, seed=7, sharpness=2.0)
    temperature, biases = fit_level(outputs[0] + np.array([1.0, 0.0, -1.0]), labels)
    assert temperature == pytest.approx(2.0, rel=0.1)
    assert biases - biases.mean() == pytest.approx([-0.5, 0.0, 0.5], abs=0.1)


def test_biases_bring_a_network_to_the_classes_shares() -> None:
    """Outputs of another level come to the shares; those that have them already are left alone."""
    outputs, labels = draw(4_000, seed=8)
    shares = np.bincount(labels) / len(labels)
    moved = outputs[0] + np.array([2.0, 0.0, -2.0])
    mended = moved + fit_biases(moved, labels)
    each = np.exp(mended) / np.exp(mended).sum(axis=1, keepdims=True)
    assert each.mean(axis=0) == pytest.approx(shares, abs=0.005)
    again = fit_biases(mended, labels)
    assert again - again.mean() == pytest.approx(np.zeros(3), abs=0.05)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_conformal_sets_cover_as_promised(coverage: float) -> None:
    """On new rows the label is in the set as often as promised, even of a badly calibrated model."""
    outputs, labels = draw(2_000, seed=2, sharpness=3.0)
    calibration = Calibration.fit(outputs, ONE, labels, coverage=coverage)
    fresh, truth = draw(20_000, seed=3, sharpness=3.0)
    sets = calibration.scores(fresh, ONE, TARGET).sets
    assert sets is not None
    assert sets[np.arange(len(truth)), truth].mean() == pytest.approx(coverage, abs=0.02)
    assert sets.any(axis=1).all()


def test_intervals_cover_as_promised_and_follow_the_noise() -> None:
    """Noise that grows with the input gives wider intervals where it is larger, with the promised coverage."""
    rng = np.random.default_rng(4)

    def rows(n: int) -> tuple[np.ndarray, np.ndarray]:
        scale = rng.uniform(0.1, 2, n)
        mean = rng.normal(size=n)
        labels = 100 + 10 * (mean + scale * rng.standard_t(3, n))
        return np.stack([mean, np.log(scale)], axis=1)[None], labels

    outputs, labels = rows(2_000)
    calibration = Calibration.fit(outputs, ONE, labels, coverage=0.9, scale=TargetScale(centre=100, spread=10))
    fresh, truth = rows(20_000)
    found = calibration.scores(fresh, ONE, Target(problem="regression", label_type="number"))
    assert found.interval is not None
    low, high = found.interval.T
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.9, abs=0.02)
    assert np.corrcoef(high - low, np.exp(fresh[0, :, 1]))[0, 1] > 0.99
    assert calibration.temperature == 1


def test_the_radius_is_the_finite_sample_quantile() -> None:
    """Nine rows suffice for 90 %, and then the largest counts; eight do not, and nothing is excluded."""
    scores = np.arange(1.0, 10.0)
    assert conformal_radius(scores, 0.9) == pytest.approx(9, abs=1e-4)
    assert conformal_radius(np.arange(1.0, 100.0), 0.9) == pytest.approx(90, abs=1e-3)
    assert conformal_radius(scores[:8], 0.9) == math.inf


def test_too_few_calibration_rows_exclude_nothing() -> None:
    """The set is all classes; the interval is unbounded."""
    outputs, labels = draw(5, seed=5)
    calibration = Calibration.fit(outputs, ONE, labels, coverage=0.9)
    sets = calibration.scores(outputs, ONE, TARGET).sets
    assert sets is not None
    assert sets.all()
    numbers = Calibration.fit(
        np.zeros((1, 5, 2)), ONE, np.arange(5.0), coverage=0.9, scale=TargetScale(centre=0, spread=1)
    )
    interval = numbers.scores(np.zeros((1, 5, 2)), ONE, Target(problem="regression")).interval
    assert interval is not None
    assert interval.tolist() == [[-math.inf, math.inf]] * 5


def test_a_set_is_never_empty() -> None:
    """With a small radius no class is probable enough; the most probable stays."""
    sets = conformal_sets(np.array([[0.4, 0.35, 0.25]]), 0.1)
    assert sets.tolist() == [[True, False, False]]


def test_uncertainty_is_entropy_and_disagreement_is_what_members_dispute() -> None:
    """Two sure members that contradict each other: all of the ln 2 is disagreement. Two that agree on doubt: none."""
    sure = np.array([[[50.0, 0.0, -50.0]], [[0.0, 50.0, -50.0]]])
    doubt = np.array([[[0.0, 0.0, -50.0]], [[0.0, 0.0, -50.0]]])
    calibration = Calibration(radius=0.5)
    for outputs, disputed in ((sure, math.log(2)), (doubt, 0.0)):
        found = calibration.scores(outputs, np.array([0.5, 0.5]), TARGET)
        assert found.uncertainty[0] == pytest.approx(math.log(2))
        assert found.disagreement[0] == pytest.approx(disputed, abs=1e-9)


def test_regression_uncertainty_adds_variances() -> None:
    """Means 1 apart from their mean, scales 1 and 7: sqrt((1 + 49) / 2 + 1), in the target's unit."""
    outputs = np.array([[[1.0, 0.0]], [[-1.0, math.log(7)]]])
    calibration = Calibration(radius=2.0, scale=TargetScale(centre=5, spread=10))
    found = calibration.scores(outputs, np.array([0.5, 0.5]), Target(problem="regression"))
    assert found.prediction[0] == pytest.approx(5)
    assert found.uncertainty[0] == pytest.approx(10 * math.sqrt(26))
    assert found.disagreement[0] == pytest.approx(10)
    assert found.interval is not None
    assert found.interval[0] == pytest.approx([5 - 20 * math.sqrt(26), 5 + 20 * math.sqrt(26)])


def test_a_target_that_does_not_vary_has_a_scale() -> None:
    """Spread 1 instead of 0; missing labels are passed over."""
    assert TargetScale.fit(np.array([3.0, 3.0, np.nan])) == TargetScale(centre=3, spread=1)
    scale = TargetScale.fit(np.array([1.0, 3.0]))
    assert scale.standardise(np.array([1.0, 3.0])).tolist() == [-1, 1]


def test_a_calibration_is_json() -> None:
    """Finite or not, it reads back equal."""
    for radius in (0.5, math.inf):
        calibration = Calibration(radius=radius, scale=TargetScale(centre=1, spread=2))
        assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
