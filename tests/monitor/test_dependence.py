"""Luck that outlasts a window: a reference of few stretches of it, and the false-alarm budget kept all the same."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import expit

from monitor.comparison import trails
from monitor.dependence import Dependence
from monitor.evidence import detect
from monitor.measurements import Measurement, Window, WindowRecord
from registry.metrics import Array, error_of_mean

ROWS, BLOCK, WINDOWS = 10_000, 336, 150
"""Reference rows, of so many rows each that share their luck: thirty weeks of half-hours; and the windows watched."""

BUDGET, CHAMPIONS = 1_000, 30


def hits(kind: str, rows: int, rng: np.random.Generator) -> Array:
    """Whether a champion is right, 1 or 0, row by row: .77 on average, with luck that weeks share or that fades."""
    if kind == "fading":  # to a third of itself within a third of a week
        keep = math.exp(-3 / BLOCK)
        luck = lfilter([math.sqrt(1 - keep**2)], [1, -keep], rng.normal(size=rows + 3 * BLOCK))[3 * BLOCK :]
    else:
        weeks = rng.normal(size=rows // BLOCK + 2) if kind == "by week" else np.zeros(rows // BLOCK + 2)
        luck = np.repeat(weeks, BLOCK)[rng.integers(BLOCK) :][:rows]
    return (rng.random(rows) < expit(1.2 + 0.8 * luck)).astype(np.float64)


def quiet(kind: str, size: int, rng: np.random.Generator) -> list[WindowRecord]:
    """What is measured of a champion that stays as good as its reference."""
    known = hits(kind, ROWS, rng)
    law = Dependence(known[:, None]).over_windows(size)
    start, out = datetime(2024, 1, 1), []
    skew = float(((known.mean() - known) ** 3).mean() / known.std() ** 3) / math.sqrt(size)
    spread, mean, error = float(known.std()), float(known.mean()), error_of_mean(known)
    for index, rows in enumerate(hits(kind, size * WINDOWS, rng).reshape(WINDOWS, size)):
        made = Measurement(
            name="performance",
            value=float(rows.mean()),
            error=error_of_mean(rows),
            null_error=spread * math.sqrt(law.effect / size),
            skew=skew,
            freedom=law.freedom,
            reference=mean,
            reference_error=error,
            rows=size,
        )
        begin = start + timedelta(hours=index)
        window = Window(index=index, start=begin, end=begin + timedelta(hours=1), rows=size)
        out.append(WindowRecord(window=window, version="1", metric="accuracy", measurements=(made,)))
    return out


@pytest.mark.parametrize("size", [35, 500])
@pytest.mark.parametrize("kind", ["by week", "fading"])
def test_false_alarms_stay_within_the_budget_on_rows_that_share_their_luck(kind: str, size: int) -> None:
    """In windows of a tenth of a week and of one and a half. Taken by the effect in one window alone, three of four
    champions have an alarm where windows are short."""
    rng, entered = np.random.default_rng(4), 0
    for _ in range(CHAMPIONS):
        found = trails(quiet(kind, size, rng), 0.02, 20)
        scores = np.array([[np.nan if one is None else one.score for one in trail] for trail in found]).T
        on = detect(scores, cap=2.0 * BUDGET).mean(axis=1) >= BUDGET
        entered += int((on & ~np.append(False, on[:-1])).sum())
    assert entered <= 1.5 * CHAMPIONS * WINDOWS / BUDGET


def test_independent_rows_pay_little() -> None:
    rng = np.random.default_rng(0)
    known = [Dependence(hits("independent", ROWS, rng)[:, None]) for _ in range(40)]
    for size, most in ((35, 1.3), (500, 1.45)):
        effects, freedom = np.array([one.over_windows(size) for one in known]).T
        assert np.median(effects) < 1.15
        assert np.mean(effects) < most
        assert np.median(freedom) > 100


def test_few_stretches_leave_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    luck = Dependence(hits("by week", ROWS, rng)[:, None]).over_windows(35)
    assert luck.effect > 20
    assert 7 <= luck.freedom < 30
    assert luck.effect > 5 * Dependence(hits("by week", ROWS, rng)[:, None]).effect(35)


def test_a_window_longer_than_the_stretches_has_the_effect_of_one() -> None:
    known = Dependence(hits("by week", ROWS, np.random.default_rng(0))[:, None])
    assert known.over_windows(5_000).effect == known.effect(5_000, lasting=False)
    assert Dependence(np.ones((100, 1))).over_windows(10) == (1.0, math.inf)


def test_few_stretches_that_show_nothing_by_chance_are_not_believed() -> None:
    """Of 600 references one in a hundred would have called rows independent of which each fifty share a level, so that
    any window is told from it for ever: their shorter stretches show better."""
    effects, shared = [], 0.28
    for seed in range(600):
        rng = np.random.default_rng(seed)
        rows = np.repeat(rng.normal(size=40), 50) * shared + rng.normal(size=2_000)
        effects.append(Dependence(rows[:, None]).effect(1_000))
    assert min(effects) > 1 + 49 * shared**2 / (1 + shared**2)
