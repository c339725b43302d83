"""Intervals hold what they promise, also when rows of a day depend on one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from registry.metrics import BLOCKS, METRICS, mean_by_block, metrics_for
from retrain.paired import blocks_of, bootstrap, clustered

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


def test_many_rows_without_times_are_grouped() -> None:
    blocks = blocks_of(None, 1_200)
    assert np.bincount(blocks).tolist() == [3] * 200 + [2] * 300


def test_a_draw_holds_as_many_blocks_as_there_are() -> None:
    seen: list[np.ndarray] = []

    def statistics(drawn: np.ndarray) -> tuple[np.ndarray]:
        seen.append(drawn)
        return (drawn[:, 0],)

    bootstrap(statistics, np.repeat(np.arange(7), 3), confidence=0.9, seed=0, draws=40)
    whole, drawn = seen
    assert whole.tolist() == [[1.0] * 7]
    assert drawn.shape == (40, 7)
    assert (drawn.sum(axis=1) == 7).all()
    assert len(np.unique(drawn, axis=0)) > 30


def mean_of(x: np.ndarray, blocks: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray]]:
    mean = mean_by_block(x, blocks)
    return lambda drawn: (mean(drawn),)


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
        above["bootstrap"] += bootstrap(mean_of(x, blocks), blocks, **options)[0].low > 0
        above["clustered"] += clustered(x - x.mean(), blocks, x.mean(), confidence=0.9).low > 0
        above["single rows"] += bootstrap(mean_of(x, np.arange(len(x))), np.arange(len(x)), **options)[0].low > 0
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
    by_block = metric.by_block(labels, scores, blocks)  # type: ignore[attr-defined]
    (drawn,) = bootstrap(
        lambda drawn: (by_block(drawn),),
        blocks,
        confidence=0.9,
        seed=0,
    )
    analytic = clustered(metric.influence(labels, scores), blocks, value, confidence=0.9)  # type: ignore[attr-defined]
    assert drawn.high - drawn.low == pytest.approx(analytic.high - analytic.low, rel=0.2)
    assert drawn.low < value < drawn.high


def test_an_undefined_statistic_has_no_bounds() -> None:
    labels = np.zeros(100, dtype=np.int64)
    auc = metrics_for("binary")["auc"].by_block(labels, np.full((100, 2), 0.5), np.arange(100))
    (found,) = bootstrap(lambda drawn: (auc(drawn),), np.arange(100), confidence=0.9, seed=0, draws=20)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert np.isnan(clustered(np.zeros(9), np.zeros(9, dtype=np.int64), 0.5, confidence=0.9).low)
