"""What is expected of windows without labels learns from those before, and says how well it does."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.measurements import Measurement, WindowRecord
from monitor.outlook import outlook
from tests.monitor.records import record


def windows(gaps: np.ndarray, *, labelled: int, metric: str = "auc", error: float = 0.01) -> list[WindowRecord]:
    """A window for each gap, estimated at .7; only the first ones have their labels."""
    out = []
    for index, gap in enumerate(gaps):
        made = [Measurement(name="estimated", value=0.7, error=error, rows=500)]
        if index < labelled:
            made.append(Measurement(name="gap", value=float(gap), error=error, rows=500))
        out.append(record(index, *made, metric=metric))
    return out


def test_without_labels_it_is_the_estimate() -> None:
    found = outlook(windows(np.zeros(5), labelled=0))
    assert [(one.value, one.error) for one in found if one] == [(0.7, pytest.approx(0.01))] * 5


@pytest.mark.parametrize(("metric", "value"), [("auc", 0.6), ("rmse", 0.8)])
def test_a_gap_that_stays_is_taken_off(metric: str, value: float) -> None:
    rng = np.random.default_rng(0)
    last = outlook(windows(0.1 + rng.normal(0, 0.01, 13), labelled=12, metric=metric))[-1]
    assert last is not None
    assert last.value == pytest.approx(value, abs=0.01)
    assert last.reference == 0.7
    assert last.error < 0.03


def test_a_window_knows_nothing_of_its_own_gap_or_of_later_ones() -> None:
    gaps = np.array([0.02, -0.01, 0.05, 0.3, 0.3])
    first, second = outlook(windows(gaps, labelled=3)), outlook(windows(gaps, labelled=5))
    assert first[:4] == second[:4]
    assert first[4] != second[4]


def test_the_longer_labels_are_out_the_wider_it_is() -> None:
    gaps = np.random.default_rng(1).normal(0, 0.03, 20).cumsum()
    errors = [one.error for one in outlook(windows(gaps, labelled=12))[12:] if one]
    assert errors == sorted(errors)
    assert errors[-1] > 1.2 * errors[0]


@pytest.mark.parametrize(("step", "own"), [(0.0, 0.0), (0.002, 0.0), (0.0, 0.003), (0.01, 0.002)])
def test_intervals_hold_what_they_promise(step: float, own: float) -> None:
    """Concepts that stand still, that wander, and windows with luck of their own, after five with labels. Of the first
    window nothing but the estimate is known."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(60):
        gaps = rng.normal(0, step, 30).cumsum() + rng.normal(0, np.hypot(own, 0.001), 30)
        found = outlook(windows(gaps, labelled=30, error=0.001))[5:]
        inside += [abs(one.value - 0.7 + gap) <= 1.645 * one.error for one, gap in zip(found, gaps[5:], strict=True)]
    assert 0.87 < np.mean(inside) < 0.98


def test_a_window_without_an_estimate_has_none() -> None:
    bare = record(0, Measurement(name="estimated", note="no rows of this version"))
    assert outlook([bare]) == (None,)
