"""Several objectives at once, and a task's constraints in the search: who may be trained, and who may be served."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from pydantic import ValidationError

from registry.bundle import ModelBundle
from registry.errors import StateError, TaskError
from registry.metrics import metrics_for
from registry.task import Constraints, Search, TaskSpec
from retrain.ensemble import select
from retrain.families.mlp import Mlp
from retrain.search import plan as plans
from retrain.search.asking import propose
from retrain.search.closing import close, require_feasible, standing, start_of_workers, why_none
from retrain.search.footprint import served_row_ms, single_row_ms
from retrain.search.importance import importances
from retrain.search.inputs import Layout
from retrain.search.journal import open_study
from retrain.search.limits import INFEASIBLE, Limits, megabytes_of, patience
from retrain.search.plan import Plan, Result
from retrain.search.question import fingerprint
from retrain.search.session import require_means, search
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import Seen, Strategy
from retrain.search.strategies.catalogue import STRATEGIES, require_fitting, strategy_named
from retrain.search.strategies.nsga import POPULATION, associated, fronts, normalised
from retrain.search.tally import DIVERGED, RUN, guard, quality_of, recover, tell
from retrain.search.worker import Worker
from retrain.search_figures import draw_search, pareto
from retrain.training import Rows
from retrain.trials import Searched, Tried, nondominated, unbeaten, values_of
from tests.handmade import make_frame, make_task

SPACE = SearchSpace.of(("mlp", "resnet"), 2_000, 9, "binary")
PLAN = Plan(
    problem="binary", metric="auc", strategy="nsga2", families=("mlp", "resnet"), rows=2_000, max_epochs=9, trials=40,
    workers=2, deadline=0.0, seed=0, layout=Layout(numeric=("x",)), d_out=2, objectives=("quality", "latency"),
)  # fmt: skip
AUC = metrics_for("binary")["auc"]
genetic = pytest.mark.parametrize("name", ["nsga2", "nsga3"])


def result(number: int, score: float, latency: float | None = 1.0, **changes: Any) -> Result:
    candidate = SPACE.sample(np.random.default_rng(number))
    base: dict[str, Any] = {
        "number": number, "candidate": candidate, "origin": "sampled", "state": "complete", "score": score,
        "best_epoch": 1, "history": (score,), "seed": number, "seconds": 1.0, "ending": "finished", "cpu": 2.0,
        "parameters": 100, "latency_ms": latency,
    }  # fmt: skip
    return Result(**{**base, **changes})


def test_objectives_are_checked_and_ordered() -> None:
    assert Search().objectives == ("quality",)
    asked = Search(objectives=("energy", "latency", "quality"))
    assert asked.objectives == ("quality", "latency", "energy")
    for wrong in ((), ("latency",), ("quality", "quality"), ("quality", "beauty")):
        with pytest.raises(ValidationError, match="quality"):
            Search(objectives=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_only_strategies_that_can_take_several_objectives(strategy: type[Strategy]) -> None:
    require_fitting(strategy, ("quality",))
    if strategy.name in ("nsga2", "nsga3"):
        require_fitting(strategy, ("quality", "size", "energy"))
        return
    with pytest.raises(TaskError, match=f"'{strategy.name}' looks for quality alone.*take 'nsga2' or 'nsga3'"):
        require_fitting(strategy, ("quality", "size"))


def test_a_search_of_several_objectives_needs_such_a_strategy() -> None:
    task = make_task(search={"objectives": ["quality", "latency"]})
    with pytest.raises(TaskError, match="'auto' looks for quality alone"):
        require_means(task)


def test_what_dominates() -> None:
    points = np.array([[0.0, 5.0, 1.0], [1.0, 4.0, 1.0], [1.0, 4.0, 1.0], [1.0, 5.0, 1.0], [2.0, 6.0, 0.0]])
    assert nondominated(points).tolist() == [True, True, True, False, True]
    assert nondominated(np.empty((0, 2))).tolist() == []
    tried = [Tried(0, 0.9, latency_ms=2.0), Tried(1, 0.8, latency_ms=1.0), Tried(2, 0.7, latency_ms=1.5)]
    assert unbeaten(tried, ("quality", "latency"), greater_is_better=True).tolist() == [True, True, False]
    assert unbeaten(tried, ("quality", "latency"), greater_is_better=False).tolist() == [False, True, True]
    assert values_of(Tried(0, 0.9, cpu=3.0, parameters=7), ("quality", "latency", "size", "energy")) == (
        0.9, float("inf"), 7, 3,
    )  # fmt: skip


def costs(candidate: Any) -> tuple[float, float]:
    """To be greater: nearness to SiLU with little dropout. To be less: width times depth. No candidate is best in both,
    since depth is good for quality here."""
    good = (candidate.text("activation") == "silu") - candidate.number("dropout") + candidate.count("depth") / 4
    return good, candidate.count("width") * candidate.count("depth") / 400


@genetic
def test_later_candidates_are_better_in_both_objectives(name: str) -> None:
    """Beside random ones. Most of what counts exists in one family alone: it must be inherited too."""
    later, rng = [], np.random.default_rng(0)
    for seed in range(2):
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=strategy_named(name).sampler(SPACE, seed)
        )
        keys: set[str] = set()
        for number in range(5 * POPULATION):
            trial, candidate = propose(study, SPACE, keys)
            keys.add(SPACE.canonical(candidate))
            study.tell(trial, costs(candidate))
            later += [costs(candidate)] if number >= 3 * POPULATION else []
    good, dear = np.mean(later, axis=0)
    random_good, random_dear = np.mean([costs(SPACE.sample(rng)) for _ in range(500)], axis=0)
    assert good > random_good + 0.3
    assert dear < random_dear - 0.2


@genetic
def test_a_study_of_several_objectives_is_resumed_from_its_journal(name: str, tmp_path: Path) -> None:
    """Another process goes on with the next generation, without a warning."""
    keys: set[str] = set()
    for process in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sampler = strategy_named(name).sampler(SPACE, process)
            study = open_study(tmp_path, greater_is_better=True, costs=2, sampler=sampler)
            for _ in range(POPULATION + 2):
                trial, candidate = propose(study, SPACE, keys)
                keys.add(SPACE.canonical(candidate))
                study.tell(trial, (*costs(candidate), 1.0))
    assert [one.name for one in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert len(keys) == len(study.trials) == 2 * POPULATION + 4
    chosen = [sampler.strategy.parents for sampler in (study.sampler, strategy_named(name).sampler(SPACE, 1))]
    known = [one.number for one in chosen[0]]
    assert len(known) == POPULATION
    assert chosen[1] == []
    assert max(known) < 2 * POPULATION
    assert min(known) < POPULATION


def test_a_feasible_trial_precedes_one_that_is_not() -> None:
    costs, excess = np.array([[-0.9, 1.0], [-0.5, 2.0], [-0.4, 2.0], [-0.95, 0.5]]), np.array([0.5, 0.0, 0.0, 2.0])
    assert fronts(costs, excess).tolist() == [2, 0, 1, 3]
    assert fronts(costs, np.zeros(4)).tolist() == [1, 2, 3, 0]
    assert fronts(costs[[0, 0]], np.zeros(2)).tolist() == [0, 0]


@genetic
def test_survivors_are_the_better_fronts_and_what_is_spread_out(name: str) -> None:
    """Ten that something dominates, one that breaks a constraint, and 21 of a front, 12 of them crowded in a corner."""
    strategy = strategy_named(name)(SPACE, np.random.default_rng(0))  # type: ignore[call-arg]
    shares = np.append(np.linspace(0, 0.01, 12), np.linspace(0.1, 1, 9))
    seen = [Seen(each, SPACE.sample(strategy.rng), -share, others=(share - 1,)) for each, share in enumerate(shares)]
    seen += [replace(seen[0], number=100 + each, value=-3.0) for each in range(10)]
    seen.append(replace(seen[0], number=200, value=9.0, excess=0.1))
    for one in seen:
        strategy.tell(one)
    kept = {one.number for one in strategy.parents}
    assert kept <= set(range(21))
    assert kept >= set(range(12, 21))
    assert len(kept) == POPULATION


def test_costs_are_measured_from_the_best_in_units_of_the_front() -> None:
    points = np.array([[-3.0, 10.0], [-1.0, 4.0], [-2.5, 5.0], [-3.0, np.inf]])
    assert np.allclose(normalised(points)[:3], [[0.0, 1.0], [1.0, 0.0], [0.25, 1 / 6]])
    assert np.isfinite(normalised(points)).all()
    assert np.allclose(normalised(np.array([[2.0, 1.0], [2.0, 1.0]])), 0.0)
    assert not normalised(np.array([[np.inf, 1.0], [np.inf, 2.0]]))[:, 0].any()
    near, distances = associated(np.array([[0.2, 0.2], [0.0, 3.0]]), np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert near.tolist() == [1, 2]
    assert np.allclose(distances, 0.0)


def test_what_reads_a_study_copes_with_several_objectives(tmp_path: Path) -> None:
    study = open_study(tmp_path, greater_is_better=True, costs=1, sampler=strategy_named("nsga2").sampler(SPACE, 0))
    for number in range(12):
        trial = study.ask(), SPACE.suggest
        candidate = trial[1](trial[0])
        trial[0].set_user_attr(RUN, {"pid": 1, "key": candidate.key})
        one = result(number, number / 20, 1.0, values=(number / 20, 1.0))
        if number < 11:
            tell(study, one)
        else:  # its worker died between writing the result and telling it
            plans.keep_trial(tmp_path, one, b"", np.zeros((1, 2), dtype=np.float32))
    recover(study, tmp_path)
    trials = study.get_trials(deepcopy=False)
    assert [quality_of(one) for one in trials] == [number / 20 for number in range(12)]
    assert trials[11].values == [0.55, 1.0]
    assert guard(trials, greater_is_better=True) is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importances(study).trials == 12
    assert importances(study).shares


def test_the_ensemble_is_chosen_among_the_front_within_the_limits() -> None:
    tried = [result(0, 0.9, 5.0), result(1, 0.8, 1.0), result(2, 0.7, 2.0), result(3, 0.95, 50.0), result(4, 0.6, 0.5)]
    assert [one.number for one in standing(tried, PLAN)] == [3, 0, 1, 4]
    limited = PLAN.model_copy(update={"limits": Limits(latency_ms=10.0)})
    assert [one.number for one in standing(tried, limited)] == [0, 1, 4]
    alone = limited.model_copy(update={"objectives": ("quality",)})
    assert [one.number for one in standing(tried, alone)] == [0, 1, 2, 4]
    assert standing(tried, PLAN.model_copy(update={"limits": Limits(latency_ms=0.1)})) == []
    assert [one.number for one in standing([result(0, 0.5, None)], limited)] == [0]
    assert [one.number for one in standing([result(0, 0.5, 50.0, served_ms=9.0)], limited)] == [0]


def test_a_network_is_timed_in_the_runtime_that_serves() -> None:
    torch.set_num_threads(1)
    network = Mlp().build(replace_choices(width=64, depth=1, normalisation="none"), 3, (4,), 2)
    rows = Rows(torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4))
    served, alone = served_row_ms(network, rows), single_row_ms(network, rows)
    assert served is not None
    assert alone is not None
    assert 0 < served < 10 * alone


def test_networks_share_the_limit_of_size() -> None:
    limits = Limits.of(Constraints(size_mb=4.0, latency_ms=2.0), 4)
    assert (limits.size_mb, limits.latency_ms) == (pytest.approx(0.9), 2.0)
    assert Limits.of(Constraints(), 4) == Limits()
    assert Limits().allows_size(1e9)
    assert Limits().allows_latency(1e9)
    assert (limits.allows_size(0.89), limits.allows_size(0.91), limits.allows_latency(None)) == (True, False, True)
    candidate = replace_choices(width=64, depth=1, numeric_embedding="none", normalisation="none")
    network = Mlp().build(candidate, 10, (), 2)
    assert megabytes_of(network) == pytest.approx(4 * (10 * 64 + 64 + 64 * 2 + 2) / 1e6)
    assert (patience(1), patience(100)) == (200, 1_000)


def test_old_networks_enter_the_ensemble_only_where_there_is_room() -> None:
    """All four help; the last is as large as the limit allows for all of them together."""
    labels = np.linspace(0, 1, 200)
    outputs = labels + np.random.default_rng(0).normal(size=(4, 200)) * 0.2
    rmse, means = metrics_for("regression")["rmse"], {"size": 2, "groups": [0, 0, 1, 1], "sizes": [0.2, 0.2, 0.1, 0.5]}

    def chosen(room: float | None) -> list[bool]:
        return (select(outputs, labels, rmse, **means, room=room) > 0).tolist()  # type: ignore[arg-type]

    assert chosen(None) == chosen(1.0) == [True] * 4
    assert chosen(0.5) in ([True, True, True, False], [False, False, False, True])
    assert chosen(0.4)[3] is False
    assert sum(chosen(0.2)) == 1


def replace_choices(**choices: Any) -> Any:
    candidate = SearchSpace.of(("mlp",), 2_000, 9, "binary").sample(np.random.default_rng(0))
    return candidate.model_copy(update={"choices": {**candidate.choices, **choices}})


def test_constraints_and_objectives_are_part_of_the_question() -> None:
    def name(task: TaskSpec) -> str:
        return fingerprint(task, "data", 0, None)

    several = {"strategy": "nsga2", "objectives": ["quality", "size"]}
    tasks = [
        make_task(),
        make_task(constraints={"size_mb": 1.0}),
        make_task(constraints={"size_mb": 1.0}, search={"ensemble": 2}),
        make_task(constraints={"latency_ms": 1.0}),
        make_task(search=several),
        make_task(search={"strategy": "nsga2"}),
    ]
    assert len({name(task) for task in tasks}) == len(tasks)
    assert name(make_task(search={"ensemble": 2})) == name(make_task())


def searched(tmp_path: Path, *, trials: int = 4, constraints: Any = None, **means: Any) -> ModelBundle:
    task = make_task(
        search={"families": ["mlp"], "workers": 1, "max_epochs": 1, **means}, constraints=constraints or {}
    )
    given = {"folder": tmp_path / "study", "out": tmp_path / "bundle", "trials": trials, "seconds": 60, "seed": 0}
    return search(task, make_frame(400), **given)


def results_in(tmp_path: Path) -> tuple[list[Result], list[optuna.trial.FrozenTrial]]:
    (home,) = [path for path in (tmp_path / "study").iterdir() if path.is_dir()]
    return plans.read_results(home), optuna.load_study(study_name="study", storage=storage_of(home)).trials


def storage_of(home: Path) -> Any:
    return open_study(home, greater_is_better=True)._storage


def test_a_search_of_several_objectives_within_a_size(tmp_path: Path) -> None:
    """One search for all of it: directions, values, refusals, front, card."""
    torch.set_num_threads(1)
    means = {"strategy": "nsga2", "objectives": ["quality", "size", "energy"]}
    bundle = searched(tmp_path, trials=4, constraints={"size_mb": 0.3}, **means)
    results, trials = results_in(tmp_path)
    assert len(results) == 4
    assert all(one.values == values_of(one, ("quality", "size", "energy")) for one in results)
    assert all(one.state == "complete" and 4e-6 * one.parameters <= 0.9 * 0.3 / 4 for one in results)
    refused = [one for one in trials if INFEASIBLE in one.user_attrs]
    assert refused
    assert all(one.state == TrialState.FAIL for one in refused)
    assert all(one.user_attrs[INFEASIBLE]["size_mb"] > 0.9 * 0.3 / 4 for one in refused)
    ended = {"complete": 4, "pruned": 0, "diverged": 0, "interrupted": 0, "refused": len(refused)}
    assert bundle.candidates["search"] == ended
    front = unbeaten(results, ("quality", "size", "energy"), greater_is_better=True)
    best = {one.score for one, ahead in zip(results, front, strict=True) if ahead}
    assert {one["candidate"]["score"] for one in bundle.candidates["members"]} <= best
    assert bundle.model.stat().st_size / 1e6 <= 0.3
    card = (bundle.folder / "card.md").read_text(encoding="utf-8")
    assert "The search looked for quality, size, energy at once" in card
    assert f"too large to be trained (`constraints.size_mb`) | {len(refused)} |" in card


def test_a_size_that_nothing_meets_ends_the_search_and_is_told(tmp_path: Path) -> None:
    """At the deadline, or once patience has ended; nothing is trained."""
    limits = Limits.of(Constraints(size_mb=0.001), 4)
    plan = PLAN.model_copy(update={"limits": limits, "objectives": ("quality",), "strategy": "random", "trials": 2})
    study = open_study(tmp_path, greater_is_better=True)
    plans.write_json(tmp_path / plans.PLAN, plan)
    Worker(tmp_path, 0).run()
    trials = study.get_trials(deepcopy=False)
    assert all(one.state == TrialState.FAIL and INFEASIBLE in one.user_attrs for one in trials)
    count = len(trials)
    with pytest.raises(
        TaskError, match=rf"size_mb 0.001 leaves 0.000225 MB to each of 4 .* none of {count} .* has 0\.\d"
    ):
        require_feasible([], plan, study)
    study.add_trials([trials[0]] * (patience(2) - count))
    Worker(tmp_path, 0).run()
    assert len(study.get_trials(deepcopy=False)) == patience(2)


def test_a_start_that_took_the_time_is_told_where_no_trial_has_finished() -> None:
    ready = datetime(2024, 1, 1, 12)
    plan, study = PLAN.model_copy(update={"ready": ready}), optuna.create_study()
    now = ready + timedelta(seconds=21)
    took = "(the start of the workers and their libraries took 21 of the 30 s"
    assert start_of_workers(plan, study.trials, 30, now) == f" {took}, and none had begun one)"
    assert start_of_workers(plan, study.trials, 90, now) == start_of_workers(PLAN, study.trials, 30, now) == ""
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    begun = study.trials
    begun[0].datetime_start = now
    assert start_of_workers(plan, begun, 30, now + timedelta(seconds=5)) == f" {took})"
    begun[0].datetime_start = ready - timedelta(hours=1)
    assert start_of_workers(plan, begun, 30, now) == ""


def test_networks_that_diverged_are_told_where_no_trial_has_finished() -> None:
    """More time would be no help."""
    study = optuna.create_study()
    study.add_trials([optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={DIVERGED: True})] * 3)
    assert why_none(study.trials).startswith(": 3 networks had no finite loss or score after an epoch; see `search.ch")
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    assert why_none(study.trials) == ""


def test_a_latency_that_nothing_meets_is_told() -> None:
    study, tried = optuna.create_study(), [result(0, 0.9, 0.25), result(1, 0.8, 0.5)]
    limited = PLAN.model_copy(update={"limits": Limits(latency_ms=0.1)})
    with pytest.raises(
        TaskError, match=r"latency_ms 0.1: none of 2 trained .* in that time; the nearest takes 0.25 ms"
    ):
        require_feasible(tried, limited, study)
    require_feasible([], PLAN, study)


def test_the_front_is_drawn_of_the_objectives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tried = tuple(
        Tried(number, float(rng.uniform(0.6, 0.9)), cpu=float(rng.uniform(1, 9)),
              parameters=int(rng.integers(1e3, 1e5)), latency_ms=float(rng.uniform(0.1, 0.9)))
        for number in range(20)
    )  # fmt: skip
    plain = Searched("nsga2", ("mlp",), 2, tried)
    assert labels(plain) == ["parameters (log scale)", "milliseconds for one row, by torch (log scale)"]
    assert labels(replace(plain, objectives=("quality", "energy"))) == ["CPU-seconds (log scale)"]
    many = replace(plain, objectives=("quality", "latency", "size", "energy"))
    assert len(labels(many)) == 3
    ahead = unbeaten(tried, many.objectives, greater_is_better=True)
    blue = pareto(many, AUC).axes[0].collections[1].get_offsets()
    assert len(blue) == ahead.sum() > 1
    assert [path.name for path in draw_search(tmp_path, many, AUC)] == ["pareto.png", "search.png"]


def labels(one: Searched) -> list[str]:
    return [axes.get_xlabel() for axes in pareto(one, AUC).axes]


def test_a_search_without_a_result_tells_where_its_workers_speak(tmp_path: Path) -> None:
    nothing: Any = None
    finish: Any = SimpleNamespace(seconds=lambda: 30.0)
    with pytest.raises(StateError) as error:
        close(nothing, tmp_path, PLAN, optuna.create_study(), tmp_path / "out", finish, nothing)
    assert "no network has a result in the time there was: give the search more (--seconds" in str(error.value)
    assert str(error.value).endswith(str(tmp_path / "workers"))
