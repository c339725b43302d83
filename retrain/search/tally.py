"""What a study's journal says of its trials, beside Optuna's own: origins, budgets, interruptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from retrain.families.base import Candidate
from retrain.search import plan as plans
from retrain.search.plan import Origin, Result
from retrain.search.space import SearchSpace
from retrain.search.strategies import ORIGIN
from retrain.search.warm import guard_fires

RUN = "run"
"""Who runs a trial: the process, and its candidate's key."""
DIVERGED = "diverged"
REFUSED = "refused"
INHERIT = "inherit"
RETRY = "retry"


def origin_of(trial: FrozenTrial | optuna.Trial) -> Origin:
    """Where a trial's candidate comes from."""
    origin: Origin = trial.user_attrs.get(ORIGIN, "sampled")
    return origin


def is_spent(trial: FrozenTrial) -> bool:
    """Whether a trial counts against the budget: running, finished or diverged; not repeated or interrupted."""
    if trial.state == TrialState.FAIL:
        return DIVERGED in trial.user_attrs
    return trial.state != TrialState.WAITING


def guard(trials: Sequence[FrozenTrial], *, greater_is_better: bool) -> bool:
    """Whether the fresh candidates among these trials have beaten the prior's."""

    def scores(origin: Origin) -> list[float]:
        ended = [one for one in trials if one.state.is_finished() and origin_of(one) == origin]
        return [float(one.value) for one in ended if one.value is not None]

    return guard_fires(scores("prior"), scores("fresh"), greater_is_better=greater_is_better)


def enqueue(
    study: optuna.Study, space: SearchSpace, candidate: Candidate, origin: Origin, *, member: str | None = None
) -> None:
    """Put a candidate of the space into the queue. `member` names the prior's weights it may inherit."""
    marks = {ORIGIN: origin, **({INHERIT: member} if member is not None else {})}
    study.enqueue_trial(space.params(candidate), user_attrs=marks)


def tell(study: optuna.Study, result: Result) -> None:
    """Tell a study a result that is on disk."""
    pruned = result.state == "pruned"
    state = TrialState.PRUNED if pruned else TrialState.COMPLETE
    study.tell(result.number, None if pruned else result.score, state)


def recover(study: optuna.Study, folder: Path, lost: Callable[[FrozenTrial], bool]) -> int:
    """Settle the running trials whose process is gone: told if their result is on disk, else enqueued again, once.
    Gives back how many were enqueued."""
    again = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not lost(trial):
            continue
        result = plans.read_result(folder, trial.number)
        if result is not None:
            tell(study, result)
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        if RETRY not in trial.user_attrs and trial.params:
            marks = {key: value for key, value in trial.user_attrs.items() if key in (ORIGIN, INHERIT)}
            study.enqueue_trial(trial.params, user_attrs={**marks, RETRY: trial.number})
            again += 1
    return again
