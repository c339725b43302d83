"""Worse than what, by how much, and how sure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitor.comparison import EXPECTED, SURE, Level, compare, pool, trails, worst_segments
from monitor.measurements import Measurement
from monitor.past import gap_scores
from registry.fallen import tolerated_loss
from registry.plurals import counted
from tests.monitor.records import performance, record, weeks


@pytest.mark.parametrize(
    ("metric", "realised", "loss"), [("auc", 0.6, 0.1), ("rmse", 0.8, 0.1), ("auc", 0.8, -0.1), ("log_loss", 0.6, -0.1)]
)
def test_loss_is_positive_when_worse_whatever_the_direction(metric: str, realised: float, loss: float) -> None:
    found = compare(metric, Level(realised, 0.03, 100), Level(0.7, 0.04, 100), "", 0.0)
    assert found.loss == pytest.approx(loss)
    assert found.deviation == pytest.approx(loss / 0.05)


def test_what_is_tolerated_is_a_share_of_the_reference_but_of_the_variance_for_r2() -> None:
    assert tolerated_loss("rmse", -4.0, 0.05) == pytest.approx(0.2)
    assert tolerated_loss("r2", 0.0, 0.05) == 0.05


def test_certainty_on_both_sides_is_no_division_by_zero() -> None:
    same, exact = Level(1.0, 0.0, 50), Level(0.5, 0.0, 50)
    assert compare("accuracy", exact, same, "", 0.02).deviation == math.inf
    assert compare("accuracy", same, same, "", 0.02).deviation == -math.inf


def test_pooled_windows_weigh_by_rows() -> None:
    found = pool([Level(0.6, 0.03, 100), Level(0.7, 0.04, 300)])
    assert (found.value, found.rows) == (pytest.approx(0.675), 400)
    assert found.error == pytest.approx(math.hypot(3, 12) / 400)


def test_its_own_past_finds_an_abrupt_fall_where_the_test_rows_were_hard() -> None:
    test, past = trails(weeks([0.74, 0.75, 0.74, 0.66], reference=0.65), 0.02, 100)
    assert past[0] is None
    assert [one is not None and one.against for one in past[1:]] == [
        f"its test rows and {counted(n, 'window')} before" for n in (1, 2, 3)
    ]
    assert past[3] is not None
    assert test[3] is not None
    assert past[3].score > 3 > 0 > test[3].score


def test_its_test_rows_find_a_slow_fall_which_its_past_learns_to_live_with() -> None:
    values = [0.70 - 0.004 * week for week in range(15)]
    test, past = (trail[-1] for trail in trails(weeks(values, reference=0.7), 0.02, 100))
    assert test is not None
    assert past is not None
    assert test.deviation > past.deviation + 1


def test_a_reference_that_stays_is_taken_to_be_worse_by_its_error() -> None:
    now, reference = Level(0.60, 0.01, 100), Level(0.70, 0.02, 100)
    once, lasting = (compare("auc", now, reference, "", 0.0, lasting=lasting) for lasting in (False, True))
    assert once.deviation == pytest.approx(0.1 / math.hypot(0.01, 0.02))
    assert lasting.deviation == pytest.approx((0.1 - SURE * 0.02) / 0.01)


def test_a_deviation_from_windows_before_is_independent_of_theirs() -> None:
    """Recursive residuals: no correlation between windows, though all share the test rows."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        history = weeks(rng.normal(0.70, 0.008, 6), reference=rng.normal(0.70, 0.01))
        trail = trails(history, 0.0, 100)[1]
        found.append([one.deviation for one in trail if one is not None])
    apart = np.corrcoef(np.array(found).T)[np.triu_indices(5, 1)]
    assert np.abs(apart).max() < 0.2
    assert np.std(found) == pytest.approx(1.0, abs=0.06)


def test_gaps_beside_those_before_are_no_surprise_whatever_the_bias_they_share() -> None:
    rng, found = np.random.default_rng(0), []
    known = {"null_error": 0.01, "error": 0.01 * 2**0.5, "skew": 0.0, "rows": 900}
    for bias in rng.normal(0, 0.01, 300):
        made = [Measurement(name="log_gap", value=float(bias + noise), **known) for noise in rng.normal(0, 0.01, 6)]
        found.append(gap_scores([record(index, one) for index, one in enumerate(made)], "log_gap"))
    apart = np.corrcoef(np.array(found).T)[np.triu_indices(6, 1)]
    assert np.abs(apart).max() < 0.2
    assert np.std(found) == pytest.approx(1.0, abs=0.06)
    assert np.isnan(gap_scores([record(0)], "log_gap")).all()


