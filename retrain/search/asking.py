"""The next trial of a study: a candidate that was enqueued, else one that the strategy chooses, none of them twice."""

from __future__ import annotations

from collections.abc import Collection

import optuna

from retrain.families.base import Candidate
from retrain.search.geometry import Space
from retrain.search.strategies.base import AskTellSampler

ATTEMPTS = 8
SKIPPED = "skipped"
ORIGIN = "origin"
FINISH, FINISHES = "finish", "finishes"
"""The origin of a trial that goes on with a paused one, and the number of the trial that its candidate began with."""
INHERIT = "inherit"
"""The prefix of the former model's weights that a trial begins with."""
PARENT = "parent"
"""The number of the trial that a trial is a mutation of."""


def propose(study: optuna.Study, space: Space, taken: Collection[str]) -> tuple[optuna.Trial, Candidate]:
    """The next trial and its candidate: one that was enqueued, else one from the sampler.

    `taken` are canonical keys. A candidate that is among them is told as failed and asked for again; after `ATTEMPTS` a
    repeated one is accepted, since a small space may be exhausted. Enqueued repetitions are passed over without
    counting. One that there is no time to train comes again in a size that there is, after what is queued; but for one
    whose weights have their size.
    """
    sampler = study.sampler
    if isinstance(sampler, AskTellSampler):
        sampler.taken = taken
    attempts = 0
    while True:
        trial = study.ask()
        candidate = space.suggest(trial)
        made = candidate if INHERIT in trial.user_attrs else space.affordable(candidate)
        if made != candidate:
            study.enqueue_trial(space.params(made), user_attrs=trial.user_attrs)
            trial.set_user_attr(SKIPPED, "dear")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if space.canonical(candidate) not in taken or attempts >= ATTEMPTS:
            break
        attempts += ORIGIN not in trial.user_attrs
        trial.set_user_attr(SKIPPED, "duplicate")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    if isinstance(sampler, AskTellSampler) and sampler.proposal and sampler.proposal.parent is not None:
        trial.set_user_attr(PARENT, sampler.proposal.parent)
    return trial, candidate
