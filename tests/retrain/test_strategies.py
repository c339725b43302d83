"""The contract of strategies, and de-duplication."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna
import pytest

from registry.errors import TaskError
from retrain.families.base import Candidate
from retrain.search.asking import ATTEMPTS, ORIGIN, PARENT, SKIPPED, propose
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import Strategy
from retrain.search.strategies.catalogue import STRATEGIES, strategy_named

SPACE = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def drawn(strategy: type[Strategy], count: int, seed: int = 0) -> list[str]:
    study, keys = optuna.create_study(sampler=strategy.sampler(SPACE, seed)), []
    for _ in range(count):
        trial, candidate = propose(study, SPACE, keys)
        study.tell(trial, candidate.number("dropout"))
        keys.append(SPACE.canonical(candidate))
    return keys


@every_strategy
def test_draws_new_candidates_of_the_space(strategy: type[Strategy]) -> None:
    keys = drawn(strategy, 25)
    assert len(set(keys)) == 25


@every_strategy
def test_is_the_same_by_seed(strategy: type[Strategy]) -> None:
    assert drawn(strategy, 15, seed=3) == drawn(strategy, 15, seed=3)
    assert drawn(strategy, 15, seed=3) != drawn(strategy, 15, seed=4)


@every_strategy
def test_takes_the_queue_first(strategy: type[Strategy]) -> None:
    study, queue = optuna.create_study(sampler=strategy.sampler(SPACE, 0)), portfolio(SPACE)
    for candidate in queue:
        study.enqueue_trial(SPACE.params(candidate), user_attrs={ORIGIN: "portfolio"})
    assert [propose(study, SPACE, ())[1] for _ in queue] == queue


@every_strategy
def test_passes_over_what_was_tried_but_not_for_ever(strategy: type[Strategy]) -> None:
    class Everything:
        def __contains__(self, key: object) -> bool:
            return True

    study = optuna.create_study(sampler=strategy.sampler(SPACE, 0))
    trial, _ = propose(study, SPACE, Everything())  # type: ignore[arg-type]
    assert trial.number == ATTEMPTS
    assert all(one.user_attrs[SKIPPED] == "duplicate" for one in study.trials[:ATTEMPTS])


def quality(candidate: Candidate) -> float:
    """Greater is better; a dimension of training and some of the network matter."""
    rate = abs(np.log10(candidate.number("weight_decay")) + 3)
    return -rate - candidate.number("dropout") - (candidate.text("activation") != "silu") - candidate.count("depth") / 4


LEARNING = [one for one in STRATEGIES if one.name not in ("random", "screening")]


@pytest.mark.parametrize("strategy", LEARNING, ids=lambda strategy: strategy.name)
def test_finds_what_random_search_does_not(strategy: type[Strategy]) -> None:
    """The mean of the last trials is what learning is about; the best one is a matter of luck."""
    later = {}
    for one in (strategy, strategy_named("random")):
        values = []
        for seed in range(2):
            study, keys = optuna.create_study(direction="maximize", sampler=one.sampler(SPACE, seed)), []
            for _ in range(100):
                trial, candidate = propose(study, SPACE, keys)
                keys.append(SPACE.canonical(candidate))
                study.tell(trial, quality(candidate))
            values.append(np.median([trial.value for trial in study.trials[-25:] if trial.value is not None]))
        later[one.name] = np.mean(values)
    assert later[strategy.name] > later["random"]


@dataclass(frozen=True)
class Measured(SearchSpace):
    """A space in which the depth is a training-free score, unknown for one activation."""

    def proxies(self, candidate: Candidate) -> np.ndarray:
        known = candidate.text("activation") != "elu"
        return np.asarray([float(candidate.count("depth")) if known else np.nan])


@pytest.mark.parametrize("name", ["screening", "auto"])
def test_screens_without_training(name: str) -> None:
    space = Measured.of(("mlp",), 2_000, 9, "binary")
    study = optuna.create_study(sampler=strategy_named(name).sampler(space, 0))
    drawn = [space.suggest(study.ask()) for _ in range(8)]
    assert {one.count("depth") for one in drawn} == {5}
    assert "elu" not in {one.text("activation") for one in drawn}


def test_progressive_search_opens_one_decision_after_another() -> None:
    """The first candidates differ in one choice alone, the next in two."""
    study, keys = optuna.create_study(direction="maximize", sampler=strategy_named("pnas").sampler(SPACE, 0)), []
    first: list[dict[str, object]] = []
    for _ in range(2):
        trial, candidate = propose(study, SPACE, keys)
        keys.append(SPACE.canonical(candidate))
        study.tell(trial, quality(candidate))
        first.append(SPACE.params(candidate))
    assert first[0]["family"] != first[1]["family"]
    shared = first[0].keys() & first[1].keys() - {"family"}
    assert {label: first[0][label] for label in shared} == {label: first[1][label] for label in shared}


def test_evolution_names_the_parent_of_a_child() -> None:
    study, keys = optuna.create_study(direction="maximize", sampler=strategy_named("evolution").sampler(SPACE, 0)), []
    for _ in range(24):
        trial, candidate = propose(study, SPACE, keys)
        keys.append(SPACE.canonical(candidate))
        study.tell(trial, quality(candidate))
    parents = [one.user_attrs.get(PARENT) for one in study.trials]
    assert parents[:20] == [None] * 20
    for child, parent in enumerate(parents[20:], start=20):
        own, other = study.trials[child].params, study.trials[parent].params
        assert sum(own[label] != other[label] for label in own.keys() & other.keys()) == 1


@every_strategy
def test_goes_on_where_another_process_stopped(strategy: type[Strategy]) -> None:
    """A sampler that comes to a study of others learns from all of it."""
    study, keys = optuna.create_study(direction="maximize", sampler=strategy.sampler(SPACE, 0)), []
    for number in range(60):
        if number == 30:
            study.sampler = strategy.sampler(SPACE, 1)
        trial, candidate = propose(study, SPACE, keys)
        keys.append(SPACE.canonical(candidate))
        if number % 7 == 3:
            trial.report(quality(candidate), 1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number % 7 == 5:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, quality(candidate))
    assert len(set(keys)) == 60


def test_names_are_known() -> None:
    assert [strategy_named(one.name) for one in STRATEGIES] == list(STRATEGIES)
    with pytest.raises(TaskError, match=r"unknown strategy 'tpee'.*did you mean 'tpe'"):
        strategy_named("tpee")
