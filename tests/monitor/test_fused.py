"""Fused performance: the estimate at one end, the realised metric at the other, and true to its interval between them,
also where labels do not arrive at random."""

from __future__ import annotations

import dataclasses

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
