"""No early stopping: what the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import optuna
from optuna.trial import FrozenTrial

from retrain.search.stopping.base import Course, Stopping


class Never(Stopping):
    """Every trial is trained to its end."""

    name: ClassVar[str] = "none"

    def watches(self, epoch: int) -> bool:
        """Nothing is reported."""
        return False

    def judge(self, study: optuna.Study, trials: Sequence[FrozenTrial], own: Course, epoch: int) -> bool:
        """No."""
        return False
