"""One worker process of a study: `python -m retrain.search.worker FOLDER NUMBER PARENT`.

It asks the study for a trial, trains it on one thread, keeps it on disk, tells the study, and so on, until trials or
time are spent. It ends when its parent has gone.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import safetensors.torch
import torch
from optuna.trial import TrialState

from retrain.fabric import make_fabric
from retrain.families.base import Candidate, Network
from retrain.families.cost import parameters
from retrain.families.hidden import kept_share, unpruned
from retrain.levels import levelled
from retrain.pausing import Paused
from retrain.pruning import train_and_prune
from retrain.search import plan as plans
from retrain.search.arrays import Arrays
from retrain.search.asking import FINISHES, INHERIT, PARENT, propose
from retrain.search.footprint import served_row_ms, single_row_ms
from retrain.search.journal import locked, open_study, together
from retrain.search.limits import INFEASIBLE, megabytes_of, patience
from retrain.search.morphism import akin
from retrain.search.plan import Result
from retrain.search.shelf import put, take, tidy
from retrain.search.stopping.base import report as keep_score
from retrain.search.stopping.catalogue import stopping_named
from retrain.search.strategies.base import AskTellSampler
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import (
    ASKING,
    DIVERGED,
    PRIOR,
    PRIOR_WEIGHTS,
    REFUSED,
    RUN,
    WORKING,
    first_origin,
    go_on,
    guard,
    is_spent,
    origin_of,
    tell,
)
from retrain.search.warm import PriorMembers, inherit
from retrain.search.workshop import Workshop
from retrain.training import DivergedError, Outputs, Trained, train
from retrain.trials import values_of

LOOK_SECONDS = 0.5
WAIT_SECONDS = 0.05
LEAST_SECONDS = 2.0
"""So long a worker may train even if preparation has used up the time: a late model is better than none."""
MOST_SHARE = 0.25
"""The share of a worker's time that one trial may take; more where there are fewer than four trials a worker."""


