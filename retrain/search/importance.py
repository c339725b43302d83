"""Which dimensions of the space mattered for being among the best trials of a study.

PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"),
by Optuna, whose evaluator also takes dimensions that exist only beside some values of others: it compares how a
dimension is distributed among the best trials with how it is among all of the study's own complete ones, regime by
regime.
"""

from __future__ import annotations

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from retrain.trials import Importances

LEAST_TRIALS = 10
"""Fewer complete trials say nothing of a dozen dimensions."""
LEAST_BEST, BEST = 5, 0.1
"""The best tenth is looked at, or so much more that it holds five trials: fewer are no distribution."""


def importances(study: optuna.Study) -> Importances:
    """The shares of a finished study's dimensions; a reason instead where they cannot be told."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < LEAST_TRIALS:
        reason = f"{len(complete)} trials trained to the end, at least {LEAST_TRIALS} are needed"
        return Importances(trials=len(complete), reason=reason)
    if len({trial.value for trial in complete}) == 1:
        return Importances(trials=len(complete), reason="all trials have the same score")
    quantile = max(BEST, LEAST_BEST / len(complete))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    found = get_param_importances(study, evaluator=evaluator)
    shares = tuple((name, float(share)) for name, share in found.items() if share > 0)
    reason = "" if shares else "no dimension differs between the best trials and all of them"
    return Importances(shares, len(complete), quantile, reason)
