"""Early stopping of weak trials: asynchronous successive halving (ASHA, Li et al. 2020).

A trial goes on past a rung only while it is among the best third of all that reached it. Rungs are at 1, 3, 9, 27
epochs, times the first one.
"""

from __future__ import annotations

import optuna

FACTOR = 3
FEWEST_STEPS = 10


def first_rung(steps_per_epoch: int, max_epochs: int) -> int:
    """The first epoch after which a trial may be stopped: on small tables one epoch has taught too little.

    >>> first_rung(60, 27), first_rung(4, 27), first_rung(1, 2)
    (1, 3, 2)
    """
    return min(1 if steps_per_epoch >= FEWEST_STEPS else FACTOR, max_epochs)


def rungs(first: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared.

    >>> rungs(1, 27), rungs(3, 10)
    ((1, 3, 9, 27), (3, 9))
    """
    found = []
    epoch = first
    while epoch <= max_epochs:
        found.append(epoch)
        epoch *= FACTOR
    return tuple(found)


def halving(first: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner with these rungs; steps are epochs counted from 1."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=FACTOR)
