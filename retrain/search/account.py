"""What a finished study did and took, for the card."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.families.base import OF_TRAINING, Candidate, Reads
from retrain.families.catalogue import family_named
from retrain.search.asking import FINISH, FINISHES
from retrain.search.importance import importances
from retrain.search.limits import INFEASIBLE
from retrain.search.plan import Plan, Result
from retrain.search.portfolio import portfolio
from retrain.search.strategies.catalogue import strategy_named
from retrain.search.tally import DIVERGED, RUN, first_origin
from retrain.trials import Searched, Tried


def account(
    study: optuna.Study,
    plan: Plan,
    results: Sequence[Result],
    chosen: Collection[int],
    validation: float | None,
    *,
    sufficed: bool = False,
) -> Searched:
    """A study's account. `chosen` are the numbers of the trials in the ensemble, `validation` is its metric there.
    `sufficed`: it ended before its budget, since what was found was good enough."""
    trials = study.get_trials(deepcopy=False)
    spans = [span for one in results if (span := span_of(one, trials[one.number])) is not None]
    tried = {architecture(result.candidate, plan.reads) for result in results}
    known = {architecture(candidate, plan.reads) for candidate in portfolio(plan.space)}
    return Searched(
        strategy=plan.strategy,
        how=how_it_chooses(plan.strategy),
        teachers=() if (taught := plan.space.taught) is None else taught.teachers,
        families=plan.families,
        workers=plan.workers,
        planned=0 if sufficed else plan.trials,
        tried=tuple(_tried(result, plan, trials, result.number in chosen) for result in results),
        diverged=sum(DIVERGED in one.user_attrs for one in trials),
        relapsed=sum(DIVERGED in one.user_attrs and FINISHES in one.user_attrs for one in trials),
        interrupted=sum(map(_interrupted, trials)),
        wall=covered_seconds(spans),
        waited=0.0 if plan.ready is None or not spans else max(0.0, (min(spans)[0] - plan.ready).total_seconds()),
        busy=sum(one.seconds for one in results),
        architectures=len(tried),
        novel=len(tried - known),
        validation=validation,
        importances=importances(study),
        objectives=plan.objectives,
        refused=None if plan.limits.size_mb is None else sum(INFEASIBLE in one.user_attrs for one in trials),
        slow=None
        if plan.limits.latency_ms is None
        else sum(not plan.limits.allows_latency(one.row_ms) for one in results),
    )


def how_it_chooses(strategy: str) -> str:
    """What a strategy says of itself, with its paper.

    >>> how_it_chooses("evolution")
    'Mutates the best of a few drawn from a population whose oldest member dies (Real et al. 2018).'
    """
    known = strategy_named(strategy)
    said = " ".join((known.__doc__ or "").split()).removesuffix(".")
    return f"{said} ({known.paper})." if known.paper else f"{said}."


def architecture(candidate: Candidate, reads: Reads) -> str:
    """A candidate's network without its training, regularisation and initialisation: equal for isomorphic networks."""
    family = family_named(candidate.family)
    known = (*family.parameters_for(reads), *family.on_demand())
    names = {one.name for one in known}.difference(OF_TRAINING)
    own = family.canonical({name: value for name, value in candidate.choices.items() if name in names})
    return Candidate(family=candidate.family, choices=own).key


def span_of(result: Result, trial: FrozenTrial) -> tuple[datetime, datetime] | None:
    """When a finished trial ran. Its end is not when the study was told: that may be after a kill."""
    if trial.datetime_start is None:
        return None
    return trial.datetime_start, trial.datetime_start + timedelta(seconds=result.seconds)


def covered_seconds(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """The seconds in which at least one of the spans lies."""
    total, until = 0.0, datetime.min
    for begin, end in sorted(spans):
        total += max(0.0, (end - max(begin, until)).total_seconds()) if end > until else 0.0
        until = max(until, end)
    return total


def _interrupted(trial: FrozenTrial) -> bool:
    """Whether its worker died: those that were passed over were never run."""
    return trial.state == TrialState.FAIL and RUN in trial.user_attrs and DIVERGED not in trial.user_attrs


def _tried(result: Result, plan: Plan, trials: Sequence[FrozenTrial], chosen: bool) -> Tried:
    return Tried(
        number=result.number,
        score=result.score,
        origin=first_origin(trials[result.number], trials),
        complete=result.state == "complete",
        chosen=chosen,
        cpu=result.cpu,
        parameters=result.parameters,
        latency_ms=result.latency_ms,
        again=result.origin == FINISH,
        allowed=plan.limits.allows_latency(result.row_ms),
        inherited=result.inherited,
    )
