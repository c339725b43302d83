"""Adaptive conformal inference holds its promise when rows change, and leaves a radius alone that holds it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from monitor.adaptive import BLOCK, LEAST_ROWS, MATERIAL, RECENT, follow, nonconformity
from monitor.views import reference_side
from registry.bundle import ModelBundle
from registry.metrics import Array, Problem

COVERAGE = 0.9
BundleOf = Callable[[Problem], ModelBundle]


def covered(scores: Array, radius: float) -> float:
    """The share of rows inside when each block is covered by the radius that those before it have led to."""
    inside = []
    for start in range(0, len(scores), BLOCK):
        now = follow(scores[:start], coverage=COVERAGE, radius=radius) or radius
        inside.append((scores[start : start + BLOCK] <= now).mean())
    return float(np.mean(inside))


@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_kept_while_rows_become_harder_and_easier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spread = np.concatenate([np.ones(1_000), np.linspace(1, 3, 1_000), np.full(1_000, 3.0), np.full(1_000, 0.7)])
    scores = np.abs(rng.normal(size=4_000)) * spread
    fixed = float((scores[1_000:3_000] <= 1.645).mean())
    assert fixed < 0.7
    assert covered(scores[:3_000], 1.645) == pytest.approx(COVERAGE, abs=0.03)
    assert covered(scores, 1.645) == pytest.approx(COVERAGE, abs=0.03)


def test_a_radius_that_holds_its_promise_is_hardly_moved() -> None:
    moved = []
    for seed in range(30):
        scores = np.abs(np.random.default_rng(seed).normal(size=2_000))
        moved.append(follow(scores, coverage=COVERAGE, radius=1.645) / 1.645 - 1)  # type: ignore[operator]
    assert abs(np.mean(moved)) < MATERIAL
    assert np.std(moved) < 0.12


def test_few_rows_say_nothing_and_the_newest_say_most() -> None:
    rng = np.random.default_rng(0)
    assert follow(rng.random(LEAST_ROWS - 1), coverage=COVERAGE, radius=1.0) is None
    old, new = 9 * rng.random(2_000), rng.random(RECENT)
    found = follow(np.concatenate([old, new]), coverage=COVERAGE, radius=8.0)
    assert found is not None
    assert found < 1.0


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_scores_are_those_of_sets_and_intervals(bundle_of: BundleOf, problem: Problem) -> None:
    """A row is inside of its set or interval just when its score is at most the radius; but for the likeliest class,
    which is in every set."""
    bundle: ModelBundle = bundle_of(problem)
    side, radius = reference_side(bundle), bundle.manifest.conformal_radius
    scores, outputs = nonconformity(side), side.scores.at(radius)
    if outputs.interval is not None:
        inside = (outputs.interval[:, 0] <= side.labels) & (side.labels <= outputs.interval[:, 1])
    else:
        assert outputs.sets is not None
        inside = outputs.sets[np.arange(len(scores)), side.labels.astype(int)]
        inside &= scores <= radius + 1e-5
    np.testing.assert_array_equal(inside, scores <= radius)
    wider = side.scores.at(2 * radius)
    if wider.interval is not None and outputs.interval is not None:
        np.testing.assert_allclose(np.diff(wider.interval), 2 * np.diff(outputs.interval), rtol=1e-4)
    elif wider.sets is not None and outputs.sets is not None:
        assert (wider.sets | ~outputs.sets).all()
