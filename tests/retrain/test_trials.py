"""What is said of a search's trials: the random reference, the front, the best so far, and the pictures of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from registry.metrics import metrics_for
from registry.task import Objective
from retrain import search_figures
from retrain.trials import (
    FIRST,
    LEAST_DRAWS,
    Importances,
    Searched,
    Tried,
    best_so_far,
    expected_best,
    front,
    random_draws,
    why_no_draws,
)

AUC, LOSS = (metrics_for("binary")[name] for name in ("auc", "log_loss"))
SHARES = (("mlp.depth", 0.6), ("adamw_rate", 0.3), ("family", 0.1))


def made(count: int = 40, strategy: str = "tpe") -> Searched:
    """A search of so many trials: eight defaults, then samples, a third of them stopped early, one far off."""
    rng = np.random.default_rng(0)
    scores = 0.7 + 0.1 * (1 - np.exp(-np.arange(count) / 10)) - rng.exponential(0.02, count)
    scores[count // 2] = 0.1
    tried = tuple(
        Tried(
            number=2 * n,  # repeated candidates take numbers too
            score=float(scores[n]),
            origin="portfolio" if n < 8 else "sampled",
            complete=n % 3 != 1,
            chosen=n in (0, 9),
            cpu=1.0 + n % 4,
            parameters=int(10 ** rng.uniform(3, 6)),
            latency_ms=float(rng.uniform(0.1, 0.9)),
        )
        for n in range(count)
    )
    return Searched(
        strategy, ("mlp",), 2, tried, diverged=1, wall=50.0, busy=95.0, architectures=20, novel=12, validation=0.81,
        importances=Importances(SHARES, 40, 5),
    )  # fmt: skip


@pytest.mark.parametrize("better", [True, False])
def test_the_expected_best_is_the_mean_over_all_draws(better: bool) -> None:
    """Every possible draw with replacement, counted out."""
    scores = np.array([0.3, 0.9, 0.5, 0.5])
    pick = max if better else min
    for k in (1, 2, 3):
        counted = np.mean([pick(draw) for draw in product(scores, repeat=k)])
        (found,) = expected_best(scores, (k,), greater_is_better=better)
        assert found == pytest.approx(counted)
    assert expected_best(scores, (500,), greater_is_better=better)[0] == pytest.approx(pick(scores))


def test_which_trials_stand_for_random_ones() -> None:
    everything, first = random_draws(made(40, "random")), random_draws(made(40))
    assert everything is not None
    assert (len(everything.scores), everything.which) == (32, "all 32 random trials")
    assert first is not None
    assert len(first.scores) == FIRST
    assert first.scores.tolist() == [one.score for one in made().ordered[8 : 8 + FIRST]]
    assert random_draws(made(8 + LEAST_DRAWS - 1)) is None


def test_screened_draws_stand_for_no_random_search() -> None:
    """They have the scores of a first rung, and the best of them others of a whole training."""
    plain = made(40, "random")
    screened = replace(plain, tried=(*plain.tried, Tried(99, 0.9, "portfolio", again=True)))
    assert random_draws(plain) is not None
    assert random_draws(screened) is None
    assert "only the best of them trained to the end" in why_no_draws(screened)
    assert "too few random trials" in why_no_draws(made(8))
    labels = search_figures.history(screened, AUC).axes[0].get_legend_handles_labels()[1]
    assert not [label for label in labels if "random" in label]


def test_the_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(1)
    scores, costs = rng.integers(0, 8, 60) / 8, rng.integers(1, 9, 60).astype(float)
    for better in (True, False):
        gains = scores if better else -scores
        found = front(scores, costs, greater_is_better=better)
        kept = {(gains[place], costs[place]) for place in found}
        beaten = [
            any((g >= gain and c <= cost) and (g > gain or c < cost) for g, c in zip(gains, costs, strict=True))
            for gain, cost in zip(gains, costs, strict=True)
        ]
        assert kept == {(g, c) for g, c, worse in zip(gains, costs, beaten, strict=True) if not worse}
        assert (np.diff(costs[found]) > 0).all()


def test_the_best_so_far_is_of_complete_trials_if_there_are_any() -> None:
    some = [Tried(0, 0.9, complete=False), Tried(1, 0.5), Tried(2, 0.4), Tried(3, 0.6)]
    best = best_so_far(some, greater_is_better=True)
    assert np.isnan(best[0])
    assert best[1:].tolist() == [0.5, 0.5, 0.6]
    stopped = [replace(one, complete=False) for one in some]
    assert best_so_far(stopped, greater_is_better=False).tolist() == [0.9, 0.5, 0.4, 0.4]


def test_all_pictures_of_a_search_are_written_the_same_each_time(tmp_path: Path) -> None:
    one, again = (search_figures.draw_search(tmp_path / name, made(), AUC) for name in "ab")
    assert [path.stem for path in one] == ["importances", "pareto", "search"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]


def test_the_history_shows_trials_beside_random_search() -> None:
    left, right = search_figures.history(made(), AUC).axes
    assert left.get_ylabel() == "auc on validation (higher is better)"
    assert right.get_xlabel() == "CPU-seconds of the trials so far"
    labels = left.get_legend_handles_labels()[1]
    assert {"best so far", "random search, expected best", "stopped early", "worse than the axis shows"} <= set(labels)
    best = next(line for line in left.lines if line.get_label() == "best so far")
    assert np.nanmax(best.get_ydata()) == max(one.score for one in made().tried if one.complete)
    few = search_figures.history(made(LEAST_DRAWS), AUC).axes[0].get_legend_handles_labels()[1]
    assert not [label for label in few if "random" in label]


def test_the_front_and_the_members_are_marked() -> None:
    searched = made()
    axes = search_figures.pareto(searched, AUC).axes
    assert [one.get_xlabel().split(" (")[0] for one in axes] == ["parameters", "milliseconds for one row, by torch"]
    rings = next(one for one in axes[0].collections if one.get_label() == "in the model")
    assert {tuple(point) for point in rings.get_offsets()} == {(one.parameters, one.score) for one in searched.chosen}
    bare = replace(searched, tried=tuple(replace(one, latency_ms=None) for one in searched.tried))
    assert search_figures.pareto(bare, LOSS).axes[1].get_xlabel() == "CPU-seconds (log scale)"


def test_a_stopped_trial_that_reached_more_is_in_the_picture_and_not_beyond_it() -> None:
    complete = tuple(Tried(n, 0.7 + n / 100, cpu=1.0, parameters=9 + n) for n in range(6))
    searched = Searched("tpe", ("mlp",), 1, (*complete, Tried(6, 0.9, complete=False, cpu=1.0, parameters=20)))
    for figure in (search_figures.history(searched, AUC), search_figures.pareto(searched, AUC)):
        axes = figure.axes[0]
        assert axes.get_ylim()[1] > 0.9
        labels = axes.get_legend_handles_labels()[1]
        assert "stopped early" in labels
        assert "worse than the axis shows" not in labels
    best = next(line for line in search_figures.history(searched, AUC).axes[0].lines if line.get_label())
    assert best.get_ydata()[-1] == 0.75


def test_each_origin_has_one_line_in_the_legend() -> None:
    searched = made()
    labels = search_figures.history(replace(searched, tried=(*searched.tried, Tried(99, 0.7, "old"))), AUC).axes[0]
    assert labels.get_legend_handles_labels()[1].count("sampled") == 1


@pytest.mark.parametrize("objectives", [("quality",), ("quality", "latency", "size")])
def test_networks_that_are_too_slow_are_on_no_front(objectives: tuple[Objective, ...]) -> None:
    quick = [Tried(0, 0.7, parameters=10, latency_ms=0.2), Tried(1, 0.8, parameters=20, latency_ms=0.4)]
    slow = Tried(2, 0.9, parameters=30, latency_ms=0.9, allowed=False)
    searched = Searched("nsga3", ("mlp",), 1, (*quick, slow), objectives=objectives)
    for axes in search_figures.pareto(searched, AUC).axes:
        drawn = {one.get_label(): one.get_offsets()[:, 1].tolist() for one in axes.collections}
        assert drawn["trial"] == [0.7, 0.8]
        assert drawn["too slow for the model"] == [0.9]
        blue = [one for one in axes.collections if one.get_zorder() == 4]
        assert [one.get_offsets()[:, 1].tolist() for one in blue] == [[0.7, 0.8]]


def test_old_results_without_costs_and_one_trial_have_fewer_pictures(tmp_path: Path) -> None:
    bare = Searched("tpe", ("mlp",), 1, (Tried(0, 0.5), Tried(1, 0.5)))
    assert [path.stem for path in search_figures.draw_search(tmp_path, bare, AUC)] == ["search"]
    one = replace(bare, tried=(Tried(0, 0.5, cpu=1.0, parameters=9),))
    assert [path.stem for path in search_figures.draw_search(tmp_path, one, LOSS)] == ["search"]
    assert search_figures.draw_search(tmp_path, replace(bare, tried=()), AUC) == []


def test_the_shares_are_bars_largest_first() -> None:
    (axes,) = search_figures.importances(made().importances).axes
    assert [patch.get_width() for patch in axes.patches] == [0.6, 0.3, 0.1]
    assert axes.get_title() == "What it took to be among the best 5 of 40 trials"
