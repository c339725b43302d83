"""Fused performance: the estimate at one end, the realised metric at the other, and true to its interval between them,
also where labels do not arrive at random."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from monitor.fused import LEAST_LABELS, Fused, fuse, propensity, repeats, strata_score, tuned
from monitor.views import Side
from registry.metrics import Metric, Problem, metrics_for
from tests.monitor.test_estimated import (
    CASES,
    BundleOf,
    ViewOf,
    draw,
    estimated,
    number,
    one_constant,
    over_all,
    realised,
    view_of,
)

__all__ = ["one_constant", "view_of"]

SOME: list[tuple[Problem, str]] = [("binary", "auc"), ("binary", "accuracy"), ("multiclass", "log_loss")]
SOME += [("regression", "mae"), ("regression", "rmse")]
ROWS, DRAWS = 1_500, 100


def arrived(side: Side, share: float, kind: str, rng: np.random.Generator) -> Side:
    """A side of which so many labels have come: at random, or four times as often from the upper half of the scores."""
    score = strata_score(side.scores)
    odds = np.where((score > np.median(score)) & (kind == "by score"), 4.0, 1.0)
    chance = np.minimum(share * odds / odds.mean(), 1.0)
    return dataclasses.replace(side, labelled=rng.random(len(score)) < chance)


def naive(metric: Metric, side: Side) -> float:
    """The metric on the labels that are there, as if they were all."""
    return metric.value(side.labels[side.labelled], side.scores.scores[side.labelled])


@over_all
def test_with_no_label_it_is_the_estimate(view_of: ViewOf, problem: Problem, metric: Metric) -> None:
    rng = np.random.default_rng(0)
    view = view_of(problem, metric, draw(problem, 500, rng), draw(problem, 500, rng))
    (found,), alone = Fused().measure(view), estimated(view)
    assert (found.value, found.low, found.high, found.error) == (alone.value, alone.low, alone.high, alone.error)
    assert (found.reference, found.reference_error) == (alone.reference, alone.reference_error)
    assert "0 labels are too few" in found.note


@over_all
def test_with_all_labels_it_is_the_realised_metric(view_of: ViewOf, problem: Problem, metric: Metric) -> None:
    rng = np.random.default_rng(0)
    window = draw(problem, 500, rng)
    view = view_of(problem, metric, window, draw(problem, 500, rng))
    (found,) = Fused().measure(dataclasses.replace(view, window=window))
    assert found.value == found.low == found.high == realised(metric, window)
    assert found.error == 0
    assert number(found.null_error) > 0


@pytest.mark.parametrize("kind", ["random", "by score"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(("problem", "name"), SOME)
def test_the_interval_keeps_its_word(problem: Problem, name: str, share: float, kind: str) -> None:
    """The answers are twice as sure as is right, so that outputs alone would mislead."""
    metric, rng, inside, gaps = metrics_for(problem)[name], np.random.default_rng(0), [], []
    for _ in range(DRAWS):
        whole = draw(problem, ROWS, rng, served=2.0)
        part = arrived(whole, share, kind, rng)
        found = fuse(metric, part)
        assert found is not None
        gaps.append(found.value - realised(metric, whole))
        inside.append(abs(gaps[-1]) <= 2.0 * found.error)
    assert np.mean(inside) >= (
        0.83 if name == "rmse" or share < 0.1 else 0.88
    )  # few labels say little of their own spread
    assert abs(np.mean(gaps)) < 0.4 * np.std(gaps)


@pytest.mark.parametrize(("problem", "name"), [("binary", "accuracy"), ("multiclass", "accuracy"), ("binary", "auc")])
def test_where_arrival_depends_on_the_score_the_labels_alone_mislead(problem: Problem, name: str) -> None:
    metric, rng, found = metrics_for(problem)[name], np.random.default_rng(0), []
    for _ in range(60):
        whole = draw(problem, ROWS, rng)
        score = strata_score(whole.scores)
        part = dataclasses.replace(whole, labelled=rng.random(ROWS) < np.clip(score, 0.05, 1.0) ** 3)
        fused, true = fuse(metric, part), realised(metric, whole)
        assert fused is not None
        found.append((naive(metric, part) - true, fused.value - true))
    (off, fair), spread = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert abs(off) > 5 * spread[0]
    assert abs(fair) < 0.25 * abs(off)


@over_all
def test_it_is_nearer_than_the_labels_alone(problem: Problem, metric: Metric) -> None:
    """Outputs that say something make the error smaller, those that say nothing do no harm."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        whole = draw(problem, ROWS, rng)
        part = arrived(whole, 0.1, "random", rng)
        one, true = fuse(metric, part), realised(metric, whole)
        assert one is not None
        found.append((naive(metric, part) - true, one.value - true))
    alone, fused = np.sqrt((np.array(found) ** 2).mean(axis=0))
    assert fused < 1.15 * alone


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize(("problem", "name"), SOME)
def test_it_is_surer_than_estimate_and_labels_and_true_to_it(
    view_of: ViewOf, problem: Problem, name: str, share: float
) -> None:
    """While inputs and labels are related as they were: about the realised metric, and about that in the long run."""
    metric, rng, found, surer = metrics_for(problem)[name], np.random.default_rng(0), [], []
    reference = draw(problem, 4_000, rng, served=2.0)
    usual = realised(metric, draw(problem, 200_000, rng, served=2.0))
    for _ in range(50):
        whole = draw(problem, 600, rng, served=2.0)
        view = view_of(problem, metric, whole, reference)
        part = arrived(whole, share, "random", rng)
        (one,) = Fused().measure(dataclasses.replace(view, window=part))
        few, alone = fuse(metric, part), estimated(view)
        assert few is not None
        value, error = number(one.value), number(one.error)
        assert error <= few.error
        surer.append(error <= number(alone.error))
        found.append(((value - realised(metric, whole)) / error, (value - usual) / number(one.null_error)))
    apart, luck = np.sqrt((np.array(found) ** 2).mean(axis=0))
    assert 0.6 < apart < (1.75 if name == "rmse" else 1.25)  # few labels say little of their own spread
    assert luck < 1.15
    assert np.mean(surer) > 0.8  # else the labels contradict the estimate, by chance


