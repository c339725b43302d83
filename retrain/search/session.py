"""A whole search: from a task and its rows to a sealed bundle.

    checks, splits, schema, preparation -> study over worker processes -> ensemble, calibration, graph, card

The study lives in a folder named by a fingerprint of data and question. A search that was killed goes on from there:
finished trials are kept, interrupted ones run again, and only the rest of the budget is used. Other data, or another
question, begin a fresh study beside it.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

from registry.bundle import ModelBundle
from registry.cores import cores
from registry.energy import cpu_seconds
from registry.errors import TaskError
from registry.locks import exclusive
from registry.metrics import metrics_for
from registry.mistakes import under
from registry.task import TaskSpec
from retrain.checks import require
from retrain.families.base import Reads
from retrain.families.catalogue import families_for
from retrain.finding import Finding
from retrain.image_checks import image_name, load_images
from retrain.search import here
from retrain.search import plan as plans
from retrain.search.ahead import Ahead
from retrain.search.budget import Budget, kept_seconds, read_spent, write_spent
from retrain.search.closing import close, mixed, standing
from retrain.search.crew import Crew
from retrain.search.enough import Enough
from retrain.search.experience import Experience, Former, lesson
from retrain.search.heritage import Elders, Heritage, hand_down
from retrain.search.journal import begin_study, locked
from retrain.search.limits import Limits
from retrain.search.material import Material, gather, hash_frame, write_arrays
from retrain.search.plan import Plan
from retrain.search.portfolio import opening, portfolio, weighted_draws
from retrain.search.progress import Progress as Progress
from retrain.search.progress import beginning, silent
from retrain.search.question import fingerprint
from retrain.search.sealing import Finish
from retrain.search.shelf import PAUSED
from retrain.search.space import SearchSpace
from retrain.search.stopping.catalogue import stopping_named
from retrain.search.strategies.catalogue import require_fitting, strategy_named
from retrain.search.tally import WORKING, best_of, enqueue, is_spent, quality_of, recover
from retrain.search.worker import Worker

_LOG = logging.getLogger("everfit")

LOCK = "search.lock"
LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
"""How long after the deadline a worker that does not end is killed."""


def search(
    task: TaskSpec,
    frame: pd.DataFrame,
    *,
    folder: Path,
    out: Path,
    prior: ModelBundle | None = None,
    trials: int,
    seconds: float,
    seed: int,
    fresh_start: bool = False,
    enough: int = 0,
    formers: Sequence[Former] = (),
    parent_version: str | None = None,
    progress: Callable[[Progress], None] = silent,
) -> ModelBundle:
    """Search for a model of `task` on raw rows that hold its target and time, and seal it as a bundle in `out`.

    `folder` keeps the study. The trials end after `trials` of them, or so long before `seconds` of wall-clock have gone
    that what follows has its (`budget.py`). `prior` is a former model whose candidates and weights begin the search;
    `formers` are studies of other tasks, for strategies that learn from them. From `enough` trials on (0: never) no
    more are begun once the networks found are surely better than the prior (`enough.py`). Raises `DataError` for fatal
    findings, `BusyError` while another search holds the folder, `OutsideError` when workers keep dying.
    """
    begin, cpu = time.monotonic(), cpu_seconds()
    require_means(task)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK, f"the search for {task.name}"):
        frame, found = load_images(frame, task)
        require(found)
        reads: Reads = "table" if image_name(frame, task) is None else "image"
        require_choices(task, reads)
        data_hash = hash_frame(frame)
        home = folder / fingerprint(task, data_hash, seed, prior)
        if fresh_start:
            shutil.rmtree(home, ignore_errors=True)
        kept = kept_seconds(seconds, refit=prior is None and reads == "table")
        budget = Budget(begin, trials, seconds, seed, enough, *kept)
        session = Session(task, home, budget, prior, progress, formers)
        # of sessions that were killed: at least, as their interrupted trials are not counted
        earlier = session.spent_cpu + plans.trained_cpu(home)
        material, study = session.run(frame, found)
        finish = Finish(
            data_hash=data_hash,
            seed=seed,
            parent_version=parent_version,
            until=material.newest(material.parts.train),
            heritage=session.heirlooms(study),
            seconds=lambda: session.spent + time.monotonic() - begin,
            cpu=lambda: earlier + cpu_seconds() - cpu,
            tell=session.stage,
            boosted=session.ahead.boosted,
        )
        return close(material, home, session.plan, study, out, finish, session.elders, budget.refit_until(session.end))


def require_means(task: TaskSpec) -> None:
    """Raise `TaskError` for a strategy, objectives, a family or choices that do not fit; the rows play no part."""
    means = task.search
    with under("search.strategy"):
        strategy = strategy_named(means.strategy)
    with under("search.stopping"):
        stopping_named(means.stopping)
    require_fitting(strategy, means.objectives)
    with under("search.families"):
        names = SearchSpace.of(means.families, 1, means.max_epochs, task.problem).names
    if "image" in task.columns.kinds.values():
        families_for(means.families, "image")
    if not means.choices:
        strategy.require(names)
        return
    refused: list[TaskError] = []
    kinds: tuple[Reads, ...] = ("table", "image")  # which of them the rows will tell
    for reads in kinds:
        try:
            require_choices(task, reads)
        except TaskError as error:
            refused.append(error)
    if len(refused) == len(kinds):
        raise refused[0]


def require_choices(task: TaskSpec, reads: Reads) -> None:
    """Raise `TaskError` for choices that do not fit what a task's networks read."""
    means = task.search
    if means.choices:
        space = SearchSpace.of(means.families, 1, means.max_epochs, task.problem, reads, means.choices)
        strategy_named(means.strategy).require(space.names)


