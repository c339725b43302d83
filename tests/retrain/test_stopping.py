"""The contract of early stopping on curves that keep their order, and what each policy adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from registry.errors import TaskError
from retrain.search.asking import FINISHES, ORIGIN, PARENT
from retrain.search.journal import open_study
from retrain.search.stopping.base import Allowance, Stopping, passed, report, reported
from retrain.search.stopping.catalogue import STOPPING, stopping_named
from retrain.search.stopping.hyperband import Hyperband
from retrain.search.tally import DIVERGED, INHERIT, RUN, go_on, guard, is_spent, recover

EPOCHS, TRIALS = 27, 60
ALLOWANCE = Allowance(1, EPOCHS, trials=TRIALS)
QUALITIES = tuple((np.random.default_rng(0).permutation(TRIALS) / TRIALS).tolist())
every_policy = pytest.mark.parametrize("policy", STOPPING, ids=lambda policy: policy.name)
pauses = pytest.mark.parametrize("name", [one.name for one in STOPPING if one.pauses])
savers = pytest.mark.parametrize("policy", [one for one in STOPPING if one.name != "none"], ids=lambda one: one.name)


def rising(quality: float, epoch: int) -> float:
    """A curve that approaches its quality; those of other qualities never cross it."""
    return quality - 1 / epoch


class Bench:
    """A study of synthetic curves, asked and told as workers do it."""

    def __init__(self, study: optuna.Study, policy: Stopping, qualities: Sequence[float] = QUALITIES) -> None:
        self.study, self.policy, self.left = study, policy, list(qualities)
        self.curve: Callable[[float, int], float] = rising
        self.epochs = 0

    def begin(self, **marks: object) -> tuple[optuna.Trial, float, int]:
        """A trial that is due, or one of the next quality; its quality and the epoch that comes."""
        due = self.policy.due(self.study)
        if due is not None:
            trial, trials = go_on(self.study, due), self.study.get_trials(deepcopy=False)
            return trial, trial.suggest_float("quality", -1, 1), passed(trials, trials[trial.number]) + 1
        if not self.study.get_trials(states=(TrialState.WAITING,)):
            self.study.enqueue_trial({"quality": self.left.pop(0)}, user_attrs=marks)
        trial = self.study.ask()
        return trial, trial.suggest_float("quality", -1, 1), 1

    def epoch(self, trial: optuna.Trial, quality: float, epoch: int) -> bool:
        """Train an epoch and tell; whether the trial has ended."""
        self.epochs += 1
        score = self.curve(quality, epoch)
        if self.policy.watches(epoch):
            report(self.study, trial, epoch, score)
            if self.policy.should_stop(self.study, trial, epoch):
                self.study.tell(trial, state=TrialState.PRUNED)
                return True
        if epoch == EPOCHS:
            self.study.tell(trial, [score] * len(self.study.directions))
        return epoch == EPOCHS

    def train(self, **marks: object) -> optuna.trial.FrozenTrial:
        """One trial, from its beginning to its end."""
        trial, quality, begin = self.begin(**marks)
        for epoch in range(begin, EPOCHS + 1):
            if self.epoch(trial, quality, epoch):
                break
        return self.study.get_trials(deepcopy=False)[trial.number]

    @property
    def going(self) -> bool:
        """Whether the budget of trials is not spent, or a paused one goes on."""
        begun = sum(map(is_spent, self.study.get_trials(deepcopy=False)))
        return (begun < TRIALS and bool(self.left)) or self.policy.due(self.study) is not None

    def spend(self) -> None:
        """Trials until the budget of trials is spent, and nothing is due."""
        while self.going:
            self.train()

    @property
    def finished(self) -> list[float]:
        """The qualities of the trials that were trained to their end."""
        return [one.params["quality"] for one in self.study.get_trials(states=(TrialState.COMPLETE,))]

    @property
    def tried(self) -> list[float]:
        """The qualities of all trials."""
        return [one.params["quality"] for one in self.study.get_trials() if one.params]


def bench(policy: type[Stopping], qualities: Sequence[float] = QUALITIES) -> Bench:
    return Bench(optuna.create_study(direction="maximize"), policy(ALLOWANCE), qualities)


@savers
def test_the_best_survives_and_epochs_are_saved(policy: type[Stopping]) -> None:
    run = bench(policy)
    run.spend()
    assert max(run.finished) == max(run.tried)
    assert len(run.finished) < TRIALS / 2
    assert run.epochs < 0.6 * TRIALS * EPOCHS


def test_none_stops_nothing_and_reports_nothing() -> None:
    run = bench(stopping_named("none"))
    run.spend()
    assert sorted(run.finished) == sorted(QUALITIES)
    assert not any(reported(one) for one in run.study.trials)


@every_policy
def test_several_at_a_time(policy: type[Stopping]) -> None:
    """Three trials that train by turns: whoever looks sees the others half-way."""
    run = bench(policy)
    running: list[tuple[optuna.Trial, float, int]] = []
    while run.going or running:
        while len(running) < 3 and run.going:
            running.append(run.begin())
        going = [
            (trial, quality, epoch + 1) for trial, quality, epoch in running if not run.epoch(trial, quality, epoch)
        ]
        running = going
    assert max(run.finished) == max(run.tried)
    assert all(one.state.is_finished() for one in run.study.trials)


@every_policy
def test_a_minimised_score_is_judged_the_other_way_round(policy: type[Stopping]) -> None:
    up, down = bench(policy), Bench(optuna.create_study(direction="minimize"), policy(ALLOWANCE))
    down.curve = lambda quality, epoch: -rising(quality, epoch)
    up.spend()
    down.spend()
    assert [one.state for one in up.study.trials] == [one.state for one in down.study.trials]


@every_policy
def test_several_objectives_are_stopped_alike(policy: type[Stopping]) -> None:
    """Optuna's own pruners refuse such a study; the first objective is the score."""
    one, two = bench(policy), Bench(optuna.create_study(directions=["maximize", "minimize"]), policy(ALLOWANCE))
    one.spend()
    two.spend()
    assert [trial.state for trial in one.study.trials] == [trial.state for trial in two.study.trials]


