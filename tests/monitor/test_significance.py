"""Closed forms against scipy's own tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitor.significance import (
    homogeneity,
    jensen_shannon,
    means_differ,
    share_above,
    share_below,
    share_beyond,
    smirnov_off,
    smirnov_p,
    smirnov_ps,
    spread_of,
    wilson,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "table", [(3, 40, 1, 100), (0, 10, 5, 10), (7, 7, 2, 9), (900, 2_000, 800, 2_000), (5, 5, 0, 600)]
)
def test_share_above_is_fishers_exact_test(table: tuple[int, int, int, int]) -> None:
    hits, rows, before, known = table
    expected = stats.fisher_exact([[hits, rows - hits], [before, known - before]], alternative="greater").pvalue
    assert share_above(*table) == pytest.approx(expected, rel=1e-6)


def test_share_above_is_sure_where_chances_are_no_numbers() -> None:
    assert share_above(100, 10_000, 9_900, 10_000) == 1.0
    assert share_above(9_000, 10_000, 0, 10_000) == 0.0


def test_share_above_of_nothing_is_one() -> None:
    assert share_above(0, 0, 3, 10) == share_above(0, 10, 0, 10) == share_above(1, 4, 0, 0) == 1.0


@pytest.mark.parametrize("rows", [35, 500])
def test_smirnovs_p_value_at_borders_is_what_it_says(rows: int) -> None:
    """The law is asymptotic: it holds for few rows too, and is not much larger than it need be."""
    counts = RNG.multinomial(rows, np.ones(32) / 32, size=40_000)
    gaps = np.abs(counts.cumsum(axis=1) / rows - np.arange(1, 33) / 32).max(axis=1)
    chances = smirnov_ps(gaps, np.full(len(gaps), float(rows)), np.zeros(len(gaps)), 32)
    for level in (0.2, 0.05, 0.01):
        assert 0.8 * level < np.mean(chances <= level) < 1.1 * level


def test_smirnovs_p_value_is_nearly_scipys_with_many_bins() -> None:
    values = RNG.normal(0.1, 1, 400)
    expected = stats.kstest(values, "norm")
    assert smirnov_p(expected.statistic, 400, 0.0, 10_000) == pytest.approx(expected.pvalue, rel=0.15)
    assert smirnov_p(expected.statistic + 0.02, 400, 0.02, 32) == smirnov_p(expected.statistic, 400, 0.0, 32)


def test_a_reference_is_further_off_as_seldom_as_is_doubted() -> None:
    samples = np.sort(RNG.random((2_000, 320)), axis=1)
    off = np.abs(samples[:, 9:-10:10] - np.arange(10, 320, 10) / 320).max(axis=1)
    assert np.mean(off > smirnov_off(320, 0.05, 32)) == pytest.approx(0.05, abs=0.015)


def test_homogeneity_is_pearsons_test_beside_a_reference_without_end() -> None:
    window, known = np.array([50.0, 30, 20]), np.array([0.4, 0.35, 0.25])
    expected = stats.chisquare(window, 100 * known).pvalue
    assert homogeneity(window, 1e9 * known, 0.001) == pytest.approx(expected, rel=0.01)
    assert homogeneity(window, 1e3 * known, 0.001) > expected


def test_a_share_beyond_is_binomial_with_the_largest_share_there_may_be() -> None:
    highest = stats.binomtest(3, 100).proportion_ci(0.98).high
    assert share_beyond(9, 50, 3, 100, 0.01) == pytest.approx(stats.binom.sf(8, 50, highest))
    assert share_beyond(0, 50, 3, 100, 0.01) == share_beyond(5, 50, 0, 0, 0.01) == share_beyond(0, 0, 3, 9, 0.01) == 1
    assert share_beyond(50, 50, 100, 100, 0.01) == 1


def test_bins_seen_once_do_not_make_a_difference() -> None:
    first, second = np.r_[100.0, np.ones(20), np.zeros(20)], np.r_[100.0, np.zeros(20), np.ones(20)]
    assert homogeneity(first, second, 1.0) > 0.5


def test_jensen_shannon_goes_from_zero_to_one_and_minds_no_empty_bin() -> None:
    assert jensen_shannon(np.array([5.0, 5]), np.array([50.0, 50])) == pytest.approx(0, abs=1e-9)
    assert jensen_shannon(np.array([5.0, 0]), np.array([0, 50.0])) == pytest.approx(1)
    assert jensen_shannon(np.array([100.0, 0]), np.array([99.0, 1])) < 0.08


def test_wilson_and_the_binomial_tail_are_scipys() -> None:
    expected = stats.binomtest(83, 100).proportion_ci(method="wilson")
    assert wilson(83, 100) == pytest.approx((expected.low, expected.high))
    assert share_below(83, 100, 0.9) == pytest.approx(stats.binomtest(83, 100, 0.9, "less").pvalue)


def test_welch_for_many_rows() -> None:
    first, second = RNG.normal(0.1, 2, 3_000), RNG.normal(0, 1, 2_000)
    assert means_differ(spread_of(first), spread_of(second)) == pytest.approx(
        stats.ttest_ind(first, second, equal_var=False).pvalue, rel=0.05
    )
    assert means_differ(spread_of(np.ones(3)), spread_of(np.ones(4))) == 1.0
    assert means_differ(spread_of(np.ones(3)), spread_of(np.zeros(4))) == 0.0
