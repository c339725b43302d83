"""Counts in the reference's bins, distances from them, and how much dependent rows are worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from monitor.dependence import Dependence, unsure
from monitor.distribution import BINS, distribution_of
from monitor.values import Numbers, Values, names_of


def days(rng: np.random.Generator, count: int, length: int, shared: float) -> np.ndarray:
    """Normal rows of so many days of so many rows each, of whose variance the share `shared` is the day's."""
    daily = np.repeat(rng.normal(size=count), length)
    return np.sqrt(shared) * daily + np.sqrt(1 - shared) * rng.normal(size=count * length)


class TestBins:
    @given(st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), max_size=60), st.integers(0, 60))
    def test_counts_add_up(self, values: list[float], cut: int) -> None:
        known = distribution_of(Numbers(np.random.default_rng(0).normal(size=500)))
        parts, whole = (np.array(part) for part in (values[:cut], values[cut:])), np.array(values)
        assert sum(known.count(Numbers(part)) for part in parts).tolist() == known.count(Numbers(whole)).tolist()
        assert known.count(Numbers(whole)).sum() == np.isfinite(whole).sum()

    def test_numbers_fall_evenly_into_the_bins_of_the_reference(self) -> None:
        known = distribution_of(Numbers(np.random.default_rng(0).exponential(size=3_200)))
        assert known.size == BINS
        assert known.counts.min() >= 90
        assert known.counts.max() <= 110

    def test_a_value_that_many_rows_share_has_a_bin(self) -> None:
        known = distribution_of(Numbers(np.repeat([0.0, 1.0], [900, 100])))
        assert known.count(Numbers(np.array([0.0, 0.0, 1.0, 2.0]))).tolist() == [2, 1, 1]

    def test_what_the_reference_does_not_have_is_counted_apart(self) -> None:
        known = distribution_of(names_of(np.array(["a", "a", "b", None], dtype=object)))
        assert known.counts.tolist() == [2, 1, 0]
        assert known.count(names_of(np.array(["b", "c", None, "d"], dtype=object))).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("make", [Numbers, names_of])
    def test_nothing_to_compare_is_no_distance(self, make: Callable[[np.ndarray], Values]) -> None:
        gap, one = make(np.array([np.nan])), make(np.array([1.0]))
        empty, full = distribution_of(gap), distribution_of(one)
        assert full.distance(full.count(gap), doubt=0.001) is None
        assert empty.distance(empty.count(one), doubt=0.001) is None


def test_the_effect_is_that_of_the_means_of_stretches() -> None:
    """Kish's, from the values themselves; asked again, of other sizes and densities, it is the same."""
    rng = np.random.default_rng(0)
    values = np.column_stack([days(rng, 100, 10, 0.4), rng.random(1_000) < 0.1, np.full(1_000, 7.0)]) + 1e3
    known = Dependence(values)
    for rows, stride in ((40, 1.0), (200, 4.0), (40, 1.0), (5_000, 1.0)):
        block = min(round(rows / stride), 125)
        used = values[: 1_000 // block * block]
        means = used.reshape(-1, block, 3).mean(axis=1)
        effect = block * means.var(axis=0, ddof=1).sum() / used.var(axis=0).sum()
        expected = 1 + max(0.0, effect - 1) * unsure(len(means)) * (rows - 1) / (block - 1)
        assert known.effect(rows, stride=stride) == pytest.approx(expected, rel=1e-6)
        assert Dependence(values).effect(rows, stride=stride) == known.effect(rows, stride=stride)


class TestDistance:
    def test_of_numbers_is_smirnovs_or_little_less(self) -> None:
        rng = np.random.default_rng(0)
        reference, window = rng.normal(size=4_000), rng.normal(0.4, 1.3, size=700)
        known = distribution_of(Numbers(reference))
        found = known.distance(known.count(Numbers(window)), doubt=0.001)
        exact = ks_2samp(reference, window).statistic
        assert found is not None
        assert exact - 1 / BINS <= found.value <= exact + 1e-12

    @pytest.mark.parametrize("rows", [35, 500, 5_000])
    @pytest.mark.parametrize("shared", [0.0, 0.3])
    def test_p_values_keep_their_word_for_rows_of_days(self, rows: int, shared: float) -> None:
        """Windows and reference of 25-row days, which windows do not respect."""
        rng, p_values = np.random.default_rng(1), []
        for _ in range(60):
            stream = days(rng, (10_000 + 4 * rows) // 25 + 4, 25, shared)
            known = distribution_of(Numbers(stream[:10_000]))
            for start in range(10_000, 10_000 + 4 * rows, rows):
                found = known.distance(known.count(Numbers(stream[start : start + rows])), doubt=0.001)
                p_values.append(found.p_value if found else 1.0)
        assert np.mean(np.array(p_values) < 0.05) <= 0.075

    def test_a_move_is_seen_in_small_windows_too(self) -> None:
        rng = np.random.default_rng(2)
        known = distribution_of(Numbers(rng.normal(size=10_000)))
        found = known.distance(known.count(Numbers(rng.normal(1.5, 1, size=35))), doubt=0.001)
        assert found is not None
        assert found.p_value < 1e-4


class TestDesignEffect:
    def test_is_one_for_independent_rows_and_grows_with_what_days_share(self) -> None:
        rng = np.random.default_rng(0)
        found = [Dependence(days(rng, 400, 25, shared)[:, None]).effect(500) for shared in (0.0, 0.1, 0.5)]
        assert found[0] < 1.6
        assert found[0] < found[1] < found[2]
        assert found[2] > 0.8 * (1 + 24 * 0.5)

    def test_a_thinned_reference_tells_the_same(self) -> None:
        rng, found = np.random.default_rng(1), []
        for _ in range(20):
            rows = days(rng, 2_000, 25, 0.3)
            sample = rows[np.sort(rng.choice(len(rows), len(rows) // 5, replace=False))]
            found.append((Dependence(rows[:, None]).effect(500), Dependence(sample[:, None]).effect(500, stride=5.0)))
        whole, thinned = np.mean(found, axis=0)
        assert thinned == pytest.approx(whole, rel=0.4)

    def test_what_does_not_vary_has_none(self) -> None:
        assert Dependence(np.ones((100, 1))).effect(30) == 1.0
        assert Dependence(np.random.default_rng(0).normal(size=(10, 1))).effect(500) == 1.0

    def test_what_does_not_last_beyond_the_stretches_counts_as_independent(self) -> None:
        rows = days(np.random.default_rng(2), 80, 25, 0.3)[:, None]  # 8 stretches of 250 rows
        assert Dependence(rows).effect(250) == Dependence(rows).effect(250, lasting=False)
        assert Dependence(rows).effect(5_000, lasting=False) == Dependence(rows).effect(250)
        assert Dependence(rows).effect(5_000) > 5 * Dependence(rows).effect(5_000, lasting=False)
