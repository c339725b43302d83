"""The tree-structured Parzen estimator, as Optuna has it."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from retrain.search.geometry import Space
from retrain.search.strategies.base import Strategy

STARTUP = 10


class WeightedTpe(optuna.samplers.TPESampler):
    """TPE whose random draws follow the weights of a space's options."""

    def __init__(self, space: Space, draws: int, **options: Any) -> None:
        super().__init__(**options)
        self._options, self._draws = space.weighted, np.random.default_rng(draws)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A draw by weight, which TPE asks for only while it models nothing of a dimension."""
        if (option := self._options.get(param_name)) is not None:
            return option.sample(self._draws)
        return super().sample_independent(study, trial, param_name, param_distribution)


class Tpe(Strategy):
    """Tree-structured Parzen estimator, joint over the dimensions that occur together (Falkner et al. 2018), spreading
    out over what parallel workers try."""

    name: ClassVar[str] = "tpe"
    paper: ClassVar[str] = "Bergstra et al. 2011"
    drawn_by_weight: ClassVar[int] = STARTUP

    @classmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the first trials, the portfolio among them, are not modelled. A user's weights are followed
        by those of them that are drawn at random; after them the trials alone decide."""
        sampler = partial(WeightedTpe, space, seed) if space.weighted else optuna.samplers.TPESampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`, in Optuna since 2.8
            return sampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP)