@every_policy
def test_goes_on_where_another_process_stopped(policy: type[Stopping], tmp_path: Path) -> None:
    """All that a policy knows is in the journal: with a new one for every trial, the same is stopped."""
    whole = bench(policy)
    whole.spend()
    parts = Bench(open_study(tmp_path, greater_is_better=True), policy(ALLOWANCE))
    while parts.going:
        parts.study, parts.policy = open_study(tmp_path, greater_is_better=True), policy(ALLOWANCE)
        for _ in range(10):
            if parts.going:
                parts.train()
    assert [one.state for one in parts.study.trials] == [one.state for one in whole.study.trials]


@savers
def test_scores_that_are_no_numbers_are_stopped_and_harm_nobody(policy: type[Stopping]) -> None:
    run = bench(policy)
    run.curve = lambda quality, epoch: math.nan if quality < 0.3 else rising(quality, epoch)
    run.spend()
    assert max(run.finished) == max(run.tried)
    assert min(run.finished) >= 0.3
    only = bench(policy, [0.1] * 5)
    only.curve = lambda quality, epoch: math.nan
    assert {only.train().state for _ in range(5)} == {TrialState.PRUNED}


def test_a_fresh_candidate_passes_the_first_look() -> None:
    """A prior's networks have learnt already."""
    run = bench(stopping_named("asha"), [0.9, 0.9, 0.1, 0.1])
    run.train(origin="prior")
    run.train(origin="prior")
    ends = {origin: max(reported(run.train(origin=origin))) for origin in ("fresh", "sampled")}
    assert ends == {"fresh": 3, "sampled": 1}