class Worker:
    """The loop of one process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.plan = plans.read_plan(folder)
        self.begin = time.monotonic()
        self.deadline = max(self.plan.deadline, self.begin + LEAST_SECONDS)
        self.arrays = Arrays(folder, self.plan)
        self.workshop = Workshop(
            self.plan.problem,
            self.plan.layout,
            self.plan.d_out,
            rows=lambda scaling: self.arrays.of(scaling)[0],
            seconds=lambda: self.deadline - time.monotonic(),
            seed=self.plan.seed * 10 + number,
            at_most=self.share * (self.deadline - self.begin),
        )
        self.space = replace(self.plan.space, workshop=self.workshop)
        self.elders = prior_members(folder)
        self.durations: list[float] = []
        self.prepared = False
        self.stopping = stopping_named(self.plan.stopping)(self.plan.allowance)
        costs = len(self.plan.objectives) - 1
        self.study = open_study(folder, greater_is_better=self.plan.greater_is_better, costs=costs)
        draws = len(self.study.get_trials(deepcopy=False))  # a resumed study must not draw the same numbers again
        self.study.sampler = strategy_named(self.plan.strategy).sampler(
            self.space, self.plan.seed * 1_000 + draws * 10 + number
        )

    @property
    def share(self) -> float:
        """The share of this worker's time that a trial may take."""
        return max(MOST_SHARE, min(1.0, self.plan.workers / self.plan.trials))

    def limit(self, candidate: Candidate) -> float:
        """When the trial that starts now must end: none may use up more than its share of the time, but what the short
        training of an image's smallest network takes: one that has learnt is worth more than some that have not."""
        share = self.share * (self.deadline - self.begin)
        return min(self.deadline, time.monotonic() + max(LEAST_SECONDS, share, self.space.short_seconds(candidate)))

    def run(self, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Trial after trial, until the budget is spent or `is_over`, which is asked after each; whether it is spent."""
        while self._worth_starting():
            self._prepare()
            if (asked := self._ask()) is None:
                break
            start = time.monotonic()
            self._try(*asked, start)
            self.durations.append(time.monotonic() - start)
            if is_over():
                return False
        return True

    def _prepare(self) -> None:
        """Let the strategy do what takes long, once, when the queue has no candidate left for this worker: those come
        first, so that there is a model however little time is left. No lock is held meanwhile."""
        if self.prepared or not isinstance(self.study.sampler, AskTellSampler):
            return
        if len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))) <= self.number:
            self.prepared = True
            self.study.sampler.strategy.prepare()

    def _worth_starting(self) -> bool:
        """A trial that meets the deadline keeps its best epoch, so half of the usual time is worth a start."""
        if (self.folder / plans.ENOUGH).exists():
            return False
        usual = statistics.median(self.durations) if self.durations else 0.0
        return self.deadline - time.monotonic() > 0.5 * usual

    def _ask(self) -> tuple[optuna.Trial, Candidate] | None:
        with locked(self.folder / ASKING), together(self.study):
            while True:
                if (due := self.stopping.due(self.study)) is not None:
                    return self._taken_over(go_on(self.study, due))
                trials = self.study.get_trials(deepcopy=False)
                if sum(map(is_spent, trials)) >= self.plan.trials:
                    return None
                refused = [one.user_attrs[INFEASIBLE]["key"] for one in trials if INFEASIBLE in one.user_attrs]
                if len(refused) >= patience(self.plan.trials):
                    return None
                taken = {one.user_attrs[RUN]["key"] for one in trials if RUN in one.user_attrs and is_spent(one)}
                taken.update(refused)
                lost = guard(trials, greater_is_better=self.plan.greater_is_better)
                if lost and isinstance(self.study.sampler, AskTellSampler):
                    self.study.sampler.strategy.forget()
                trial, candidate = propose(self.study, self.space, taken)
                if lost and first_origin(trial, trials) == "prior":
                    trial.set_user_attr(REFUSED, True)
                    self.study.tell(trial, state=TrialState.FAIL)
                    continue
                if self._too_large(trial, candidate):
                    if time.monotonic() > self.deadline:
                        return None
                    continue
                return self._taken_over(trial, candidate)

    def _taken_over(self, trial: optuna.Trial, candidate: Candidate | None = None) -> tuple[optuna.Trial, Candidate]:
        """The trial and its candidate, under this process's name."""
        candidate = candidate or self.space.suggest(trial)
        trial.set_user_attr(RUN, {"pid": os.getpid(), "key": self.space.canonical(candidate)})
        return trial, candidate

    def _too_large(self, trial: optuna.Trial, candidate: Candidate) -> bool:
        """Whether a candidate's network is larger than its share of the limit; it is told as failed then."""
        if self.plan.limits.size_mb is None:
            return False
        size, allowed = megabytes_of(self.workshop.network(candidate)), self.plan.limits.size_mb
        if self.plan.limits.allows_size(size):
            return False
        mark = {"key": self.space.canonical(candidate), "size_mb": size, "allowed_mb": allowed}
        trial.set_user_attr(INFEASIBLE, mark)
        self.study.tell(trial, state=TrialState.FAIL)
        return True

    def _try(self, trial: optuna.Trial, candidate: Candidate, start: float) -> None:
        first = trial.user_attrs.get(FINISHES, trial.number)  # it goes on as it was begun: from the same seed
        seed, cpu = self.plan.seed * 10_000 + first, time.thread_time()
        network, inherited = self._network(trial, candidate, seed)
        try:
            trained = self._train(trial, candidate, network, seed, take(self.folder, first))
        except DivergedError:
            trial.set_user_attr(DIVERGED, True)
            self.study.tell(trial, state=TrialState.FAIL)
            return
        stopped = trained.ending == "stopped"
        result = Result(
            number=trial.number,
            candidate=candidate,
            origin=origin_of(trial),
            state="pruned" if stopped else "complete",
            score=trained.score,
            best_epoch=trained.best_epoch,
            history=trained.history,
            seed=seed,
            seconds=time.monotonic() - start,
            ending=trained.ending,
            inherited=inherited,
            cpu=time.thread_time() - cpu,
            parameters=parameters(network),
            latency_ms=single_row_ms(network, self.arrays.of(candidate.text("scaling"))[1]),
        )
        result = self._against_limit(trial, result, network)
        if len(self.plan.objectives) > 1:
            result = result.model_copy(update={"values": values_of(result, self.plan.objectives)})
        plans.keep_trial(self.folder, result, safetensors.torch.save(trained.state), trained.outputs)
        if trained.paused is not None:  # never before its result: it must not be ahead of what is told
            put(self.folder, first, trained.paused)
        tell(self.study, result)
        if self.stopping.pauses:
            tidy(self.folder, self.stopping.kept(self.study))

    def _against_limit(self, trial: optuna.Trial, result: Result, network: Network) -> Result:
        """The result with its latency in the serving runtime where torch's says nothing for sure, and the trial told
        how far it is above the limit: samplers that mind constraints avoid its like."""
        limits = self.plan.limits
        if not limits.allows_latency(result.latency_ms):
            _, rows, _ = self.arrays.of(result.candidate.text("scaling"))
            served = served_row_ms(network, rows, self.plan.layout.image)
            result = result.model_copy(update={"served_ms": served})
        if limits.latency_ms is not None and result.row_ms is not None:
            trial.set_constraint("latency_ms", result.row_ms / limits.latency_ms - 1)
        return result

    def _train(
        self, trial: optuna.Trial, candidate: Candidate, network: Network, seed: int, paused: Paused | None
    ) -> Trained:
        training, validation, labels = self.arrays.of(candidate.text("scaling"))

        def report(epoch: int, score: float) -> bool:
            if not self.stopping.watches(epoch):
                return False
            keep_score(self.study, trial, epoch, score)
            return self.stopping.should_stop(self.study, trial, epoch)

        def score(outputs: Outputs) -> float:
            return self.plan.score(labels, outputs)

        share = kept_share(candidate.choices)
        trained = (partial(train_and_prune, share=share) if share < 1 else train)(
            network,
            training=training,
            validation=validation,
            recipe=self.space.recipe(candidate),
            problem=self.plan.problem,
            score=score,
            greater_is_better=self.plan.greater_is_better,
            seed=seed,
            deadline=self.limit(candidate),
            report=report,
            pausing=self.stopping.pauses,
            paused=paused,
        )
        regression = self.plan.problem == "regression"
        return trained if regression else levelled(trained, network, training, score)

    def _network(self, trial: optuna.Trial, candidate: Candidate, seed: int) -> tuple[Network, bool]:
        """The network, with all of its units, and whether it begins with a prior's weights, or with those of the trial
        it is a mutation of."""
        network, layout = self.workshop.network(unpruned(candidate), seed), self.plan.layout
        member, parent = self._elder(trial, candidate), self._parent(trial, candidate)
        state = None
        if member is not None:
            old = self.elders.by_prefix[member].layout
            state = inherit(network, prior_weights(self.folder, member), old, layout)
        elif parent is not None:
            weights = safetensors.torch.load_file(plans.trial_folder(self.folder, parent) / plans.WEIGHTS)
            state = inherit(network, weights, layout, layout)
        if state is not None:
            network.load_state_dict(state)
        return network, state is not None

    def _parent(self, trial: optuna.Trial, candidate: Candidate) -> int | None:
        """The trial that a candidate is a mutation of, where its network is akin (Elsken et al. 2017: a child that
        begins where its parent ended needs few epochs), and began with weights of its own: of a line of heirs each is
        the luckiest of many on the same validation rows, and the weights carry that luck along."""
        found = trial.user_attrs.get(PARENT)
        parent = None if found is None else plans.read_result(self.folder, found)
        if parent is None or parent.inherited:
            return None
        return parent.number if akin(parent.candidate, candidate) else None

    def _elder(self, trial: optuna.Trial, candidate: Candidate) -> str | None:
        """Whose weights a trial begins with. Fresh ones begin with their own: they judge the prior, and once it has
        lost, sampled ones do too."""
        if origin_of(trial) != "sampled":
            return trial.user_attrs.get(INHERIT)
        lost = guard(self.study.get_trials(deepcopy=False), greater_is_better=self.plan.greater_is_better)
        member = None if lost else self.elders.nearest(candidate)
        if member is not None:
            trial.set_user_attr(INHERIT, member)  # if it is screened, it is finished from the same weights
        return member


def prior_members(folder: Path) -> PriorMembers:
    """The prior's members whose weights may be inherited; none without a prior."""
    path = folder / PRIOR
    return PriorMembers.model_validate_json(path.read_bytes()) if path.is_file() else PriorMembers(by_prefix={})


def prior_weights(folder: Path, member: str) -> dict[str, torch.Tensor]:
    """The weights of one of the prior's members, given by the prefix of its names."""
    with safetensors.safe_open(folder / PRIOR_WEIGHTS, framework="pt") as file:
        return {name.removeprefix(member): file.get_tensor(name) for name in file.keys() if name.startswith(member)}  # noqa: SIM118 - a safetensors file is no dict


def end_with(parent: int) -> None:
    """Watch the parent in a thread, and end this process at once when it has gone."""
    if os.getppid() != parent:
        os._exit(1)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def main(folder: Path, number: int, parent: int) -> None:
    """Run one worker. It may be started before its study is ready: the plan is what is written last."""
    end_with(parent)
    torch.set_num_threads(1)
    with locked(folder / WORKING, shared=True):
        make_fabric()
        while not (folder / plans.PLAN).exists():
            time.sleep(WAIT_SECONDS)
        Worker(folder, number).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # everything is on disk, and taking torch down takes seconds
