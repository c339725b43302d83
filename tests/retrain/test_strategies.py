"""The contract of strategies, de-duplication, and early stopping."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from registry.errors import TaskError
from retrain.search.portfolio import portfolio
from retrain.search.pruning import halving, rungs
from retrain.search.space import SearchSpace
from retrain.search.strategies import ATTEMPTS, ORIGIN, SKIPPED, STRATEGIES, Strategy, propose, strategy_named

SPACE = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def drawn(strategy: Strategy, count: int, seed: int = 0) -> list[str]:
    study, keys = optuna.create_study(sampler=strategy.sampler(seed)), []
    for _ in range(count):
        trial, candidate = propose(study, SPACE, keys)
        study.tell(trial, candidate.number("dropout"))
        keys.append(candidate.key)
    return keys


@every_strategy
def test_draws_new_candidates_of_the_space(strategy: Strategy) -> None:
    keys = drawn(strategy, 25)
    assert len(set(keys)) == 25


@every_strategy
def test_is_the_same_by_seed(strategy: Strategy) -> None:
    assert drawn(strategy, 15, seed=3) == drawn(strategy, 15, seed=3)
    assert drawn(strategy, 15, seed=3) != drawn(strategy, 15, seed=4)


@every_strategy
def test_takes_the_queue_first(strategy: Strategy) -> None:
    study, queue = optuna.create_study(sampler=strategy.sampler(0)), portfolio(SPACE)
    for candidate in queue:
        study.enqueue_trial(SPACE.params(candidate), user_attrs={ORIGIN: "portfolio"})
    assert [propose(study, SPACE, ())[1] for _ in queue] == queue


@every_strategy
def test_passes_over_what_was_tried_but_not_for_ever(strategy: Strategy) -> None:
    class Everything:
        def __contains__(self, key: object) -> bool:
            return True

    study = optuna.create_study(sampler=strategy.sampler(0))
    trial, _ = propose(study, SPACE, Everything())  # type: ignore[arg-type]
    assert trial.number == ATTEMPTS
    assert all(one.user_attrs[SKIPPED] == "duplicate" for one in study.trials[:ATTEMPTS])


def test_tpe_finds_what_random_does_not() -> None:
    best = {}
    for strategy in STRATEGIES:
        values = []
        for seed in range(3):
            study, keys = optuna.create_study(sampler=strategy.sampler(seed)), []
            for _ in range(50):
                trial, candidate = propose(study, SPACE, keys)
                keys.append(candidate.key)
                study.tell(trial, abs(np.log10(candidate.number("weight_decay")) + 3) + candidate.number("dropout"))
            values.append(study.best_value)
        best[strategy.name] = np.mean(values)
    assert best["tpe"] < best["random"]


def test_names_are_known() -> None:
    assert [strategy_named(one.name) for one in STRATEGIES] == list(STRATEGIES)
    with pytest.raises(TaskError, match=r"unknown strategy 'tpee'.*did you mean 'tpe'"):
        strategy_named("tpee")


def test_halving_stops_the_weak_and_spares_most_epochs() -> None:
    """Curves that keep their order: the best must survive, at a third of the epochs or less."""
    study = optuna.create_study(direction="maximize", pruner=halving(1))
    qualities = np.random.default_rng(0).permutation(60) / 60
    epochs = 0
    for quality in qualities:
        trial = study.ask()
        for epoch in range(1, 28):
            epochs += 1
            if epoch in rungs(1, 27):
                trial.report(quality - 1 / epoch, epoch)
                if trial.should_prune():
                    break
        study.tell(trial, quality)
    assert study.best_value == pytest.approx(qualities.max())
    assert epochs < 60 * 27 / 3
