"""What people are told of a window: one figure and one interval, and what bad luck would do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from monitor.comparison import ADDED, TEST, Level, compare
from monitor.measurements import Measurement
from monitor.told import by_luck, figure, sentence, telling
from tests.monitor.records import performance, record

KNOWN = performance(0.8192, error=0.05, rows=289).model_copy(update={"low": 0.7212, "high": 0.9172})
FUSED = Measurement(name="fused", value=0.813, error=0.016, null_error=0.1, low=0.78, high=0.84, rows=336)


def test_with_all_labels_it_is_the_realised_figure() -> None:
    told = figure(record(0, KNOWN, FUSED.model_copy(update={"rows": 289, "value": 0.8})))
    assert told is not None
    assert (told.level.value, told.low, told.high) == (0.8192, 0.7212, 0.9172)
    assert told.level.basis == "289 labels"


def test_with_labels_still_to_come_it_is_what_is_judged() -> None:
    """Its interval is that of the labels' own rows, and wider than what the missing labels alone may change."""
    told = figure(record(0, KNOWN, FUSED))
    assert told is not None
    assert (told.level.value, told.level.basis) == (0.813, "289 labels and 47 rows estimated")
    error = math.hypot(0.016, 0.05 * math.sqrt(289 / 336))
    assert (told.low, told.high) == (pytest.approx(0.813 - 1.96 * error), pytest.approx(0.813 + 1.96 * error))


def test_an_interval_ends_where_the_metric_does_and_none_is_made_up() -> None:
    high = figure(record(0, KNOWN, FUSED.model_copy(update={"value": 0.99})))
    bare = figure(record(0, KNOWN.model_copy(update={"error": None}), FUSED))
    assert high is not None
    assert high.high == 1.0
    assert bare is not None
    assert (bare.low, bare.high) == (None, None)
    assert figure(record(0, performance(None), FUSED)) is None


def test_luck_is_told_of_the_reference_with_the_most_evidence() -> None:
    now = Level(0.8192, 0.1, 289, skew=0.1, freedom=7.4)
    test = compare("auc", now, Level(0.9, 0.02, 0), TEST, 0.02, lasting=True)
    fresh = compare("auc", Level(0.8192, 0.02, 289), Level(0.88, 0.01, 289), ADDED, 0.02, lasting=True)
    alone = sentence([record(0, KNOWN)], test, degraded=False)
    both = sentence([record(0, KNOWN)], test, degraded=False, most=fresh)
    assert alone == (
        "auc 0.819 (0.721 to 0.917) on 289 labels in the window from 2024-01-01 00:00, reference 0.900 +/- 0.020 (its "
        "test rows): worse by 0.0808, tolerated 0.018; one window in 3 would look as bad by luck (windows of so many "
        "rows vary by 0.1): not called degraded yet"
    )
    assert telling(fresh)
    assert not telling(replace(fresh, deviation=0.2))
    assert both.count("by luck") == 1
    assert f"; with more evidence beside 0.880 +/- 0.010 ({ADDED}): worse by 0.0608 +/- 0.02, tolerated 0.018; " in both
    assert "by luck" not in sentence([record(0, KNOWN)], test, degraded=True)


@pytest.mark.parametrize(
    ("p_value", "said"),
    [(0.9, "every other window"), (0.25, "one window in 4"), (1 / 1500, "one window in 1,500"), (0.0, "less than one")],
)
def test_luck_in_words(p_value: float, said: str) -> None:
    assert by_luck(p_value).startswith(said)