@pytest.mark.parametrize(("problem", "name"), [("binary", "accuracy"), ("multiclass", "log_loss")])
def test_labels_that_contradict_the_estimate_count(view_of: ViewOf, problem: Problem, name: str) -> None:
    """Half of the labels are drawn anew: the estimate is off by ten of its errors and says nothing of it."""
    metric, rng, found = metrics_for(problem)[name], np.random.default_rng(0), []
    reference = draw(problem, 4_000, rng)
    for _ in range(60):
        whole = draw(problem, 1_500, rng)
        moved = np.where(rng.random(len(whole)) < 0.5, rng.permutation(whole.labels), whole.labels)
        whole = dataclasses.replace(whole, labels=moved)
        view = view_of(problem, metric, whole, reference)
        (one,) = Fused().measure(dataclasses.replace(view, window=arrived(whole, 0.4, "random", rng)))
        true = realised(metric, whole)
        found.append((abs(number(one.value) - true), number(one.error), abs(number(estimated(view).value) - true)))
    gap, error, off = np.sqrt((np.array(found) ** 2).mean(axis=0))
    assert gap < 0.3 * off
    assert gap < 1.3 * error


def test_the_more_labels_the_surer_of_the_metric_in_the_long_run(view_of: ViewOf) -> None:
    """From none to all of one window's labels, which say what the estimate says: a verdict is no coin tossed anew."""
    metric, rng = metrics_for("binary")["accuracy"], np.random.default_rng(3)
    whole, reference = draw("binary", 800, rng), draw("binary", 3_000, rng)
    view, order = view_of("binary", metric, whole, reference), rng.permutation(800)
    errors = []
    for labels in (0, 30, 80, 200, 400, 799):
        part = dataclasses.replace(whole, labelled=order < labels)
        (one,) = Fused().measure(dataclasses.replace(view, window=part))
        errors.append(max(number(one.error), number(one.null_error)))
    assert all(later <= 1.02 * before for before, later in pairwise(errors))


@over_all
@pytest.mark.parametrize("rows", [0, 1, 2, 3, LEAST_LABELS - 1, LEAST_LABELS + 5])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_few_rows_are_no_accident(view_of: ViewOf, problem: Problem, metric: Metric, rows: int, share: float) -> None:
    rng = np.random.default_rng(rows)
    window, reference = draw(problem, rows, rng), draw(problem, 300, rng)
    part = dataclasses.replace(window, labelled=np.arange(rows) < share * rows)
    (found,) = Fused().measure(dataclasses.replace(view_of(problem, metric, window, reference), window=part))
    assert found.rows == rows
    assert found.value is None or number(found.low) <= found.value <= number(found.high)


def test_propensity_follows_score_and_time() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(8_000)
    chance = np.where(score > 0.5, 0.8, 0.2) * np.where(np.arange(8_000) < 4_000, 1.0, 0.5)
    found = propensity(score, rng.random(8_000) < chance)
    assert np.abs(found - chance).mean() < 0.04


def test_repeats_stand_for_weights() -> None:
    weights = np.random.default_rng(0).gamma(4, 0.25, 1_000)
    counts = np.bincount(repeats(weights), minlength=1_000)
    assert np.abs(counts / counts.sum() * weights.sum() - weights).max() < 0.1
    assert set(np.bincount(repeats(np.ones(300)))) == {16}


def test_outputs_that_say_nothing_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    pulls, others, even = rng.normal(size=5_000), rng.normal(size=5_000), np.ones(5_000)
    assert tuned(pulls, others, even) < 0.05
    assert tuned(pulls, pulls, even) == pytest.approx(1.0)
    assert tuned(pulls, np.zeros(5_000), even) == 0.0


def test_every_metric_is_covered() -> None:
    assert {metric.name for _, metric in CASES} == {"auc", "log_loss", "accuracy", "brier", "rmse", "mae", "r2"}


def test_a_manifest_is_not_needed_to_fuse(bundle_of: BundleOf) -> None:
    assert fuse(metrics_for("binary")["auc"], draw("binary", 0, np.random.default_rng(0))) is None
