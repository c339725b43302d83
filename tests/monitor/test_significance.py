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
    smirnov_p,
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


def test_smirnovs_p_value_is_nearly_scipys() -> None:
    first, second = RNG.normal(0.1, 1, 400), RNG.normal(size=700)
    expected = stats.ks_2samp(first, second)
    assert smirnov_p(expected.statistic, 400, 700) == pytest.approx(expected.pvalue, rel=0.1)


def test_homogeneity_is_pearsons_test() -> None:
    first, second = np.array([50.0, 30, 20]), np.array([400.0, 350, 250])
    assert homogeneity(first, second) == pytest.approx(stats.chi2_contingency([first, second]).pvalue)


def test_bins_seen_once_do_not_make_a_difference() -> None:
    first, second = np.r_[100.0, np.ones(20), np.zeros(20)], np.r_[100.0, np.zeros(20), np.ones(20)]
    assert homogeneity(first, second) > 0.5


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
