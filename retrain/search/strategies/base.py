"""What a strategy is: an Optuna sampler for a space, or a class that asks and tells whole candidates.

`AskTell` is the plain form. It is told every trial that ended, once, in the order of their numbers, and asked for the
next candidate. What it knows follows from what it was told: a process that takes a study over, or works on it beside
others, is told the same trials and goes on from there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from registry.errors import TaskError
from retrain.families.base import Candidate
from retrain.search.geometry import Space

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
TRIES = 16
"""How often a strategy is asked again for a candidate that was not tried before."""


@dataclass(frozen=True)
class Seen:
    """A trial that ended. `value` is its score, greater being better; a stopped trial's is the last one it had.
    `excess`: by how much it breaks the task's constraints, added up, as far as they were measured. `reached`: the epoch
    after which it was stopped. `others`: its values in further objectives, greater being better."""

    number: int
    candidate: Candidate
    value: float
    excess: float = 0.0
    reached: float = math.inf
    others: tuple[float, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether it keeps to the task's constraints."""
        return self.excess <= 0


@dataclass(frozen=True)
class Proposal:
    """A candidate, and the number of the trial that it is a mutation of."""

    candidate: Candidate
    parent: int | None = None


class Strategy(ABC):
    """A way to choose candidates. A subclass's docstring begins with the sentence that lists of strategies show."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    """The families that it can search, of which there must be one; none: it searches all, as most strategies do."""
    several: ClassVar[bool] = False
    """Whether it can look for several objectives at once."""
    stoppable: ClassVar[bool] = True
    """Whether it learns from trials that were stopped early; else none is."""
    learns_from_others: ClassVar[bool] = False
    """Whether it asks what former studies of other tasks found."""
    drawn_by_weight: ClassVar[int] = 0
    """How many candidates drawn by a user's weights it is given first, where weights would hardly count otherwise."""

    @classmethod
    def require(cls, families: Collection[str]) -> None:
        """Raise `TaskError` where none of these families is one that it can search."""
        if cls.needs and not set(cls.needs) & set(families):
            known = ", ".join(map(repr, cls.needs))
            raise TaskError(
                f"strategy {cls.name!r} trains one network that holds a whole family: search.families must have one of "
                f"{known}, and has {', '.join(map(repr, families))}"
            )

    @classmethod
    @abstractmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """Optuna's sampler for a space, one for each process: processes need different seeds."""


class AskTell(Strategy):
    """Chooses whole candidates from what it was told."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self.space, self.rng = space, rng

    @classmethod
    def sampler(cls, space: Space, seed: int) -> optuna.samplers.BaseSampler:
        """This strategy under Optuna."""
        return AskTellSampler(cls(space, np.random.default_rng(seed)))

    def prepare(self) -> None:
        """What takes long and needs no study, before the first question; in other strategies nothing does."""

    @abstractmethod
    def tell(self, seen: Seen) -> None:
        """Take note of a trial that ended."""

    def under_way(self, candidates: Sequence[Candidate]) -> None:
        """Take note of what is being tried while it is asked: all such trials, each time. Nothing in other strategies,
        which are given no candidate twice."""

    def forget(self) -> None:
        """Choose without what former studies teach from now on: it was no help. Nothing in other strategies."""

    def pass_over(self, candidate: Candidate) -> None:
        """Take note of a candidate that it proposed and that need not be tried, as it is known already, or would be in
        the size that there is time for. Of use to those that would propose it again."""

    @abstractmethod
    def ask(self) -> Proposal:
        """The next candidate. Asked again when the candidate was tried before."""


class AskTellSampler(optuna.samplers.BaseSampler):
    """Tells an `AskTell` strategy the trials of a study, and puts its candidates into new ones.

    `taken` are the canonical keys of candidates that need not be tried again; `proposal` is the latest.
    """

    def __init__(self, strategy: AskTell) -> None:
        self.strategy = strategy
        self.taken: Collection[str] = ()
        self.proposal: Proposal | None = None
        self._told: set[int] = set()
        self._params: dict[str, Any] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose the whole candidate, unless one was enqueued."""
        self.proposal, self._params = None, {}
        for each in told(study, self.strategy.space, self._told):
            self.strategy.tell(each)
        self.strategy.under_way(running(study, self.strategy.space, trial))
        if trial.system_attrs.get("fixed_params"):
            return
        space = self.strategy.space
        for _ in range(TRIES):
            asked = self.strategy.ask()
            self.proposal = replace(asked, candidate=space.affordable(asked.candidate))
            if space.canonical(self.proposal.candidate) not in self.taken:
                break
            self.strategy.pass_over(asked.candidate)
        assert self.proposal is not None
        self._params = dict(space.params(self.proposal.candidate))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The candidate's choice; for a queued candidate that lacks one, any."""
        if param_name in self._params:
            return self._params[param_name]
        draw = optuna.samplers.RandomSampler(seed=int(self.strategy.rng.integers(2**31)))
        return draw.sample_independent(study, trial, param_name, param_distribution)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: candidates are chosen whole."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None: candidates are chosen whole."""
        return {}


def told(study: optuna.Study, space: Space, known: set[int]) -> Sequence[Seen]:
    """The trials of a study that ended since the last call; `known` holds the numbers of those told before."""
    signs = [1.0 if one == optuna.study.StudyDirection.MAXIMIZE else -1.0 for one in study.directions]
    out = []
    for trial in study.get_trials(deepcopy=False, states=ENDED):
        if trial.number in known:
            continue
        known.add(trial.number)
        candidate, values = space.read(trial.params), _values(trial)
        if candidate is not None and values:
            value, *others = (sign * one for sign, one in zip(signs, values, strict=False))
            excess = sum(max(0.0, one) for one in trial.constraints.values())
            reached = math.inf if trial.state == TrialState.COMPLETE else max(trial.intermediate_values)
            out.append(Seen(trial.number, candidate, value, excess, reached, tuple(others)))
    return out


def running(study: optuna.Study, space: Space, new: FrozenTrial) -> list[Candidate]:
    """The candidates of a study's trials that have not ended, but for a new one."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    found = (space.read(one.params) for one in trials if one.number != new.number)
    return [one for one in found if one is not None]


def _values(trial: FrozenTrial) -> list[float]:
    """Of all objectives; of the first alone, as it was last, for a trial that was stopped."""
    if trial.state == TrialState.COMPLETE:
        return list(trial.values or ())
    return [trial.intermediate_values[max(trial.intermediate_values)]] if trial.intermediate_values else []
