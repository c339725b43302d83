"""Intervals hold what they promise, also when rows of a day depend on one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from registry.metrics import BLOCKS, METRICS, mean_by_block, metrics_for
from retrain.paired import blocks_of, clustered, jackknife

HOURS = np.datetime64("2024-01-01T00:00:00") + np.arange(500) * np.timedelta64(1, "h")


def test_blocks_are_days_where_there_are_enough() -> None:
    blocks = blocks_of(HOURS, 500)
    assert blocks.max() + 1 == 21
    assert (np.bincount(blocks)[:-1] == 24).all()


def test_blocks_are_equal_runs_in_time_order_where_days_are_few() -> None:
    order = np.random.default_rng(0).permutation(60)
    blocks = blocks_of(HOURS[:60][order], 60)
    assert (np.bincount(blocks) == 60 // BLOCKS).all()
    assert (np.diff(blocks[np.argsort(order)]) >= 0).all()


def test_without_times_each_row_stands_alone() -> None:
    assert blocks_of(None, 7).tolist() == list(range(7))


def test_many_rows_without_times_are_grouped() -> None:
    blocks = blocks_of(None, 1_200)
    assert np.bincount(blocks).tolist() == [3] * 200 + [2] * 300


def test_each_block_is_left_out_once() -> None:
    seen: list[np.ndarray] = []

    def statistics(held: np.ndarray) -> tuple[np.ndarray]:
        seen.append(held)
        return (held[:, 0],)

    jackknife(statistics, np.repeat(np.arange(4), 3), confidence=0.9)
    (samples,) = seen
    assert samples.tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]


def test_of_a_mean_it_is_the_classical_interval() -> None:
    x = np.random.default_rng(0).normal(size=40)
    (found,) = jackknife(mean_of(x, np.arange(40)), np.arange(40), confidence=0.95)
    classical = stats.t.interval(0.9, 39, loc=x.mean(), scale=x.std(ddof=1) / np.sqrt(40))
    assert (found.low, found.high) == pytest.approx(classical)


def mean_of(x: np.ndarray, blocks: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray]]:
    mean = mean_by_block(x, blocks)
    return lambda held: (mean(held),)


def day_effects(rng: np.random.Generator, days: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences with mean 0 that share a day's effect, and their blocks."""
    blocks = np.repeat(np.arange(days), rows)
    return rng.normal(size=days)[blocks] + rng.normal(size=days * rows), blocks


@pytest.mark.parametrize("days", [4, 10, 30])
def test_under_the_null_the_lower_bound_exceeds_0_as_often_as_promised(days: int) -> None:
    rng = np.random.default_rng(0)
    above = {"jackknife": 0, "clustered": 0, "single rows": 0}
    for _ in range(250):
        x, blocks = day_effects(rng, days, 20)
        above["jackknife"] += jackknife(mean_of(x, blocks), blocks, confidence=0.9)[0].low > 0
        above["clustered"] += clustered(x - x.mean(), blocks, x.mean(), confidence=0.9).low > 0
        above["single rows"] += jackknife(mean_of(x, np.arange(len(x))), np.arange(len(x)), confidence=0.9)[0].low > 0
    assert 0.05 * 250 <= above["jackknife"] <= 0.15 * 250, above
    assert 0.05 * 250 <= above["clustered"] <= 0.15 * 250, above
    assert above["single rows"] > 0.25 * 250, above  # what blocks are for


@pytest.mark.parametrize("metric", [one for one in METRICS if "binary" in one.problems], ids=lambda one: one.name)
def test_jackknife_and_influence_agree(metric: object) -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(1_200) < 0.3).astype(np.int64)
    positive = 1 / (1 + np.exp(-(labels + rng.normal(size=1_200))))
    scores = np.column_stack([1 - positive, positive])
    blocks = np.arange(1_200) // 30
    value = metric.value(labels, scores)  # type: ignore[attr-defined]
    by_block = metric.by_block(labels, scores, blocks)  # type: ignore[attr-defined]
    (found,) = jackknife(lambda held: (by_block(held),), blocks, confidence=0.9)
    analytic = clustered(metric.influence(labels, scores), blocks, value, confidence=0.9)  # type: ignore[attr-defined]
    assert found.high - found.low == pytest.approx(analytic.high - analytic.low, rel=0.05)
    assert found.low < value < found.high


def test_an_undefined_statistic_has_no_bounds() -> None:
    labels = np.zeros(100, dtype=np.int64)
    auc = metrics_for("binary")["auc"].by_block(labels, np.full((100, 2), 0.5), np.arange(100))
    (found,) = jackknife(lambda held: (auc(held),), np.arange(100), confidence=0.9)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert np.isnan(clustered(np.zeros(9), np.zeros(9, dtype=np.int64), 0.5, confidence=0.9).low)
