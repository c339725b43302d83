"""What a study's journal says of its trials, beside Optuna's own: origins, budgets, interruptions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.families.base import Candidate
from retrain.search import plan as plans
from retrain.search.asking import FINISH, FINISHES, INHERIT, ORIGIN, PARENT
from retrain.search.geometry import Space
from retrain.search.journal import locked
from retrain.search.plan import Origin, Result
from retrain.search.stopping.base import reported
from retrain.search.warm import guard_fires

RUN = "run"
"""Who runs a trial: the process, and its candidate's key."""
DIVERGED = "diverged"
REFUSED = "refused"
BEGUN_WITH = (INHERIT, PARENT)
"""Whose weights a trial begins with: a trial that is run again begins with the same."""
RETRIED = "retried"
ASKING, WORKING = "asking.lock", "working.lock"
"""Held by a worker while it asks for a trial; held by all workers, shared, as long as they live."""
PRIOR, PRIOR_WEIGHTS = "prior.json", "prior.safetensors"


def origin_of(trial: FrozenTrial | optuna.Trial) -> Origin:
    """Where a trial's candidate comes from."""
    origin: Origin = trial.user_attrs.get(ORIGIN, "sampled")
    return origin


def first_origin(trial: FrozenTrial | optuna.Trial, trials: Sequence[FrozenTrial]) -> Origin:
    """Where a candidate came from when it was first tried, for one that goes on after a pause. `trials` are all of the
    study's, by number."""
    return origin_of(trials[trial.user_attrs[FINISHES]] if FINISHES in trial.user_attrs else trial)


def is_spent(trial: FrozenTrial) -> bool:
    """Whether a trial counts against the budget: running, finished or diverged; not repeated or interrupted, nor one
    that goes on with a paused one."""
    if FINISHES in trial.user_attrs:
        return False
    if trial.state == TrialState.FAIL:
        return DIVERGED in trial.user_attrs
    return trial.state != TrialState.WAITING


def quality_of(trial: FrozenTrial) -> float | None:
    """A trial's value of the task's metric, which is the first objective of every study; of a stopped one the last that
    was reported, which studies of several objectives do not take for its value. None without one."""
    if trial.values:
        return float(trial.values[0])
    known = reported(trial) if trial.state == TrialState.PRUNED else {}
    return float(known[max(known)]) if known else None


def best_of(trials: Sequence[FrozenTrial], *, greater_is_better: bool) -> float | None:
    """The best value of the task's metric among ended trials: of those that trained to the end if any did, as one that
    was stopped is no result. None without one."""
    complete = [one for one in trials if one.state == TrialState.COMPLETE]
    values = [value for one in complete or trials if (value := quality_of(one)) is not None]
    return (max if greater_is_better else min)(values, default=None)


def guard(trials: Sequence[FrozenTrial], *, greater_is_better: bool) -> bool:
    """Whether the fresh candidates among these trials, all of the study's by number, have beaten the prior's. One that
    went on after a pause counts as it ended last."""
    ended = [one for one in trials if one.state.is_finished()]
    last = {one.user_attrs.get(FINISHES, one.number): one for one in ended if quality_of(one) is not None}

    def scores(origin: Origin) -> list[float]:
        told = [one for one in last.values() if first_origin(one, trials) == origin]
        return [value for one in told if (value := quality_of(one)) is not None]

    return guard_fires(scores("prior"), scores("fresh"), greater_is_better=greater_is_better)


def enqueue(
    study: optuna.Study, space: Space, candidate: Candidate, origin: Origin, *, member: str | None = None
) -> None:
    """Put a candidate of the space into the queue. `member` names the prior's weights it may inherit."""
    marks = {ORIGIN: origin, **({INHERIT: member} if member is not None else {})}
    study.enqueue_trial(space.params(candidate), user_attrs=marks)


def go_on(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial that goes on with a paused one, given by the first of its candidate: at once, before all that is queued.
    For the holder of the lock under which workers ask."""
    first = study.get_trials(deepcopy=False)[number]
    begun = {key: first.user_attrs[key] for key in BEGUN_WITH if key in first.user_attrs}
    trial = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=first.params,
        distributions=first.distributions,
        user_attrs={ORIGIN: FINISH, FINISHES: number, **begun},
        system_attrs={"fixed_params": first.params},
    )
    study.add_trial(trial)
    return _live(study, study.get_trials(deepcopy=False)[-1])


def tell(study: optuna.Study, result: Result) -> None:
    """Tell a study a result that is on disk."""
    pruned = result.state == "pruned"
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    study.tell(result.number, None if pruned else list(result.values) or result.score, state)


def runner(trial: FrozenTrial) -> int | None:
    """The process that runs a trial; None while it is being asked for."""
    run = trial.user_attrs.get(RUN)
    return None if run is None else int(run["pid"])


def recover(study: optuna.Study, folder: Path, dead: Collection[int] | None = None) -> None:
    """Settle the running trials of these dead workers, or of all: a trial whose result is on disk is told, another is
    enqueued again, but for one that went on with a paused one, which pauses still. A trial is enqueued only once after
    the death of its own worker: it may be the cause of it."""
    with locked(folder / ASKING):
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if dead is None or runner(trial) is None or runner(trial) in dead:
                _settle(study, folder, trial, suspect=dead is not None)


def _live(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A running trial as Optuna hands it out when asked."""
    return optuna.Trial(study, trial._trial_id)


def _settle(study: optuna.Study, folder: Path, trial: FrozenTrial, *, suspect: bool) -> None:
    result = plans.read_result(folder, trial.number)
    if result is not None:
        tell(study, result)
        return
    if suspect and FINISHES in trial.user_attrs:
        _live(study, trial).set_user_attr(RETRIED, True)
    study.tell(trial.number, state=TrialState.FAIL)
    if FINISHES in trial.user_attrs:
        return
    params = trial.params if RUN in trial.user_attrs else trial.system_attrs.get("fixed_params")
    if params and not (suspect and RETRIED in trial.user_attrs):
        kept = (ORIGIN, *BEGUN_WITH, RETRIED)
        marks = {key: trial.user_attrs[key] for key in kept if key in trial.user_attrs}
        study.enqueue_trial(params, user_attrs={**marks, **({RETRIED: True} if suspect else {})})
