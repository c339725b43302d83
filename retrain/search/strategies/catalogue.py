"""The strategies there are: one tuple, names derived. A new strategy is one file and one entry here."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import TaskError, unknown
from registry.task import Objective
from retrain.search.strategies.auto import Auto
from retrain.search.strategies.bananas import Bananas
from retrain.search.strategies.base import Strategy
from retrain.search.strategies.darts import Differentiable
from retrain.search.strategies.enas import Enas
from retrain.search.strategies.evolution import RegularizedEvolution
from retrain.search.strategies.gdas import Gumbel
from retrain.search.strategies.guided import GaussianGuided
from retrain.search.strategies.local_search import LocalSearch
from retrain.search.strategies.nsga import Nsga2, Nsga3
from retrain.search.strategies.one_shot import OneShot
from retrain.search.strategies.pnas import Progressive
from retrain.search.strategies.q_learning import QLearning
from retrain.search.strategies.random_search import RandomSearch
from retrain.search.strategies.reinforce import Reinforce
from retrain.search.strategies.screening import Screening
from retrain.search.strategies.tapas import Tapas
from retrain.search.strategies.tpe import Tpe

STRATEGIES: tuple[type[Strategy], ...] = (
    RandomSearch,
    LocalSearch,
    RegularizedEvolution,
    Reinforce,
    QLearning,
    Tpe,
    GaussianGuided,
    Bananas,
    Progressive,
    Screening,
    Tapas,
    OneShot,
    Enas,
    Differentiable,
    Gumbel,
    Nsga2,
    Nsga3,
    Auto,
)


def strategy_named(name: str) -> type[Strategy]:
    """The strategy of a name. Raises `TaskError` that names the known ones."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise TaskError(unknown("strategy", name, [strategy.name for strategy in STRATEGIES]))


def require_fitting(strategy: type[Strategy], objectives: Sequence[Objective]) -> None:
    """Raise `TaskError` that names those that can, for a strategy of one objective where there are several."""
    if len(objectives) > 1 and not strategy.several:
        able = " or ".join(repr(one.name) for one in STRATEGIES if one.several)
        raise TaskError(
            f"search.objectives: {strategy.name!r} looks for quality alone, and they are "
            f"{', '.join(objectives)}: take {able}, or leave quality alone"
        )
