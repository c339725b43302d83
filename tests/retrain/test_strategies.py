"""The contract of strategies, and de-duplication."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import optuna
import pytest
import torch

from registry.choices import Preference
from registry.errors import TaskError
from retrain.batches import Rows
from retrain.families.base import Candidate
from retrain.families.parameters import Option, Real, Whole
from retrain.families.supernet import SHARED
from retrain.search.asking import ATTEMPTS, ORIGIN, PARENT, SKIPPED, propose
from retrain.search.inputs import Layout
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.strategies.auto import AROUND
from retrain.search.strategies.bananas import Networks
from retrain.search.strategies.base import Seen, Strategy
from retrain.search.strategies.catalogue import STRATEGIES, strategy_named
from retrain.search.strategies.darts import ONE_SKIP_IN, Differentiable
from retrain.search.strategies.guided import Guided
from retrain.search.strategies.one_shot import OneShot
from retrain.search.strategies.parzen import Parzen
from retrain.search.strategies.reinforce import RATE, Reinforce
from retrain.search.strategies.screening import FEWEST, Screen, Screening
from retrain.search.strategies.tpe import Tpe
from retrain.search.strategies.weight_sharing import Shared, WeightSharing
from retrain.search.workshop import Workshop

COLUMNS = 6


def rows_of_two_classes(_: str) -> Rows:
    generator = torch.Generator().manual_seed(0)
    numeric = torch.randn(400, COLUMNS, generator=generator)
    return Rows(numeric, torch.zeros(400, 0, dtype=torch.int64), (numeric[:, 0] > 0).long())


def a_workshop(seconds: float) -> Workshop:
    layout = Layout(numeric=tuple(f"x{place}" for place in range(COLUMNS)))
    return Workshop("binary", layout, 2, rows_of_two_classes, lambda: seconds)


SPACE = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
CELLS = replace(SearchSpace.of(("cell",), 2_000, 9, "binary"), workshop=a_workshop(0.3))


def shared_space(family: str, seconds: float) -> SearchSpace:
    return replace(SearchSpace.of((family,), 2_000, 9, "binary"), workshop=a_workshop(seconds))


def space_of(strategy: type[Strategy]) -> SearchSpace:
    return CELLS if issubclass(strategy, WeightSharing) else SPACE


BY_SEED = [one for one in STRATEGIES if not issubclass(one, WeightSharing)]
"""How far a supernet gets is a matter of time."""
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)


def drawn(strategy: type[Strategy], count: int, seed: int = 0) -> list[str]:
    space = space_of(strategy)
    study, keys = optuna.create_study(sampler=strategy.sampler(space, seed)), []
    for _ in range(count):
        trial, candidate = propose(study, space, keys)
        study.tell(trial, candidate.number("dropout"))
        keys.append(space.canonical(candidate))
    return keys


@every_strategy
def test_draws_new_candidates_of_the_space(strategy: type[Strategy]) -> None:
    keys = drawn(strategy, 25)
    assert len(set(keys)) == 25


@pytest.mark.parametrize("strategy", BY_SEED, ids=lambda strategy: strategy.name)
def test_is_the_same_by_seed(strategy: type[Strategy]) -> None:
    assert drawn(strategy, 15, seed=3) == drawn(strategy, 15, seed=3)
    assert drawn(strategy, 15, seed=3) != drawn(strategy, 15, seed=4)


@every_strategy
def test_takes_the_queue_first(strategy: type[Strategy]) -> None:
    space = space_of(strategy)
    study, queue = optuna.create_study(sampler=strategy.sampler(space, 0)), portfolio(space)
    for candidate in queue:
        study.enqueue_trial(space.params(candidate), user_attrs={ORIGIN: "portfolio"})
    assert [propose(study, space, ())[1] for _ in queue] == queue


@every_strategy
def test_passes_over_what_was_tried_but_not_for_ever(strategy: type[Strategy]) -> None:
    class Everything:
        def __contains__(self, key: object) -> bool:
            return True

    space = space_of(strategy)
    study = optuna.create_study(sampler=strategy.sampler(space, 0))
    trial, _ = propose(study, space, Everything())  # type: ignore[arg-type]
    assert trial.number == ATTEMPTS
    assert all(one.user_attrs[SKIPPED] == "duplicate" for one in study.trials[:ATTEMPTS])


def quality(candidate: Candidate) -> float:
    """Greater is better; a dimension of training and some of the network matter."""
    rate = abs(np.log10(candidate.number("weight_decay")) + 3)
    return -rate - candidate.number("dropout") - (candidate.text("activation") != "silu") - candidate.count("depth") / 4


LEARNING = [one for one in STRATEGIES if one.name not in ("random", "screening") and not issubclass(one, WeightSharing)]


@pytest.mark.parametrize("strategy", LEARNING, ids=lambda strategy: strategy.name)
def test_finds_what_random_search_does_not(strategy: type[Strategy]) -> None:
    """The mean of the last trials is what learning is about; the best one is a matter of luck. Those that learn from
    their own decisions alone need a hundred of them."""
    count = 50 if issubclass(strategy, (Guided, Tpe)) else 100
    assert later(strategy, count) > later(strategy_named("random"), count)


@cache
def later(strategy: type[Strategy], count: int) -> float:
    """How good the last quarter of so many candidates is, over two seeds."""
    values = []
    for seed in range(2):
        study, keys = optuna.create_study(direction="maximize", sampler=strategy.sampler(SPACE, seed)), []
        for _ in range(count):
            trial, candidate = propose(study, SPACE, keys)
            keys.append(SPACE.canonical(candidate))
            study.tell(trial, quality(candidate))
        values.append(np.median([trial.value for trial in study.trials[-(count // 4) :] if trial.value is not None]))
    return float(np.mean(values))


@dataclass(frozen=True)
class Measured(SearchSpace):
    """A space in which the depth is a training-free score, unknown for one activation."""

    def proxies(self, candidate: Candidate) -> np.ndarray:
        known = candidate.text("activation") != "elu"
        return np.asarray([float(candidate.count("depth")) if known else np.nan])


def test_screens_without_training() -> None:
    space = Measured.of(("mlp",), 2_000, 9, "binary")
    study = optuna.create_study(sampler=strategy_named("screening").sampler(space, 0))
    drawn = [space.suggest(study.ask()) for _ in range(4)]
    depths = [one.count("depth") for one in drawn]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] == 5
    assert depths[-1] >= 4
    assert "elu" not in {one.text("activation") for one in drawn}


@pytest.mark.parametrize("name", ["gp", "auto"])
def test_what_breaks_a_constraint_is_avoided(name: str) -> None:
    """Deep networks are better and too slow: later trials are seldom deep."""
    study = optuna.create_study(direction="maximize", sampler=strategy_named(name).sampler(SPACE, 0))
    deep = []
    for _ in range(45):
        trial, candidate = propose(study, SPACE, ())
        trial.set_constraint("latency_ms", candidate.count("depth") - 2.5)
        deep.append(candidate.count("depth") > 2)
        study.tell(trial, float(candidate.count("depth")))
    assert np.mean(deep[25:]) < np.mean(deep[:10])
    assert np.mean(deep[25:]) < 0.35


class Hurried(Measured):
    """A space without time to look at it."""

    @property
    def seconds_to_screen(self) -> float:
        return 0.0


def test_a_screen_ends_with_its_time() -> None:
    """Few candidates are looked at then, and no more than half of them trained before the next look."""
    space = Hurried.of(("mlp",), 2_000, 9, "binary")
    assert len(Screen.of(space, np.random.default_rng(0)).ranked) == FEWEST
    assert len(Screen.of(Measured.of(("mlp",), 2_000, 9, "binary"), np.random.default_rng(0)).ranked) == space.screened
    screening = Screening(space, np.random.default_rng(0))
    for _ in range(FEWEST):
        screening.ask()
        assert len(screening._ranked) >= FEWEST // 2 - 1
    assert replace(SPACE, workshop=a_workshop(50.0)).seconds_to_screen == pytest.approx(5.0)
    assert SPACE.seconds_to_screen == math.inf


def test_auto_looks_around_the_best_of_the_screen_where_a_search_begins_with_nothing() -> None:
    """The start, then networks that differ from it in one choice; as many as there may be, then the model's."""
    space = Measured.of(("mlp",), 2_000, 9, "binary")
    study, keys = optuna.create_study(sampler=strategy_named("auto").sampler(space, 0)), []
    for _ in range(AROUND + 1):
        trial, candidate = propose(study, space, keys)
        keys.append(space.canonical(candidate))
        study.tell(trial, candidate.number("dropout"))
    start, *near = study.trials
    assert (start.params["mlp.depth"], PARENT in start.user_attrs) == (5, False)
    for one in near:
        assert one.user_attrs[PARENT] == start.number
        assert sum(one.params[label] != start.params[label] for label in one.params.keys() & start.params.keys()) == 1