class Session:
    """One run of a study: prepares it, or finds it prepared, and sees its workers through to the end."""

    def __init__(
        self,
        task: TaskSpec,
        folder: Path,
        budget: Budget,
        prior: ModelBundle | None,
        progress: Callable[[Progress], None],
        formers: Sequence[Former] = (),
    ) -> None:
        self.task, self.folder, self.budget, self.prior, self.progress = task, folder, budget, prior, progress
        self.formers = tuple(formers)
        self.metric = metrics_for(task.problem)[task.metric]
        self.spent, self.spent_cpu = read_spent(folder)
        self._begin_cpu = time.process_time()
        self.end = budget.begin + max(0.0, budget.seconds - self.spent)
        self.deadline = max(budget.begin, self.end - budget.closing - budget.refit)
        self.heritage: Heritage | None = None
        self.plan: Plan
        self.ahead: Ahead
        self._goal: Enough | None = None
        self._looked = 0

    def run(self, frame: pd.DataFrame, found: Sequence[Finding] = ()) -> tuple[Material, optuna.Study]:
        """Prepare and finish the study; what it was made from, and the study. `found` is known of the frame already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / WORKING):  # the workers of a killed session have ended when this is free
            (self.folder / plans.PLAN).unlink(missing_ok=True)
            (self.folder / plans.ENOUGH).unlink(missing_ok=True)  # found out anew
            for torn in (self.folder / PAUSED).glob("*.partial"):
                torn.unlink()
        begins_small = self.prior is not None and len(frame) <= here.ROWS
        crew = Crew(self.folder, 0 if begins_small else self.workers)
        try:
            self.stage("preparation", f"checks, splits and preparation{self.budget.told}")
            material = gather(self.task, frame, found)
            study = self._ready(material)
            self.ahead = Ahead(material, self.budget.seed)
            _ = self.elders  # made while the workers train
            self._goal = self._find_goal(material)
            if begins_small and not self._train_here(study):
                crew.grow(self.workers)
            self._see_through(crew, study)
        finally:
            crew.stop()
        for done in (plans.ARRAYS, PAUSED):
            shutil.rmtree(self.folder / done, ignore_errors=True)
        return material, study

    def stage(self, stage: str, message: str = "", *, lasting: bool = False) -> None:
        """Tell of a stage in which no trials run."""
        left = max(0.0, self.end - time.monotonic())
        self.progress(Progress(stage, 0, None, None, self.metric.name, left, message, lasting))

    def heirlooms(self, study: optuna.Study) -> dict[str, Any]:
        """What became of the prior, JSON-able; empty without one."""
        return self.heritage.record(study) if self.heritage is not None else {}

    @property
    def workers(self) -> int:
        """How many train at a time: those beyond the cores would only take memory, and time from each other."""
        return min(self.task.search.workers, cores())

    @property
    def elders(self) -> Elders:
        """The prior's members that stand for election to the ensemble; none without a prior."""
        return self.heritage.elders if self.heritage is not None else Elders()

    def _ready(self, material: Material) -> optuna.Study:
        """The study with its queue filled and its plan written: the workers begin."""
        write_arrays(material, self.folder)
        scale = material.scale
        self.plan = Plan(
            problem=self.task.problem,
            metric=self.task.metric,
            strategy=self.task.search.strategy,
            families=families_for(self.task.search.families, "table" if material.schema.image is None else "image"),
            rows=len(material.parts.train),
            max_epochs=self.task.search.max_epochs,
            trials=self.budget.trials,
            workers=self.workers,
            deadline=self.deadline,
            seed=self.budget.seed,
            stopping=self.task.search.stopping if strategy_named(self.task.search.strategy).stoppable else "none",
            seconds=self._trial_seconds(),
            layout=material.layout,
            d_out=material.d_out,
            centre=scale.centre if scale is not None else 0.0,
            spread=scale.spread if scale is not None else 1.0,
            choices=self.task.search.choices,
            objectives=self.task.search.objectives,
            ensemble=self.task.search.ensemble,
            limits=Limits.of(self.task.constraints, self.task.search.ensemble),
            experience=Experience.of(len(material.parts.train), material.schema, material.target, self.formers),
            ready=datetime.now(),
        )
        space = self.plan.space
        if said := lesson(self.task.name, self.formers, space.experience, space.taught):
            self.stage("preparation", said, lasting=True)
        costs = len(self.plan.objectives) - 1
        study = begin_study(self.folder, greater_is_better=self.metric.greater_is_better, costs=costs)
        if self.prior is not None:
            self.heritage = hand_down(self.prior, material, space, self.folder)
        if study.get_trials(deepcopy=False):
            recover(study, self.folder)
        elif self.heritage is not None:
            self.heritage.enqueue(study, space, self.budget.seed)
        else:
            strategy = strategy_named(self.plan.strategy)
            taught = space.taught if strategy.learns_from_others else None
            draw = partial(space.sample, np.random.default_rng(self.budget.seed))
            for candidate, origin in opening(portfolio(space), taught, draw):
                enqueue(study, space, candidate, origin)
            for candidate in weighted_draws(space, strategy, self.budget.seed):
                enqueue(study, space, candidate, "sampled")
        plans.write_json(self.folder / plans.PLAN, self.plan)
        return study

    def _trial_seconds(self) -> float:
        """What all trials of the study together may take: those that have ended, and the workers' time that is left."""
        used = sum(one.seconds for one in plans.read_results(self.folder))
        return used + max(0.0, self.deadline - time.monotonic()) * self.workers

    def _find_goal(self, material: Material) -> Enough | None:
        if self.prior is None or not self.budget.enough:
            return None
        try:
            return Enough(self.prior, material)
        except ValueError as reason:
            _LOG.info("no end before the budget's: %s", reason)
            return None

    def _train_here(self, study: optuna.Study) -> bool:
        """Train in this process what the prior and its guard begin with, if that is small; whether it was, and done."""
        if self.heritage is None or self.plan.reads == "image":
            return False
        worker = Worker(self.folder, 0)
        first = [one.candidate for one in self.heritage.queue(worker.space, self.budget.seed)][: self.budget.trials]
        if not here.is_small(worker.workshop, first, self.budget.trials):
            return False
        self.stage("search", "training in this process")
        begin, known = self._begin_cpu, plans.trained_cpu(self.folder)

        def after() -> None:
            self._begin_cpu = begin + plans.trained_cpu(self.folder) - known  # trials are counted apart
            self._keep_spent()
            self._look(study)

        if here.train_here(worker, after):
            return True
        recover(study, self.folder, [os.getpid()])
        return False

    def _keep_spent(self) -> None:
        seconds = self.spent + time.monotonic() - self.budget.begin
        write_spent(self.folder, seconds, self.spent_cpu + time.process_time() - self._begin_cpu)

    def _see_through(self, crew: Crew, study: optuna.Study) -> None:
        while crew.working:
            time.sleep(LOOK_SECONDS)
            dead = crew.bury()
            if dead:
                recover(study, self.folder, dead)
                if time.monotonic() < self.deadline:
                    crew.replace(len(dead))
            self._keep_spent()
            self._look(study)
            if time.monotonic() > self.deadline + PATIENCE_SECONDS:
                crew.stop()
        recover(study, self.folder)
        self._look(study)  # the last trials may have ended since

    def _look(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state.is_finished()]
        best = best_of(ended, greater_is_better=self.metric.greater_is_better)
        scored = sum(quality_of(trial) is not None for trial in ended)
        tried = sum(map(is_spent, ended))
        if self._goal is not None and scored >= max(self.budget.enough, self._looked + 1):
            self._looked = scored
            found = standing(plans.read_results(self.folder), self.plan)[: self.task.search.ensemble]
            if found and self._goal.reached(mixed(self.folder, self.plan, found)):
                (self.folder / plans.ENOUGH).touch()
                self._goal = None
        left = max(0.0, self.end - time.monotonic())
        going = "" if tried else beginning(sum(one.state is optuna.trial.TrialState.RUNNING for one in trials))
        self.progress(Progress("search", tried, self.budget.trials, best, self.metric.name, left, going))
