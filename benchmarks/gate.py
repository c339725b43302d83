"""The gate against challengers whose true quality is known: wrong promotions under every look, power, roll-backs.

    python -m benchmarks.gate [--simulations 400]

A champion and its challengers score rows whose classes are drawn; every day has a mood that moves truth and scores of
all alike, as weather does, so that rows of a day depend on one another. As in service: a ladder of three challengers
meets the champion on the same first rows; the one that is held and gained most is looked at again whenever the labelled
rows have grown by a quarter, at most `LOOKS` times; a promoted one is watched for its bake time on the rows that
follow. A challenger is equal (as good as the champion in expectation), better by two points of AUC, or sabotaged (its
scores have nothing to do with the truth: labels permuted in its training).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd

from flows.bake import LOOKS as BAKES
from flows.improve import with_error
from flows.second_look import GROWTH, LOOKS
from registry.metrics import binary_auc
from registry.task import FileSource, TaskSpec
from retrain.contest import Contest, paired
from retrain.paired import Interval, blocks_of

DAY, FIRST_DAYS, DAYS = 100, 12, 60
RUNGS = 3
NOISE = 1.6
MOOD = 0.7
TASK = TaskSpec(name="gate", source=FileSource(path="none"), target="y", time="when", problem="binary", metric="auc")
BETTER = 0.02


@dataclass(frozen=True)
class World:
    """Labels (n,), the champion's scores and the challengers' (n,) in time order."""

    labels: np.ndarray
    old: np.ndarray
    new: tuple[np.ndarray, ...]

    def gain(self, challenger: int, rows: slice, error: float) -> Interval:
        """What the gate measures on these rows, with this error probability."""
        labels, old, new = self.labels[rows], self.old[rows], self.new[challenger][rows]
        day, row = np.divmod(
            np.arange(rows.start or 0, rows.stop), DAY
        )  # whole days: a mood lasts from one to the next
        times = (
            np.datetime64("2024-01-01", "us") + day * np.timedelta64(1, "D") + row * np.timedelta64(1440 // DAY, "m")
        )
        both = np.zeros(len(labels), dtype=bool)
        contest = Contest(
            task=with_error(TASK, error),
            frame=pd.DataFrame(),
            labels=labels,
            old=_probabilities(old),
            new=_probabilities(new),
            old_covered=both,
            new_covered=both,
            blocks=blocks_of(times, len(labels)),
        )
        return paired(contest).gain


def _probabilities(scores: np.ndarray) -> np.ndarray:
    positive = 1 / (1 + np.exp(-scores))
    return np.stack([1 - positive, positive], axis=1)


def draw(seed: int, noises: tuple[float, ...]) -> World:
    """A world whose challengers see the signal through so much noise; infinite: not at all."""
    rng, n = np.random.default_rng(seed), DAY * DAYS
    mood = np.repeat(rng.normal(0, MOOD, DAYS), DAY)
    signal = rng.normal(0, 1, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-2 * signal - 2 * mood))).astype(np.int64)
    told = signal + 0.5 * mood

    def scores(noise: float) -> np.ndarray:
        own = np.repeat(rng.normal(0, 0.3, DAYS), DAY) + rng.normal(0, 1, n)
        return own if np.isinf(noise) else told + noise * own

    return World(labels, scores(NOISE), tuple(scores(noise) for noise in noises))


def noise_for(gain: float) -> float:
    """The noise under which a challenger is better by so much AUC, from one long world."""
    rows = [draw(seed, (NOISE,)) for seed in range(20)]
    base = fmean(binary_auc(one.labels, one.old) for one in rows)

    def value(noise: float) -> float:
        worlds = [draw(seed, (noise,)) for seed in range(20)]
        return fmean(binary_auc(one.labels, one.new[0]) for one in worlds) - base

    low, high = 0.2, NOISE
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) > gain else (low, middle)
    return (low + high) / 2


def improvement(world: World) -> tuple[int, str] | None:
    """The challenger that is promoted and whether by the gate or a later look; None where none ever is."""
    error, first = 1 - TASK.gate.confidence, slice(0, FIRST_DAYS * DAY)
    held: list[tuple[float, int]] = []
    for left, challenger in zip(range(RUNGS, 0, -1), range(RUNGS), strict=True):
        gain = world.gain(challenger, first, error / left)
        if gain.low > 0:
            return challenger, "gate"
        if gain.high >= 0:
            held.append((gain.value, challenger))
        error -= error / left
    if not held:
        return None
    challenger, rows, looks = max(held)[1], FIRST_DAYS * DAY, 0
    for day in range(FIRST_DAYS + 1, DAYS + 1):
        if day * DAY < GROWTH * rows or looks == LOOKS:
            continue
        rows, looks = day * DAY, looks + 1
        gain = world.gain(challenger, slice(0, rows), (1 - TASK.gate.confidence) / LOOKS)
        if gain.low > 0:
            return challenger, "look"
        if gain.high < 0:
            return None
    return None


def baked(world: World) -> int | None:
    """The day on which a promoted challenger is rolled back; None where it stays."""
    looks, rows = 0, 0
    for day in range(2, DAYS + 1):
        if day * DAY < max(GROWTH * rows, TASK.gate.min_rows) or looks == BAKES:
            continue
        rows, looks = day * DAY, looks + 1
        if world.gain(0, slice(0, rows), (1 - TASK.gate.confidence) / BAKES).high < 0:
            return day
    return None


def main() -> None:
    """The three kinds of challenger."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--simulations", type=int, default=400)
    n = asked.parse_args().simulations
    stated = 2 * (1 - TASK.gate.confidence)
    better = noise_for(BETTER)
    for name, noise in (("equal", NOISE), (f"better by {BETTER:g} AUC", better)):
        found = [improvement(draw(1_000 + seed, (noise,) * RUNGS)) for seed in range(n)]
        gate, look = (sum(one is not None and one[1] == by for one in found) for by in ("gate", "look"))
        print(
            f"{name:<20} promoted {(gate + look) / n:.3f} (gate {gate / n:.3f}, later looks {look / n:.3f}) "
            f"of {n}; stated for equals: at most {stated:.2f}"
        )
    for name, noise in (("equal", NOISE), ("sabotaged", np.inf)):
        days = [baked(draw(5_000 + seed, (noise,))) for seed in range(n)]
        back = [day for day in days if day is not None]
        after = f", after {fmean(back):.1f} days ({max(back)} at most)" if back else ""
        print(f"{name:<20} rolled back {len(back) / n:.3f} of {n}{after}; stated for equals: at most {stated / 2:.2f}")


if __name__ == "__main__":
    main()