def test_auto_takes_the_screen_from_the_top_after_a_queue() -> None:
    space = Measured.of(("mlp",), 2_000, 9, "binary")
    study = optuna.create_study(sampler=strategy_named("auto").sampler(space, 0))
    study.enqueue_trial(space.params(portfolio(space)[0]), user_attrs={ORIGIN: "portfolio"})
    study.tell(propose(study, space, ())[0], 0.0)
    depths = [propose(study, space, ())[1].count("depth") for _ in range(4)]
    assert depths == sorted(depths, reverse=True)
    assert depths[-1] >= 4


SHARING = [one for one in STRATEGIES if issubclass(one, WeightSharing)]


@pytest.mark.parametrize("strategy", SHARING, ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("family", SHARED)
def test_a_supernet_proposes_networks_that_are_told_apart(strategy: type[WeightSharing], family: str) -> None:
    """None is proposed twice at first; all are in the space."""
    space = shared_space(family, 4.0)
    chosen = strategy(space, np.random.default_rng(0))
    chosen.prepare()
    found = [chosen.ask().candidate for _ in range(5)]
    assert {one.family for one in found} == {family}
    assert len({tuple(one.choices.get(each.name) for each in chosen.decisions) for one in found}) == 5
    assert all(space.fit(one, {}) == one for one in found)


def test_a_supernet_proposes_no_operation_that_a_user_ruled_out() -> None:
    ruled = {"edge_0_1": Preference(only=("skip", "wide")), "activation": Preference(never=("relu",))}
    space = replace(SearchSpace.of(("cell",), 2_000, 9, "binary", choices=ruled), workshop=a_workshop(2.0))
    chosen = OneShot(space, np.random.default_rng(0))
    found = [chosen.ask().candidate for _ in range(12)]
    assert {one.text("edge_0_1") for one in found} <= {"skip", "wide"}
    assert "relu" not in {one.text("activation") for one in found}


@pytest.mark.parametrize("strategy", SHARING, ids=lambda strategy: strategy.name)
def test_a_supernet_needs_a_space_that_has_one_and_rows(strategy: type[WeightSharing]) -> None:
    with pytest.raises(TaskError, match=r"search\.families must have one of 'chain', 'cell', 'darts', and has 'mlp'"):
        strategy.sampler(SearchSpace.of(("mlp",), 2_000, 9, "binary"), 0)
    with pytest.raises(TaskError, match="there are no rows for it"):
        strategy.sampler(SearchSpace.of(("cell",), 2_000, 9, "binary"), 0)


def test_shared_weights_learn_and_rank() -> None:
    """A cell with a layer learns, on other rows than those that judge it."""
    workshop = a_workshop(1.0)
    chosen = OneShot(replace(CELLS, workshop=workshop), np.random.default_rng(0))
    shared = Shared(workshop, chosen.small, 0.25, np.random.default_rng(0), math.inf)
    assert (len(shared.judging), len(shared.training)) == (100, 300)
    both = torch.cat([shared.judging.numeric, shared.training.numeric])
    assert len(both.unique(dim=0)) == 400
    wide, batches = ("none", "none", "none", "wide", "none", "none"), shared.batches(shared.training)
    before = shared.loss_of(wide, shared.judging)
    for _ in range(60):
        shared.mixture.one(wide)
        shared.learn(next(batches))
    assert shared.loss_of(wide, shared.judging) < before / 2


def test_the_guard_stops_before_skip_connections_take_over() -> None:
    """Shares that begin with skip connections: unguarded they stay, guarded the search ends where it began."""
    space = replace(CELLS, workshop=a_workshop(2.0))
    guarded = Differentiable(space, np.random.default_rng(0))
    steps = {}
    for on in (True, False):
        guarded.guarded = on  # type: ignore[misc]
        shared = Shared(guarded.workshop, guarded.small, 0.5, np.random.default_rng(0), math.inf)
        guarded.mix_of_skips = []
        shared.outcome = lambda batch: -torch.stack(guarded.mix_of_skips[-6:]).sum()  # type: ignore[method-assign]
        mix = guarded.mix

        def seen(logits: torch.Tensor, done: float, where: Shared, mix=mix) -> torch.Tensor:
            shares = mix(logits, done, where)
            guarded.mix_of_skips.append(shares[1])
            return shares

        guarded.mix = seen  # type: ignore[method-assign]
        cells = guarded.search(shared, time.monotonic() + 0.5)
        guarded.mix = mix  # type: ignore[method-assign]
        steps[on] = (len(guarded.skips), guarded.skips[-1], list(cells[0]).count("skip"))
    assert steps[True][1] > 6 // ONE_SKIP_IN >= steps[True][2]
    assert steps[False][1:] == (6, 6)
    assert steps[False][0] > steps[True][0]


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
    """A sampler that comes to a study of others learns from all of it: trials that ended, were stopped, or failed."""
    space = space_of(strategy)
    study, keys = optuna.create_study(direction="maximize", sampler=strategy.sampler(space, 0)), []
    for number in range(36):
        if number == 18:
            study.sampler = strategy.sampler(space, 1)
        trial, candidate = propose(study, space, keys)
        keys.append(space.canonical(candidate))
        if number % 7 == 3:
            trial.report(candidate.number("dropout"), 1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number % 7 == 5:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, candidate.number("dropout"))
    assert len(set(keys)) == 36


def test_names_are_known() -> None:
    assert [strategy_named(one.name) for one in STRATEGIES] == list(STRATEGIES)
    with pytest.raises(TaskError, match=r"unknown strategy 'tpee'.*did you mean 'tpe'"):
        strategy_named("tpee")


def test_tpe_spreads_out_over_what_is_being_tried() -> None:
    """A running trial makes the density of the others greater where it is."""
    shares = []
    for busy in (False, True):
        tpe = Tpe(SPACE, np.random.default_rng(0))
        drawn = [SPACE.sample(tpe.rng) for _ in range(40)]
        for number, candidate in enumerate(drawn):
            tpe.tell(Seen(number, candidate, quality(candidate)))
        best = max(drawn, key=quality)
        tpe.under_way([best] * 20 if busy else [])
        shares.append(np.mean([tpe.ask().candidate.family == best.family for _ in range(40)]))
    assert shares[1] < shares[0]


def test_densities_are_shares_and_integrate_to_one() -> None:
    """Of an option and a whole number over all their values, of a real number over its range."""
    rng, dimensions = np.random.default_rng(0), [Option("a", ("x", "y", "z")), Whole("b", 2, 10, 2)]
    points = np.array([[0.0, 2.0], [0.0, 4.0], [2.0, 10.0]])
    density = Parzen(dimensions, points)
    grid = np.array([[one, other] for one in range(3) for other in range(2, 11, 2)], dtype=float)
    shares = np.exp(density.log(grid))
    assert shares.sum() == pytest.approx(1)
    drawn = density.draw(4_000, rng)
    found = [(drawn == one).all(axis=1).mean() for one in grid]
    assert np.abs(np.array(found) - shares).max() < 0.03
    real = Parzen([Real("c", 1e-3, 1.0, log=True)], np.log([[0.01], [0.02], [0.5]]))
    places = np.linspace(np.log(1e-3), 0, 2_001)
    assert np.trapezoid(np.exp(real.log(places[:, None])), places) == pytest.approx(1, abs=1e-3)
    assert np.exp(Parzen(dimensions, points[:0]).log(grid)).sum() == pytest.approx(1)


def test_the_networks_of_bananas_learn() -> None:
    """A function of two numbers, after as many steps as one suggestion takes."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    wanted = places[:, 0] * 2 - places[:, 1]
    networks = Networks(2, rng)
    before = np.abs(networks.answers(places).mean(axis=0) - wanted).mean()
    networks.learn(places, wanted, rng.integers(200, size=(40, 5, 64)))
    assert np.abs(networks.answers(places).mean(axis=0) - wanted).mean() < before / 4


def test_the_first_step_of_a_decision_is_as_long_whenever_it_is_met() -> None:
    """Adam corrects its averages for the steps that they are of (Kingma & Ba 2015, algorithm 1)."""
    rng = np.random.default_rng(0)
    agent = Reinforce(SPACE, rng)
    drawn = iter([SPACE.sample(rng) for _ in range(200)])
    for number in range(30):
        agent.tell(Seen(number, next(one for one in drawn if one.family == "mlp"), float(rng.random())))
    assert not any(label.startswith("resnet.") for label in agent.logits)
    agent.tell(Seen(30, next(one for one in drawn if one.family == "resnet"), 2.0))
    steps = [np.abs(one).max() for label, one in agent.logits.items() if label.startswith("resnet.") and len(one) > 1]
    assert steps == pytest.approx([RATE] * len(steps), rel=1e-4)
