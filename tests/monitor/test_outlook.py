"""What is expected of windows without labels learns from those before, and says how well it does."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.measurements import Measurement, WindowRecord
from monitor.outlook import STEP, outlook, widths
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
        inside += held(gaps, error=0.001)[5:]
    assert 0.86 < np.mean(inside) < 0.95


def held(gaps: np.ndarray, *, error: float, late: int = 1, coverage: float = 0.9) -> list[bool]:
    """Whether each window's interval held what came true, labels being so many windows late."""
    found = outlook(windows(gaps, labelled=len(gaps), error=error), coverage=coverage, late=late)
    return [one.low <= 0.7 - gap <= one.high for one, gap in zip(found, gaps, strict=True) if one]


def drift(kind: str, rng: np.random.Generator, windows: int) -> np.ndarray:
    """By how much windows come out worse than estimated; .004 of it is noise that the estimate owns to."""
    t, noise = np.arange(windows), rng.normal(0, 0.004, windows)
    if kind == "abrupt":
        return noise + 0.08 * ((t // 40) % 2)
    if kind == "season":
        return noise + 0.05 * np.sin(t / 8)
    if kind == "jumps":
        return noise + np.where(rng.random(windows) < 0.05, rng.normal(0, 0.06, windows), 0.0).cumsum() / 4
    if kind == "heavy":
        return np.clip(0.01 * rng.standard_t(2, windows), -0.15, 0.15)
    return noise


@pytest.mark.parametrize("late", [1, 5])
@pytest.mark.parametrize("kind", ["still", "abrupt", "season", "jumps", "heavy"])
@pytest.mark.parametrize("owned", [0.2, 1.0, 5.0])
def test_coverage_in_the_long_run_is_what_is_promised_whatever_drifts(kind: str, late: int, owned: float) -> None:
    """Also where the errors of the estimates are stated five times too small or too large."""
    inside = held(drift(kind, np.random.default_rng(7), 600), error=0.004 * owned, late=late)
    assert abs(np.mean(inside[late:]) - 0.9) < 0.03


@pytest.mark.parametrize("late", [1, 4])
def test_what_is_outside_adds_up_to_what_is_promised_by_construction(late: int) -> None:
    """Scores that an adversary sets beyond the interval, or inside, as he likes within a range: the share outside
    differs from the promise by the logarithm of that range, and a few steps, over the number of steps."""
    step, rows, rng = STEP / np.sqrt(late), 4_000, np.random.default_rng(0)
    scores = np.exp(rng.uniform(-2, 2, rows) * np.sign(np.sin(np.arange(rows) / 50)))
    found = widths(scores, 0.9, late)
    outside = (scores > found)[: rows - late]
    moved = np.log(found[-1] / found[late - 1]) / step  # the last scores are not known yet
    assert outside.sum() - 0.1 * len(outside) == pytest.approx(moved, abs=1e-6)
    assert abs(outside.mean() - 0.1) < (4 + 2 + late) / (step * rows)


def test_a_score_that_is_not_known_moves_nothing() -> None:
    scores = np.array([np.nan, 9.0, np.nan, np.nan, 0.1, 0.1])
    found = np.log(widths(scores, 0.9))
    assert np.diff(found) == pytest.approx([0.0, 0.9 * STEP, 0.0, 0.0, -0.1 * STEP])


def test_before_any_label_the_interval_is_the_estimates() -> None:
    """Which allows for a relation that moves, and is wider than its error."""
    made = Measurement(name="estimated", value=0.7, low=0.6, high=0.8, error=0.01, rows=500)
    (first,) = outlook([record(0, made)])
    assert first is not None
    assert (first.low, first.high) == (pytest.approx(0.6, abs=1e-5), pytest.approx(0.8, abs=1e-5))
    (narrow,) = outlook([record(0, made)], coverage=0.9)
    assert narrow is not None
    assert narrow.high == pytest.approx(0.7 + 0.1 * 1.645 / 1.96, abs=1e-4)


def test_labels_that_are_late_are_not_used_before_they_came() -> None:
    """As if each window were foretold from those whose labels had come by then."""
    gaps = np.random.default_rng(2).normal(0.02, 0.02, 25).cumsum() / 10
    found = outlook(windows(gaps, labelled=25), late=4)
    for t in (3, 4, 11, 24):
        assert found[t] == outlook(windows(gaps[: t + 1], labelled=max(0, t - 3)))[-1]


def test_a_window_without_an_estimate_has_none() -> None:
    bare = record(0, Measurement(name="estimated", note="no rows of this version"))
    assert outlook([bare]) == (None,)