def test_halving_decides_as_optuna_does() -> None:
    """On curves that cross, too."""
    rng = np.random.default_rng(1)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    ours, theirs = (optuna.create_study(direction="maximize", pruner=pruner) for _ in range(2))
    policy = stopping_named("asha")(ALLOWANCE)
    for _ in range(200):
        one, other = ours.ask(), theirs.ask()
        for epoch in ALLOWANCE.rungs[:-1]:  # at its last epoch Optuna stops a trial that ends there anyway
            score = rng.random()
            report(ours, one, epoch, score)
            other.report(score, epoch)
            stop = policy.should_stop(ours, one, epoch)
            assert stop == other.should_prune()
            if stop:
                break
        states = TrialState.PRUNED if stop else TrialState.COMPLETE
        ours.tell(one, None if stop else score, states)
        theirs.tell(other, None if stop else score, states)


@every_policy
def test_a_trial_that_ends_here_anyway_is_not_stopped(policy: type[Stopping]) -> None:
    """Nothing would be saved, and a network that is fully trained would be lost to the ensemble."""
    study, made = optuna.create_study(direction="maximize"), policy(ALLOWANCE)
    for score in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1):
        trial = study.ask()
        trial.suggest_int("epochs", 9, 9)
        for epoch in (1, 3, 9):
            report(study, trial, epoch, score)
        assert not made.should_stop(study, trial, 9)
        study.tell(trial, score)


