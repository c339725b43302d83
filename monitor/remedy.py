"""Which remedies to try, in which order: the cheapest way to a promoted challenger, in expectation.

Trying a rung of cost c that is promoted with probability p before a way of cost C costs c + (1 - p) C, which is less
than C itself if c < p C. From the top rung down, each is taken in where that holds. Probability and cost are learnt
from what each rung has achieved on this task before (the ledger). Improvements of which nothing came do not count:
there may have been nothing to gain, and they say nothing about the order of the rungs. A few imagined trials stand in
for what is not known yet, and say that recalibration alone is likely to help where the classes' shares have moved or an
old world is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from registry.decisions import Diagnosis, Remedy

USUAL_COST = {
    Remedy.RECALIBRATE: 8.0,
    Remedy.FOLLOW: 12.0,
    Remedy.FINE_TUNE: 20.0,
    Remedy.RESEARCH: 90.0,
    Remedy.SEARCH: 400.0,
}
"""CPU-seconds of a rung that was never tried here, in proportion to those that were."""

IMAGINED = 2.0
"""So many trials are imagined of each rung."""
LIKELY, UNLIKELY, EVEN = 0.6, 0.15, 0.5
"""Shares of the imagined trials that were promoted."""
NEWEST = 12
"""Trials of a rung that count."""
HORIZON = 16
"""Windows for which a search serves a champion that follows at most: by then both have learnt other rows."""
ANEW = {Remedy.RESEARCH, Remedy.SEARCH}
"""What is tried beside a champion that follows."""
LEARNT = {Remedy.RECALIBRATE, Remedy.FOLLOW, Remedy.FINE_TUNE}
"""What a champion that follows does for itself."""


@dataclass(frozen=True)
class Trial:
    """A remedy tried before: in which improvement (its moment), whether its challenger was promoted, and its cost in
    CPU-seconds."""

    remedy: Remedy
    at: datetime
    promoted: bool
    cpu: float


@dataclass(frozen=True)
class Upkeep:
    """What it costs, in CPU-seconds a window, that a champion follows, the gain in the metric that it was promoted for
    (None where that is not told), and the moment when it took over."""

    cpu: float = 0.0
    gain: float | None = None
    since: datetime = datetime.min


@dataclass(frozen=True)
class Way:
    """Rungs in the order to try them, what that costs in expectation (CPU-seconds), and why in words."""

    rungs: tuple[Remedy, ...]
    cost: float
    why: str


def climb(ladder: Sequence[Remedy], trials: Sequence[Trial], diagnosis: Diagnosis | None = None) -> Way:
    """The rungs worth trying, by trials in time order.

    >>> climb([Remedy.FINE_TUNE, Remedy.RESEARCH], []).rungs
    (<Remedy.FINE_TUNE: 'fine_tune'>, <Remedy.RESEARCH: 'research'>)
    >>> failed = [Trial(Remedy.FINE_TUNE, datetime(2024, 1, day), False, 20.0) for day in (1, 2, 3, 4, 5, 6)]
    >>> helped = [Trial(Remedy.RESEARCH, one.at, True, 90.0) for one in failed]
    >>> climb([Remedy.FINE_TUNE, Remedy.RESEARCH], failed + helped).rungs
    (<Remedy.RESEARCH: 'research'>,)
    """
    mended = {one.at for one in trials if one.promoted}
    costs = {rung: _cost(rung, trials) for rung in ladder}
    chances = {rung: _chance(rung, [one for one in trials if one.at in mended], diagnosis) for rung in ladder}
    way, expected = [ladder[-1]], costs[ladder[-1]]
    for rung in reversed(ladder[:-1]):
        if costs[rung] < chances[rung] * expected:
            way.insert(0, rung)
            expected = costs[rung] + (1 - chances[rung]) * expected
    told = ", then ".join(f"{rung} ({costs[rung]:.0f} CPU-s, promoted in {chances[rung]:.0%})" for rung in way)
    return Way(tuple(way), expected, f"remedies expected to be cheapest: {told}")


def brings(
    loss: tuple[float, float],
    worth: float | None,
    trials: Sequence[Trial],
    lasting: float,
    follows: Upkeep | None = None,
    waited: int = 0,
) -> float:
    """What an improvement is expected to bring, in CPU-seconds, of a metric's `loss` and the same as a share of it;
    infinite where nobody says what that is worth.

    A user may say it, and then that holds: `worth` CPU-seconds a window and percent. Else a champion that follows says
    it: no more is paid for what it has lost than following pays for what that brings. As nobody knows how long it will
    stay as it is, what it has lost counts, too, of the `waited` windows since it fell, or since a search was tried last
    if that is later: a search is tried at the latest when this would have paid for it, as skis are bought when as much
    was paid for rent (Karlin, Manasse, Rudolph & Sleator 1988, "Competitive snoopy caching").

    `trials` in time order. A champion that follows answers for the searches alone that were tried since it took over.

    >>> brings((0.035, 0.05), 10.0, [], 8.0)
    200.0
    >>> brings((0.1, 0.125), None, [], 8.0, Upkeep(cpu=2.0, gain=0.05))
    16.0
    >>> brings((0.1, 0.125), None, [], 8.0, Upkeep(cpu=2.0, gain=0.05), waited=10)
    40.0
    """
    if worth is not None:
        made, helped = {one.at for one in trials}, {one.at for one in trials if one.promoted}
        return 100 * max(0.0, loss[1]) * worth * lasting * _share(len(helped), len(made))
    if follows is None or not follows.cpu or not follows.gain or follows.gain < 0:
        return float(np.inf)
    anew = [one.promoted for one in trials if one.remedy in ANEW and one.at > follows.since][-NEWEST:]
    windows = max(min(lasting, HORIZON) * _share(sum(anew), len(anew)), waited)
    return max(0.0, loss[0]) / follows.gain * follows.cpu * windows


def _share(promoted: int, tried: int, share: float = EVEN) -> float:
    """How likely the next one is promoted: the posterior's mean."""
    return (promoted + IMAGINED * share) / (tried + IMAGINED)


def _cost(rung: Remedy, trials: Sequence[Trial]) -> float:
    """The mean cost of a rung's newest trials; of an untried one the usual cost, in proportion to what others took."""
    if mine := [one.cpu for one in trials if one.remedy is rung][-NEWEST:]:
        return sum(mine) / len(mine)
    others = [one for one in trials if one.remedy in USUAL_COST]
    usual = sum(USUAL_COST[one.remedy] for one in others)
    pace = sum(one.cpu for one in others) / usual if usual else 1.0
    return USUAL_COST[rung] * pace


def _chance(rung: Remedy, trials: Sequence[Trial], diagnosis: Diagnosis | None) -> float:
    mine = [one.promoted for one in trials if one.remedy is rung][-NEWEST:]
    share = EVEN
    if rung is Remedy.RECALIBRATE:
        back = diagnosis is not None and (diagnosis.kind == "prior shift" or diagnosis.recurs is not None)
        share = LIKELY if back else UNLIKELY
    return _share(sum(mine), len(mine), share)
