"""The stopping policies there are: one tuple, names derived. A new policy is one file and one entry here."""

from __future__ import annotations

from registry.errors import TaskError, unknown
from retrain.search.stopping.asha import Asha
from retrain.search.stopping.base import Stopping
from retrain.search.stopping.curve import Extrapolation
from retrain.search.stopping.halving import Halving
from retrain.search.stopping.hyperband import Hyperband
from retrain.search.stopping.median import Median
from retrain.search.stopping.none import Never
from retrain.search.stopping.screen import Screen

STOPPING: tuple[type[Stopping], ...] = (Never, Asha, Hyperband, Median, Screen, Halving, Extrapolation)


def stopping_named(name: str) -> type[Stopping]:
    """The policy of a name. Raises `TaskError` that names the known ones."""
    for policy in STOPPING:
        if policy.name == name:
            return policy
    raise TaskError(unknown("stopping policy", name, [policy.name for policy in STOPPING]))