def test_an_estimate_stands_in_for_labels_that_have_not_come() -> None:
    made = Measurement(name="estimated", value=0.6, error=0.02, rows=900)
    record_ = record(0, performance(None), made)
    (trail,) = trails([record_], 0.02, 100)
    assert trail[0] is not None
    assert (trail[0].realised.value, trail[0].realised.labelled) == (0.6, False)
    assert trails([record(0, performance(0.69), made)], 0.02, 100)[0][0].realised.labelled


@pytest.mark.parametrize(("labels", "labelled"), [(0, False), (50, False), (200, True)])
def test_where_labels_are_still_to_come_outputs_and_labels_are_fused(labels: int, labelled: bool) -> None:
    estimate = Measurement(name="estimated", value=0.6, error=0.02, rows=900)
    fused = Measurement(name="fused", value=0.64, error=0.03, null_error=0.04, rows=900)
    came = performance(0.7 if labels else None, rows=labels)
    found = trails([record(0, came, estimate, fused)], 0.02, 100)[0][0]
    assert found is not None
    assert (found.realised.value, found.realised.labelled) == (0.64, labelled)
    assert found.realised.error == 0.04  # how much such windows vary, which is more than their figure is unsure


def test_a_window_that_lacks_three_labels_is_no_surer_than_one_that_lacks_none() -> None:
    """Its figure is all but realised, and its rows tell as little of the long run as before."""
    fused = Measurement(name="fused", value=9.672, error=0.044, null_error=0.04, rows=234)
    came = performance(9.683, rows=231, error=0.514)
    found = trails([record(0, came, fused, metric="log_loss")], 0.02, 100)[0][0].realised
    assert (found.value, found.rows, found.awaited) == (9.672, 234, 3)
    assert found.error == pytest.approx(0.513, abs=0.001)
    assert found.basis == "231 labels and 3 rows estimated"
    ruled = came.model_copy(update={"null_error": 0.5, "skew": 0.1})
    assert trails([record(0, ruled, fused, metric="log_loss")], 0.02, 100)[0][0].realised.error == 0.044


def test_with_all_labels_the_realised_figure_counts() -> None:
    fused = Measurement(name="fused", value=0.64, error=0.0, null_error=0.04, rows=900)
    found = trails([record(0, performance(0.7, rows=900), fused)], 0.02, 100)[0][0]
    assert found is not None
    assert found.realised.value == 0.7


@pytest.mark.parametrize(("metric", "value", "expected"), [("auc", 0.62, 0.72), ("rmse", 0.82, 0.72)])
def test_what_its_answers_lead_one_to_expect_is_a_reference(metric: str, value: float, expected: float) -> None:
    """Its bias is common to all windows, and taken to be larger by its error; the rest is the window's own."""
    gap = Measurement(name="gap", value=0.1, error=0.05, null_error=0.03, skew=0.0, rows=6_000)
    (*_, trail) = trails([record(0, performance(value), gap, metric=metric)], 0.0, 100)
    (found,) = trail
    assert found is not None
    assert (found.against, found.lasting) == (EXPECTED, True)
    assert found.reference.value == pytest.approx(expected)
    assert found.deviation == pytest.approx((0.1 - SURE * 0.04) / 0.03)


def test_few_labels_say_nothing() -> None:
    assert trails([record(0, performance(0.2, rows=60))], 0.02, 100) == ()


def test_the_worst_segments_are_named_with_their_figures() -> None:
    def segment(name: str, value: float, rows: int = 500) -> Measurement:
        options = {"error": 0.02, "reference": 0.8, "reference_error": 0.02, "rows": rows}
        return Measurement(name="segment_performance", subject=name, value=value, **options)

    made = [segment("c=A", 0.6), segment("c=B", 0.79), segment("c=C", 0.5), segment("c=D", 0.1, rows=20)]
    said = worst_segments(record(0, *made), 0.02, 100, 0.0025)
    assert tuple(one.sentence for one in said) == (
        "c=C: auc 0.500 on 500 labels, reference 0.800",
        "c=A: auc 0.600 on 500 labels, reference 0.800",
    )
