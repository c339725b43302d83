"""Worse than what, by how much, and how sure."""

from __future__ import annotations

import math

import pytest

from monitor.comparison import Level, compare, pool, tolerated_loss, worst, worst_segments
from monitor.measurements import Measurement
from tests.monitor.records import record, weeks


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


def test_its_own_past_is_a_reference_where_the_test_rows_were_hard() -> None:
    found = worst(weeks([0.74, 0.75, 0.74, 0.70], reference=0.65), 1, 0.02)
    assert found.against == "its 3 windows before"
    assert found.loss == pytest.approx(0.043, abs=0.001)


def test_its_test_rows_are_the_reference_where_it_fell_slowly() -> None:
    found = worst(weeks([0.69, 0.68, 0.67, 0.66], reference=0.7), 1, 0.02)
    assert found.against == "its test rows"


def test_the_worst_segments_are_named_with_their_figures() -> None:
    def segment(name: str, value: float, rows: int = 500) -> Measurement:
        options = {"error": 0.02, "reference": 0.8, "reference_error": 0.02, "rows": rows}
        return Measurement(name="segment_performance", subject=name, value=value, **options)

    made = [segment("c=A", 0.6), segment("c=B", 0.79), segment("c=C", 0.5), segment("c=D", 0.1, rows=20)]
    said = worst_segments(record(0, *made), 0.02, 100, 0.0025)
    assert said == ("c=C: auc 0.500 on 500 labels, reference 0.800", "c=A: auc 0.600 on 500 labels, reference 0.800")


def test_a_record_without_performance_is_refused() -> None:
    with pytest.raises(ValueError, match="window 0 has no performance"):
        worst(weeks([None]), 1, 0.02)
