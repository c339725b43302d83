"""What a remedy is worth, and of a champion that follows when a search is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitor.acts import Act
from monitor.policy import decide
from monitor.remedy import Trial, Upkeep, brings
from registry.decisions import Remedy
from registry.policies import PerformancePolicy
from tests.monitor.records import end_of, weeks

GOOD, AWFUL = 0.70, 0.50


def test_what_costs_more_than_it_is_expected_to_bring_is_not_tried() -> None:
    """AUC .55 instead of .7 is a loss of a fifth; twelve weeks, no promotion yet, half of the imagined ones helped."""
    history = weeks([GOOD, GOOD, *[AWFUL] * 10])
    dear = decide(PerformancePolicy(ladder=("research",), worth=0.1), history)
    assert (dear.remedy, dear.severity) == (Remedy.NONE, "degraded")
    assert "an improvement is expected to bring what " in dear.reasons[-1]
    assert dear.reasons[-1].endswith("CPU-s are worth, and to cost 90: not tried")
    cheap = decide(PerformancePolicy(ladder=("research",), worth=10.0), history)
    assert cheap.remedy is Remedy.RESEARCH
    assert "and to cost 90" in cheap.reasons[-1]


def test_a_champion_that_follows_is_searched_anew_where_that_pays_as_following_does() -> None:
    """It fell from .7 to .5: at what following costs, 2 CPU-seconds a window for a gain of .1, that is 4 CPU-seconds a
    window. It may regain them for five windows: 7 after one search that came to nothing. Where nobody knows what
    following brings, it is tried as ever, and what the user says holds alone."""
    spec, history = PerformancePolicy(ladder=("research",)), weeks([GOOD, GOOD, *[AWFUL] * 3])
    early, pays = end_of(0) - timedelta(days=90), Upkeep(cpu=2.0, gain=0.1)
    tried = [Act(kind="remedy", at=early, remedy=Remedy.RESEARCH, promoted=False, cpu=15.0)]
    assert decide(spec, history, tried, follows=Upkeep(cpu=6.0, gain=0.1)).remedy is Remedy.RESEARCH
    found = decide(spec, history, tried, follows=pays)
    assert (found.remedy, found.severity) == (Remedy.NONE, "degraded")
    assert found.reasons[-1].endswith("CPU-s are worth, and to cost 15: not tried")
    assert decide(spec, history, tried, follows=Upkeep(cpu=2.0)).remedy is Remedy.RESEARCH
    assert decide(spec.model_copy(update={"worth": 1.0}), history, tried, follows=pays).remedy is Remedy.RESEARCH
    dear = spec.model_copy(update={"worth": 0.01})
    assert decide(dear, history, tried, follows=Upkeep(cpu=6.0, gain=0.1)).remedy is Remedy.NONE


def test_a_champion_that_follows_is_searched_anew_once_what_it_has_lost_would_have_paid_for_it() -> None:
    """Four windows at 4 CPU-seconds each for a search of 15, and four more after one that was refused."""
    spec, bad = PerformancePolicy(ladder=("research",)), [GOOD, GOOD, *[AWFUL] * 8]
    early, pays = end_of(0) - timedelta(days=90), Upkeep(cpu=2.0, gain=0.1)
    tried = [Act(kind="remedy", at=early, remedy=Remedy.RESEARCH, promoted=False, cpu=15.0)] * 4
    took_over = Act(kind="promotion", at=early + timedelta(days=1))
    again = [Act(kind="remedy", at=end_of(5), remedy=Remedy.RESEARCH, promoted=False, cpu=15.0), *tried]

    def when(acts: list[Act], first: int) -> list[int]:
        told = {n: decide(spec, weeks(bad[:n]), acts, follows=pays).remedy for n in range(first, len(bad) + 1)}
        return [n for n, remedy in told.items() if remedy is Remedy.RESEARCH]

    assert when([took_over, *tried], 4) == [6, 7, 8, 9, 10]
    assert when([took_over, *again], 7) == [10]


def test_searches_beside_a_former_champion_make_none_less_likely_beside_this_one() -> None:
    failed = [Trial(Remedy.RESEARCH, end_of(week), False, 90.0) for week in range(4)]
    for since, expected in ((end_of(0) - timedelta(days=1), 4.0), (end_of(3), 12.0)):
        assert brings((0.2, 0.3), None, failed, 12.0, Upkeep(1.0, 0.1, since)) == pytest.approx(expected)


def test_acts_are_told_in_any_order() -> None:
    """Of twenty searches the newest twelve count, which cost less."""
    costs = [1e4] * 8 + [15.0] * 12
    tried = [
        Act(kind="remedy", at=end_of(number - 30), remedy=Remedy.RESEARCH, promoted=False, cpu=cpu)
        for number, cpu in enumerate(costs)
    ]
    acts = [*tried, Act(kind="promotion", at=end_of(-5))]
    spec, history = PerformancePolicy(ladder=("fine_tune", "research"), worth=1.0), weeks([GOOD, GOOD, *[AWFUL] * 10])
    found = decide(spec, history, acts)
    assert "research (15 CPU-s" in " ".join(found.reasons)
    assert decide(spec, history, acts[::-1]) == found
