"""e-detectors: their false alarms by simulation, their keenness, and when a change began."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from monitor.evidence import BETS, alarming, detect, onset, score_of, tail


def first_alarms(scores: np.ndarray, windows: float) -> np.ndarray:
    """When each of r runs, scores (r, T, k), alarms first; T where it never does."""
    found = []
    for run in scores:
        rang = detect(run).mean(axis=1) >= windows
        found.append(int(rang.argmax()) if rang.any() else len(run))
    return np.array(found)


@pytest.mark.parametrize("streams", [1, 20])
@pytest.mark.parametrize("windows", [20, 100])
def test_a_false_alarm_comes_after_the_stated_number_of_windows_at_least(windows: int, streams: int) -> None:
    """With independent streams and with streams that are all the same; cut at ten times as many windows, which only
    makes the mean smaller."""
    rng = np.random.default_rng(0)
    for shared in (False, True):
        scores = rng.normal(size=(40, 10 * windows, 1 if shared else streams))
        alarms = first_alarms(np.broadcast_to(scores, (40, 10 * windows, streams)), windows)
        assert alarms.mean() >= windows


def test_scores_below_nothing_never_alarm_where_they_are_far_enough() -> None:
    """Better than tolerated is evidence for nothing."""
    assert detect(np.full((500, 1), -1.0)).max() < 20


def test_a_large_change_is_seen_at_once_and_a_small_one_in_time() -> None:
    rng = np.random.default_rng(1)
    for size, within in ((6.0, 1), (2.0, 8), (1.0, 25)):
        scores = rng.normal(size=(200, within, 1)) + size
        assert (first_alarms(scores, 500) < within).mean() > 0.8


def test_a_window_without_a_look_changes_nothing() -> None:
    looked = detect(np.array([[1.0], [np.nan], [np.nan], [2.0]]))
    assert looked[0] == looked[1] == looked[2]
    assert looked[3] == detect(np.array([[1.0], [2.0]]))[1]


def test_capped_evidence_comes_down_soon_after_the_change() -> None:
    scores = np.array([[6.0]] * 30 + [[-0.5]] * 8)
    assert 500 <= detect(scores, cap=500)[29] <= len(BETS) * 500
    assert detect(scores, cap=500)[31] < 500
    assert detect(scores, cap=500)[-1] < 50 < detect(scores)[-1]


def test_those_that_carry_an_alarm_are_named() -> None:
    assert not alarming(np.array([30.0, 5.0, 1.0]), 20).any()
    assert alarming(np.array([300.0, 5.0, 1.0]), 20).tolist() == [True, False, False]
    assert alarming(np.array([300.0, 31.0, 1.0]), 20).tolist() == [True, True, False]
    assert not alarming(np.array([]), 20).any()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.floats(2, 1e4))
def test_an_alarm_has_somebody_who_carries_it(values: list[float], windows: float) -> None:
    detectors = np.array(values)
    assert alarming(detectors, windows).any() == bool(detectors.mean() >= windows)


@pytest.mark.parametrize(("rows", "share"), [(35, 0.1), (500, 0.05), (5_000, 0.2)])
def test_the_tail_of_a_mean_of_rare_errors_is_not_taken_for_a_normals(rows: int, share: float) -> None:
    """e-values from the scores of binomial counts are 1 on average at most, but for what rounding of counts gives."""
    counts = np.arange(rows + 1)
    deviations = (counts - rows * share) / np.sqrt(rows * share * (1 - share))
    skew = (1 - 2 * share) / np.sqrt(rows * share * (1 - share))
    scores = np.array([score_of(tail(one, skew)) for one in deviations])
    chances = binom.pmf(counts, rows, share)
    means = np.exp(BETS[:, None] * scores - BETS[:, None] ** 2 / 2) @ chances
    assert (means < 1.1).all()
    naive = np.exp(BETS[-1] * np.clip(deviations, -8, 8) - BETS[-1] ** 2 / 2) @ chances
    assert naive > means[-1]


def test_the_onset_of_a_step_lies_in_its_interval() -> None:
    rng, held, widths = np.random.default_rng(2), 0, []
    for _ in range(200):
        found = onset([*rng.normal(-0.5, 1, 30), *rng.normal(3.5, 1, 5)])
        held += found.first <= 30 <= found.last
        widths.append(found.last - found.first)
        assert found.first <= found.at <= found.last
    assert held / 200 >= 0.85
    assert np.mean(widths) < 3


def test_a_stream_of_one_window_began_there() -> None:
    assert onset([3.0]) == onset([float("nan")])


@pytest.mark.parametrize("freedom", [math.inf, 19.0])
def test_what_is_not_known_is_no_evidence(freedom: float) -> None:
    assert math.isnan(tail(0.5, math.nan, freedom))
    assert math.isnan(tail(math.nan, 0.0, freedom))
