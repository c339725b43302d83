"""Parts never overlap, never see the future, and keep the shares of classes."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import DataError
from retrain.splits import Parts, cumulative_shares, split, time_cuts
from tests.handmade import make_frame, make_task


def cover(parts: Parts, rows: int) -> bool:
    """Whether the parts are disjoint and together all rows."""
    return sorted(np.concatenate(list(vars(parts).values())).tolist()) == list(range(rows))


def test_time_order_oldest_trains_newest_tests() -> None:
    frame = make_frame(1_000).sample(frac=1, random_state=0).reset_index(drop=True)
    parts = split(frame, make_task())
    assert cover(parts, 1_000)
    assert parts.counts() == {"train": 700, "validation": 120, "calibration": 80, "test": 100}
    times = frame["when"].to_numpy()
    in_order = [times[rows] for rows in vars(parts).values()]
    for before, after in itertools.pairwise(in_order):
        assert before.max() < after.min()


def test_spread_parts_are_runs_with_training_between_them_before_the_test_part() -> None:
    """Of 1,000 rows, 12 % and 8 % are cut into five runs each, over a stretch of 600 rows; the newest still test."""
    frame = make_frame(1_000)
    task = make_task(splits={"validation": 0.12, "calibration": 0.08, "test": 0.1, "spread": 3.0})
    parts = split(frame, task)
    assert cover(parts, 1_000)
    assert parts.counts() == {"train": 700, "validation": 120, "calibration": 80, "test": 100}
    assert parts.test.tolist() == list(range(900, 1_000))
    for rows in (parts.validation, parts.calibration):
        assert np.count_nonzero(np.diff(rows) > 1) == 4
        assert 300 <= rows.min() < 450
        assert 750 < rows.max() < 900
    assert parts.train.max() > parts.validation.max() - 50


@given(st.lists(st.integers(0, 30), min_size=60, max_size=300))
@settings(max_examples=50, deadline=None)
def test_a_moment_never_straddles_a_cut(moments: list[int]) -> None:
    times = np.array(moments, dtype=np.int64)
    order, cuts = time_cuts(times, cumulative_shares(make_task().splits))
    for cut in cuts:
        if 0 < cut < len(times):
            assert times[order[cut - 1]] < times[order[cut]]


def test_times_as_text_and_with_ties() -> None:
    frame = make_frame(1_000)
    frame["when"] = frame["when"].dt.floor("6h").astype(str)
    parts = split(frame, make_task())
    assert cover(parts, 1_000)
    each = [set(frame["when"].iloc[rows]) for rows in vars(parts).values()]
    assert sum(map(len, each)) == frame["when"].nunique()


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
def test_without_time_classes_keep_their_shares(problem: str) -> None:
    frame = make_frame(3_000, problem=problem)  # type: ignore[arg-type]
    parts = split(frame, make_task(problem, time=None))  # type: ignore[arg-type]
    assert cover(parts, 3_000)
    overall = frame["late"].value_counts(normalize=True)
    for rows in vars(parts).values():
        shares = frame["late"].iloc[rows].value_counts(normalize=True)
        assert (shares - overall).abs().max() < 0.01


def test_a_class_of_one_row_trains() -> None:
    frame = make_frame(500)
    frame.loc[17, "late"] = "never"
    parts = split(frame, make_task("multiclass", time=None, metric="log_loss"))
    assert 17 in parts.train


def test_without_time_regression_keeps_the_quantiles() -> None:
    frame = make_frame(2_000, problem="regression")
    parts = split(frame, make_task("regression", time=None))
    assert cover(parts, 2_000)
    medians = [frame["late"].iloc[rows].median() for rows in vars(parts).values()]
    assert np.ptp(medians) < 0.15 * frame["late"].std()


def test_the_seed_decides_the_shuffle() -> None:
    frame = make_frame(400)
    one, again, other = (split(frame, make_task(time=None, search={"seed": seed})) for seed in (1, 1, 2))
    assert np.array_equal(one.train, again.train)
    assert not np.array_equal(one.train, other.train)


def test_too_few_moments_for_four_parts() -> None:
    frame = make_frame(400).assign(when=pd.Timestamp("2024-01-01"))
    with pytest.raises(DataError, match=r"part is empty: only 1 moments in 'when' \(400 rows\)"):
        split(frame, make_task())
