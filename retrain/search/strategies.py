"""Strategies: how the next candidate is chosen, on any space. A strategy is an Optuna sampler; `propose` asks it and
passes over candidates that were tried before (TPE repeats a fifth of its samples on discrete spaces)."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

import optuna

from registry.errors import TaskError, unknown
from retrain.families.base import Candidate
from retrain.search.space import SearchSpace

ATTEMPTS = 8
SKIPPED = "skipped"
ORIGIN = "origin"
STARTUP = 10


class Strategy(ABC):
    """A way to choose candidates."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""

    @abstractmethod
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler, one for each process: processes need different seeds."""


class RandomStrategy(Strategy):
    """Every candidate anew, from the whole space: the baseline of every comparison."""

    name: ClassVar[str] = "random"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Independent uniform draws."""
        return optuna.samplers.RandomSampler(seed=seed)


class TpeStrategy(Strategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), joint over the dimensions that occur together (Falkner
    et al. 2018), spreading out over what parallel workers try."""

    name: ClassVar[str] = "tpe"

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the first trials, the portfolio among them, are not modelled."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`, in Optuna since 2.8
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP
            )


STRATEGIES: tuple[Strategy, ...] = (RandomStrategy(), TpeStrategy())


def strategy_named(name: str) -> Strategy:
    """The strategy of a name. Raises `TaskError` that names the known ones."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise TaskError(unknown("strategy", name, [strategy.name for strategy in STRATEGIES]))


def propose(study: optuna.Study, space: SearchSpace, taken: Collection[str]) -> tuple[optuna.Trial, Candidate]:
    """The next trial and its candidate: one that was enqueued, else one from the sampler.

    A candidate whose key is in `taken` is told as failed and asked for again; after `ATTEMPTS` a repeated one is
    accepted, since a small space may be exhausted. Enqueued repetitions are passed over without counting.
    """
    attempts = 0
    while True:
        trial = study.ask()
        candidate = space.suggest(trial)
        if candidate.key not in taken or attempts >= ATTEMPTS:
            return trial, candidate
        attempts += ORIGIN not in trial.user_attrs
        trial.set_user_attr(SKIPPED, "duplicate")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
