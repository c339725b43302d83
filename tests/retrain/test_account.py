"""What a study's journal says of its cost, of what mattered in it, and of what was new."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState

from retrain.families.base import OF_TRAINING, Candidate, Family, Reads
from retrain.families.catalogue import FAMILIES
from retrain.families.embeddings import InputEncoder
from retrain.families.mlp import MlpNet
from retrain.families.parameters import Choice
from retrain.search.account import account, architecture, covered_seconds
from retrain.search.footprint import single_row_ms
from retrain.search.importance import LEAST_TRIALS, importances
from retrain.search.inputs import Layout
from retrain.search.limits import Limits
from retrain.search.plan import Plan, Result
from retrain.search.portfolio import portfolio
from retrain.search.space import SearchSpace
from retrain.search.strategies.random_search import RandomSearch
from retrain.search.tally import DIVERGED, ORIGIN, RUN, best_of, go_on
from retrain.training import Rows

NOON = datetime(2024, 1, 1, 12)
PLAN = Plan(
    problem="binary", metric="auc", strategy="random", families=("mlp", "resnet"), rows=2_000, max_epochs=9,
    trials=40, workers=2, deadline=0.0, seed=0, layout=Layout(numeric=("x",)), d_out=2,
)  # fmt: skip


def studied(count: int) -> optuna.Study:
    """Random candidates of the space; what counts is the family, and within mlp the width."""
    study = optuna.create_study(direction="maximize", sampler=RandomSearch.sampler(PLAN.space, 0))
    for _ in range(count):
        trial = study.ask()
        candidate = PLAN.space.suggest(trial)
        mlp = candidate.family == "mlp"
        study.tell(trial, 0.5 + (candidate.count("width") / 1_000 if mlp else 0.0))
    return study


def test_importances_find_what_mattered_also_where_it_is_conditional() -> None:
    found = importances(studied(200))
    assert found.trials == 200
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    assert {name for name, _ in found.shares[:2]} == {"family", "mlp.width"}
    assert found.shares == tuple(sorted(found.shares, key=lambda one: -one[1]))


def test_importances_of_too_little_give_a_reason() -> None:
    assert importances(studied(LEAST_TRIALS - 1)).reason == "9 trials ended, at least 10 are needed"
    study = studied(LEAST_TRIALS)
    same, stopped = optuna.create_study(), optuna.create_study()
    for trial in study.trials:
        one = {"params": trial.params, "distributions": trial.distributions}
        same.add_trial(optuna.trial.create_trial(value=1.0, **one))
        state = TrialState.PRUNED if trial.number > 3 else TrialState.COMPLETE
        stopped.add_trial(optuna.trial.create_trial(value=float(trial.number), state=state, **one))
    assert importances(same).reason == "all trials that trained to the end have the same score"
    assert importances(stopped).reason == "4 of 10 trials trained to the end, at least 5 are needed"


def test_trials_stopped_early_are_behind_whatever_they_had_reached() -> None:
    """Those of resnet are stopped with the best scores: what the family does must not be turned round by them."""
    study, marked = studied(60), optuna.create_study(direction="maximize")
    for trial in study.trials:
        resnet = trial.params["family"] == "resnet"
        state = TrialState.PRUNED if resnet else TrialState.COMPLETE
        value = 0.99 if resnet else trial.value
        one = {"params": trial.params, "distributions": trial.distributions}
        marked.add_trial(optuna.trial.create_trial(value=value, state=state, **one))
    assert importances(marked).shares == importances(study).shares


def test_seconds_that_overlap_count_once() -> None:
    at = [NOON + timedelta(seconds=n) for n in range(11)]
    assert covered_seconds([(at[5], at[6]), (at[0], at[2]), (at[1], at[4])]) == 5
    assert covered_seconds([(at[0], at[9]), (at[1], at[2])]) == 9
    assert covered_seconds([]) == 0


def test_an_account_counts_failures_novelties_and_overlap() -> None:
    study, default = optuna.create_study(direction="maximize"), portfolio(PLAN.space)[0]
    rng = np.random.default_rng(0)
    candidates = [default, PLAN.space.sample(rng), PLAN.space.sample(rng)]
    results = []
    for number, candidate in enumerate(candidates):
        trial = study.ask()
        trial.set_user_attr(RUN, {"pid": 1, "key": candidate.key})
        study.tell(trial, 0.5)
        results.append(
            Result(number=number, candidate=candidate, origin="sampled" if number else "portfolio", state="complete",
                   score=0.5 + number, best_epoch=1, history=(0.5,), seed=number, seconds=30.0, ending="finished",
                   cpu=20.0, parameters=7)
        )  # fmt: skip
    for marks in ({RUN: {"pid": 1}, DIVERGED: True}, {RUN: {"pid": 1}}, {"skipped": "duplicate"}):
        trial = study.ask()
        for name, value in marks.items():
            trial.set_user_attr(name, value)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    found = account(study, PLAN, results, {2}, 0.9)
    assert (found.diverged, found.interrupted, found.candidates) == (1, 1, 4)
    assert (found.architectures, found.novel) == (3, 2)
    assert found.busy == 90
    assert found.wall == pytest.approx(30, abs=2)  # all three began together
    assert [one.number for one in found.chosen] == [2]
    assert found.counts() == {"complete": 3, "pruned": 0, "diverged": 1, "interrupted": 1}
    assert found.importances.reason == "3 trials ended, at least 10 are needed"


def test_a_candidate_that_goes_on_after_a_pause_counts_once() -> None:
    """Three pause: one is finished, one diverges as it goes on, one pauses still. A fourth diverges at once."""
    study, candidates = optuna.create_study(direction="maximize"), portfolio(PLAN.space)[:4]
    results = []
    for number, candidate in enumerate(candidates):
        trial = study.ask()
        trial.set_user_attr(RUN, {"pid": 1, "key": candidate.key})
        if number == 3:
            trial.set_user_attr(DIVERGED, True)
            study.tell(trial, state=TrialState.FAIL)
            continue
        study.tell(trial, state=TrialState.PRUNED)
        results.append(
            Result(number=number, candidate=candidate, origin="portfolio", state="pruned", score=0.5, best_epoch=1,
                   history=(0.5,), seed=number, seconds=1.0, ending="stopped")
        )  # fmt: skip
    study.tell(go_on(study, 0), 0.7)
    results.append(results[0].model_copy(update={"number": 4, "origin": "finish", "state": "complete"}))
    lost = go_on(study, 1)
    lost.set_user_attr(DIVERGED, True)
    study.tell(lost, state=TrialState.FAIL)
    found = account(study, PLAN, results, (), None, sufficed=True)
    assert found.candidates == 4
    assert found.counts() == {"complete": 1, "pruned": 1, "diverged": 2, "interrupted": 0}
    assert account(study, PLAN, results, (), None).hurried, "one complete of 40 that were allowed"
    assert found.importances.trials == 3


def test_what_is_finished_came_from_where_it_was_screened() -> None:
    study = optuna.create_study(direction="maximize")
    for marks in ({ORIGIN: "portfolio"}, {}):
        study.enqueue_trial({}, user_attrs=marks)
    for _ in range(2):
        study.tell(study.ask(), state=TrialState.PRUNED)
    for screened in range(2):
        study.tell(go_on(study, screened), 0.5)
    result = Result(
        number=2, candidate=portfolio(PLAN.space)[0], origin="finish", state="complete", score=0.5, best_epoch=1,
        history=(0.5,), seed=0, seconds=1.0, ending="finished", latency_ms=2.0,
    )  # fmt: skip
    first = result.model_copy(update={"number": 1, "origin": "sampled", "latency_ms": 0.5})
    plan = PLAN.model_copy(update={"limits": Limits(latency_ms=1.0)})
    told = account(study, plan, [result, result.model_copy(update={"number": 3}), first], (), None)
    assert [one.origin for one in told.tried] == ["portfolio", "sampled", "sampled"]
    assert [one.again for one in told.tried] == [True, True, False]
    assert [one.allowed for one in told.tried] == [False, False, True]
    assert told.slow == 2
    assert told.screened


def test_the_best_is_of_trials_that_trained_to_the_end_if_any_did() -> None:
    study = optuna.create_study(direction="maximize")
    assert best_of(study.trials, greater_is_better=True) is None
    for value, state in ((0.9, TrialState.PRUNED), (0.6, TrialState.COMPLETE), (0.7, TrialState.COMPLETE)):
        study.add_trial(optuna.trial.create_trial(value=value, state=state))
    assert best_of(study.trials[:1], greater_is_better=True) == 0.9
    assert best_of(study.trials, greater_is_better=True) == 0.7
    assert best_of(study.trials, greater_is_better=False) == 0.6


def test_an_architecture_is_free_of_its_training() -> None:
    one = portfolio(PLAN.space)[0]
    other = one.model_copy(update={"choices": {**one.choices, "adamw_rate": 0.01}})
    wider = one.model_copy(update={"choices": {**one.choices, "width": 192}})
    assert architecture(one, "table") == architecture(other, "table") != architecture(wider, "table")


@pytest.mark.parametrize(("family", "reads"), [(one, reads) for one in FAMILIES for reads in sorted(one.reads)])
def test_an_architecture_is_free_of_regularisation_and_of_columns_beside_images(family: Family, reads: Reads) -> None:
    sampled = SearchSpace((family,), 2_000, 9, "binary", reads).sample(np.random.default_rng(0)).choices

    def network(**choices: Choice) -> str:
        return architecture(Candidate(family=family.name, choices={**sampled, **choices}), reads)

    assert network(**dict.fromkeys(OF_TRAINING, 0.1)) == network(**dict.fromkeys(OF_TRAINING, 0.2))
    assert (network(category_cap=8) == network(category_cap=16)) is (reads == "image")


def test_a_network_is_timed() -> None:
    network = MlpNet(
        InputEncoder(3, (), cap=8), 2, depth=1, width=10, activation="relu", normalisation="none", dropout=0
    )
    rows = Rows(torch.zeros(4, 3), torch.zeros(4, 0, dtype=torch.int64), torch.zeros(4))
    assert 0 < single_row_ms(network, rows) < 100
    assert single_row_ms(network, rows.take(torch.zeros(0, dtype=torch.int64))) is None
