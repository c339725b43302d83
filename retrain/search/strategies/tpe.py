"""The tree-structured Parzen estimator, as Optuna has it."""

from __future__ import annotations

import warnings
from typing import ClassVar

import optuna

from retrain.search.geometry import Space
from retrain.search.strategies.base import Strategy

STARTUP = 10


class Tpe(Strategy):
    """Tree-structured Parzen estimator, joint over the dimensions that occur together (Falkner et al. 2018), spreading
    out over what parallel workers try."""

    name: ClassVar[str] = "tpe"
    paper: ClassVar[str] = "Bergstra et al. 2011"

    @classmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler; the first trials, the portfolio among them, are not modelled."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`, in Optuna since 2.8
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP
            )