@pauses
@pytest.mark.parametrize(("trials", "diverged"), [(8, 2), (40, 10), (1, 0), (2, 0), (3, 0)])
def test_some_are_finished_though_trials_diverge_or_are_few(name: str, trials: int, diverged: int) -> None:
    policy = stopping_named(name)(Allowance(1, EPOCHS, trials=trials))
    run = Bench(optuna.create_study(direction="maximize"), policy, QUALITIES[:trials])
    for _ in range(diverged):
        trial, _, _ = run.begin()
        trial.set_user_attr(DIVERGED, True)
        run.study.tell(trial, state=TrialState.FAIL)
    run.spend()
    assert run.finished == sorted(QUALITIES[diverged:trials], reverse=True)[: max(1, min(10, trials // 4))]


def test_the_guard_sees_what_was_finished_and_not_how_it_began() -> None:
    """Fresh candidates that end better than the prior's, though the prior's led after the first epoch."""
    study = optuna.create_study(direction="maximize")
    for origin, first in (("prior", 0.6), ("fresh", 0.5)):
        for _ in range(3):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr(ORIGIN, origin)
            report(study, trial, 1, first)
            study.tell(trial, state=TrialState.PRUNED)
    assert not guard(study.get_trials(), greater_is_better=True)
    for number, score in enumerate((0.7, 0.71, 0.72, 0.8, 0.81, 0.82)):
        study.tell(go_on(study, number), score)
    assert guard(study.get_trials(), greater_is_better=True)


def test_hyperband_spreads_trials_over_its_brackets() -> None:
    policy = Hyperband(ALLOWANCE)
    counts = np.bincount([policy.bracket(number) for number in range(5_300)])
    assert policy.shares == (27, 12, 6, 4)
    assert counts / counts.sum() == pytest.approx(np.array(policy.shares) / sum(policy.shares), abs=0.03)


def test_the_best_go_on_from_rung_to_rung_best_first() -> None:
    """Of 60 candidates 30 to the second rung, which takes as many epochs, and ten to the end."""
    run = bench(stopping_named("halving"))
    run.spend()
    trials, ordered = run.study.trials, sorted(QUALITIES, reverse=True)
    assert [one.params["quality"] for one in trials] == [*QUALITIES, *ordered[:30], *ordered[:10]]
    assert [max(reported(one), default=EPOCHS) for one in trials] == [1] * 60 + [3] * 30 + [EPOCHS] * 10
    assert all(trials[one.user_attrs[FINISHES]].params == one.params for one in trials[60:])
    assert run.epochs == 60 * 1 + 30 * 2 + 10 * 24


@pytest.mark.parametrize(("name", "epochs"), [("screen", [1] * 20 + [27, 27]), ("halving", [1] * 14 + [3] * 7 + [27])])
def test_each_look_takes_an_equal_share_of_the_epochs(name: str, epochs: list[int]) -> None:
    run = Bench(optuna.create_study(direction="maximize"), stopping_named(name)(Allowance(1, EPOCHS, epochs=40)))
    assert [max(reported(run.train()), default=EPOCHS) for _ in epochs] == epochs


@pytest.mark.parametrize("suspect", [False, True])
def test_going_on_after_an_interruption_pauses_still_unless_it_kills(suspect: bool, tmp_path: Path) -> None:
    study = open_study(tmp_path, greater_is_better=True)
    run = Bench(study, stopping_named("screen")(Allowance(1, EPOCHS, trials=5)), QUALITIES[:5])
    for _ in range(5):
        run.train()
    chosen = []
    for _ in range(2):
        trial, _, _ = run.begin()
        chosen.append(trial.user_attrs[FINISHES])
        trial.set_user_attr(RUN, {"pid": 1, "key": ""})
        recover(study, tmp_path, [1] if suspect else None)
    best, second = (QUALITIES.index(one) for one in sorted(QUALITIES[:5], reverse=True)[:2])
    assert chosen == [best, best]
    assert not study.get_trials(states=(TrialState.WAITING,))
    assert run.train().user_attrs[FINISHES] == (second if suspect else best)
    assert run.policy.due(study) is None


def test_what_repeats_a_rung_is_not_stopped_there_again() -> None:
    """A paused training that was lost begins anew; only a rung that was not told before counts."""
    study = optuna.create_study(direction="maximize")
    run = Bench(study, stopping_named("halving")(Allowance(1, EPOCHS, trials=5)), QUALITIES[:5])
    for _ in range(5):
        run.train()
    trial, quality, _ = run.begin()
    assert [run.epoch(trial, quality, epoch) for epoch in (1, 2, 3)] == [False, False, True]
    assert run.policy.due(study) not in (None, trial.user_attrs[FINISHES])


def test_only_what_may_go_on_is_kept() -> None:
    study = optuna.create_study(direction="maximize")
    run = Bench(study, stopping_named("halving")(ALLOWANCE), [0.1, 0.5, 0.3, 0.4, 0.2])
    for _ in range(5):
        run.train()
    assert run.policy.kept(study) == [1, 3, 2, 4, 0]
    go_on(study, 2)
    assert run.policy.kept(study) == [2, 1, 3, 4, 0]
    assert stopping_named("asha")(ALLOWANCE).kept(study) == []


def test_extrapolation_spares_a_late_starter() -> None:
    """Where some curves were seen to rise late, one that is far behind after three epochs is given its time."""

    def curve(quality: float, epoch: int) -> float:
        late = round(quality * 100) % 2
        return quality - (2 / epoch**0.5 if late else 1 / epoch)

    stopped = {}
    for name in ("curve", "asha"):
        run = bench(stopping_named(name), [0.20, 0.21, 0.24, 0.25, 0.28, 0.29, 0.30, 0.31, 0.10, 0.95])
        run.curve = curve
        stopped[name] = [run.train().state for _ in range(10)][-2:]
    assert stopped == {"curve": [TrialState.PRUNED, TrialState.COMPLETE], "asha": [TrialState.PRUNED] * 2}


def test_names_are_known() -> None:
    assert [stopping_named(one.name) for one in STOPPING] == list(STOPPING)
    with pytest.raises(TaskError, match=r"unknown stopping policy 'ahsa'.*did you mean 'asha'"):
        stopping_named("ahsa")


def test_a_trial_that_is_run_again_begins_with_the_same_weights(tmp_path: Path) -> None:
    """A child that goes on after a pause, and a trial whose worker died, keep parent and elder."""
    study = optuna.create_study()
    begun = {INHERIT: "member0.", PARENT: 3}
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        for name, value in {**begun, RUN: {"pid": 1, "key": "k"}}.items():
            trial.set_user_attr(name, value)
    study.tell(0, state=TrialState.PRUNED)
    going, _ = go_on(study, 0), recover(study, tmp_path, [1])
    (waiting,) = study.get_trials(states=(TrialState.WAITING,))
    assert all(one.user_attrs[name] == value for one in (going, waiting) for name, value in begun.items())
