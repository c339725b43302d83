"""Intervals hold what they promise, also when rows of a day depend on one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.metrics import BLOCKS, METRICS, metrics_for
from retrain.paired import blocks_of, bootstrap, clustered, draws_of

HOURS = np.datetime64("2024-01-01T00:00:00") + np.arange(500) * np.timedelta64(1, "h")


def test_blocks_are_days_where_there_are_enough() -> None:
    blocks = blocks_of(HOURS, 500)
    assert blocks.max() + 1 == 21
    assert (np.bincount(blocks)[:-1] == 24).all()


def test_blocks_are_equal_runs_in_time_order_where_days_are_few() -> None:
    order = np.random.default_rng(0).permutation(100)
    blocks = blocks_of(HOURS[:100][order], 100)
    assert (np.bincount(blocks) == 100 // BLOCKS).all()
    assert (np.diff(blocks[np.argsort(order)]) >= 0).all()


def test_without_times_each_row_stands_alone() -> None:
    assert blocks_of(None, 7).tolist() == list(range(7))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_draw_holds_whole_blocks(labels: list[int], seed: int) -> None:
    blocks = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    for weights in draws_of(blocks, 3, np.random.default_rng(seed)):
        assert weights.shape == (3, len(blocks))
        for block in np.unique(blocks):
            assert (np.ptp(weights[:, blocks == block], axis=1) == 0).all()
        first = np.unique(blocks, return_index=True)[1]
        assert (weights[:, first].sum(axis=1) == len(first)).all()


def test_draws_come_in_parts_that_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrain.paired.MOST_WEIGHTS", 100)
    parts = list(draws_of(np.arange(30), 10, np.random.default_rng(0)))
    assert [len(part) for part in parts] == [3, 3, 3, 1]


def mean_of(x: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    return lambda weights: (weights @ x / weights.sum(axis=1),)


def day_effects(rng: np.random.Generator, days: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences with mean 0 that share a day's effect, and their blocks."""
    blocks = np.repeat(np.arange(days), rows)
    return rng.normal(size=days)[blocks] + rng.normal(size=days * rows), blocks


@pytest.mark.parametrize("days", [10, 30])
def test_under_the_null_the_lower_bound_exceeds_0_as_often_as_promised(days: int) -> None:
    rng = np.random.default_rng(0)
    above = {"bootstrap": 0, "clustered": 0, "single rows": 0}
    for seed in range(250):
        x, blocks = day_effects(rng, days, 20)
        options = {"confidence": 0.9, "seed": seed, "draws": 100}
        above["bootstrap"] += bootstrap(mean_of(x), blocks, **options)[0].low > 0
        above["clustered"] += clustered(x - x.mean(), blocks, x.mean(), confidence=0.9).low > 0
        above["single rows"] += bootstrap(mean_of(x), np.arange(len(x)), **options)[0].low > 0
    assert 0.05 * 250 <= above["bootstrap"] <= 0.15 * 250, above
    assert 0.05 * 250 <= above["clustered"] <= 0.15 * 250, above
    assert above["single rows"] > 0.25 * 250, above  # what blocks are for


@pytest.mark.parametrize("metric", [one for one in METRICS if "binary" in one.problems], ids=lambda one: one.name)
def test_bootstrap_and_influence_agree(metric: object) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(1_200) < 0.3).astype(np.int64)
    positive = 1 / (1 + np.exp(-(labels + rng.normal(size=1_200))))
    scores = np.column_stack([1 - positive, positive])
    blocks = np.arange(1_200) // 30
    value = metric.value(labels, scores)  # type: ignore[attr-defined]
    (drawn,) = bootstrap(
        lambda weights: (metric.weighted(labels, scores, weights),),  # type: ignore[attr-defined]
        blocks,
        confidence=0.9,
        seed=0,
    )
    analytic = clustered(metric.influence(labels, scores), blocks, value, confidence=0.9)  # type: ignore[attr-defined]
    assert drawn.high - drawn.low == pytest.approx(analytic.high - analytic.low, rel=0.2)
    assert drawn.low < value < drawn.high


def test_an_undefined_statistic_has_no_bounds() -> None:
    labels = np.zeros(100, dtype=np.int64)
    scores, auc = np.full((100, 2), 0.5), metrics_for("binary")["auc"]
    (found,) = bootstrap(
        lambda weights: (auc.weighted(labels, scores, weights),), np.arange(100), confidence=0.9, seed=0, draws=20
    )
    assert np.isnan([found.value, found.low, found.high]).all()
    assert np.isnan(clustered(np.zeros(9), np.zeros(9, dtype=np.int64), 0.5, confidence=0.9).low)
