"""Which dimensions of the space mattered for being among the best trials of a study.

PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"),
by Optuna, whose evaluator also takes dimensions that exist only beside some values of others: it compares how a
dimension is distributed among the best trials with how it is among all of the study's own, regime by regime.
"""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from registry.plurals import counted
from retrain.search.asking import FINISHES
from retrain.search.tally import quality_of
from retrain.trials import Importances

LEAST_TRIALS = 10
"""Fewer trials say nothing of a dozen dimensions."""
LEAST_BEST, BEST = 5, 0.1
"""The best tenth is looked at, or so much more that it holds five trials: fewer are no distribution."""


def importances(study: optuna.Study) -> Importances:
    """The shares of a finished study's dimensions; a reason instead where they cannot be told.

    Trials that were stopped early count as worse than all that trained to the end, which is what they were stopped for:
    the best ones must all have trained to the end. A candidate that went on after a pause counts once, as it ended.
    """
    known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    ended = list({one.user_attrs.get(FINISHES, one.number): one for one in known}.values())
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    best = max(LEAST_BEST, math.ceil(BEST * len(ended)))
    if len(ended) < LEAST_TRIALS:
        return Importances(
            trials=len(ended), reason=f"{counted(len(ended), 'trial')} ended, at least {LEAST_TRIALS} are needed"
        )
    if len(complete) < best:
        reason = f"{len(complete)} of {counted(len(ended), 'trial')} trained to the end, at least {best} are needed"
        return Importances(trials=len(ended), reason=reason)
    if len({quality_of(trial) for trial in complete}) == 1:
        return Importances(trials=len(ended), reason="all trials that trained to the end have the same score")
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # here: they load scikit-learn

    evaluator = PedAnovaImportanceEvaluator(target_quantile=(best - 0.5) / len(ended))  # Optuna rounds up
    with warnings.catch_warnings():
        # That a dimension was met by few trials: the card says how many there were, and what that means.
        warnings.filterwarnings("ignore", message="Some regimes for parameter", category=UserWarning)
        found = get_param_importances(_by_rank(study, ended), evaluator=evaluator)
    shares = tuple((name, float(share)) for name, share in found.items() if share > 0)
    return Importances(shares, len(ended), best)


def _by_rank(study: optuna.Study, ended: list[FrozenTrial]) -> optuna.Study:
    """The same trials with their rank, 0 for the best, in place of their score: nothing else of it is used."""
    sign = 1 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1

    def badness(trial: FrozenTrial) -> tuple[bool, float]:
        value = quality_of(trial)
        return trial.state != TrialState.COMPLETE, math.inf if value is None else sign * value

    ranked = optuna.create_study(direction="minimize")
    ranked.add_trials(
        create_trial(value=float(rank), params=trial.params, distributions=trial.distributions)
        for rank, trial in enumerate(sorted(ended, key=badness))
    )
    return ranked
