"""When a re-search has found enough: the gate would say yes, with room to spare.

The networks found so far, averaged, meet the champion on those validation rows that it has never seen, compared as the
gate compares (`paired.py`). The bound has a tenth of the gate's error probability, which leaves room for what choosing
among a few trials adds, and for fresh rows that are others than these. The gate's own rows play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from registry.bundle import ModelBundle
from registry.conforming import as_datetimes
from registry.metrics import Array, metrics_for
from registry.scoring import Scorer
from retrain.paired import blocks_of, jackknife
from retrain.search import plan as plans
from retrain.search.material import Material
from retrain.search.plan import Plan, Result

LEAST_ROWS = 200
ROOM = 10.0
"""By how much the error probability is smaller than the gate's."""


class Enough:
    """The champion on the validation rows of a study that are newer than all it knows."""

    def __init__(self, champion: ModelBundle, material: Material, plan: Plan) -> None:
        """Raises `ValueError` with the reason where nothing can be compared: too few such rows, other classes, a column
        that is no longer there."""
        task, manifest = material.task, champion.manifest
        rows = material.parts.validation
        self._unseen = material.after(manifest.lineage.known_until, rows)
        if task.time is None or manifest.lineage.known_until is None or self._unseen.sum() < LEAST_ROWS:
            raise ValueError(f"fewer than {LEAST_ROWS} validation rows that the champion does not know")
        if manifest.target.classes != material.target.classes:
            raise ValueError("the champion knows other classes")
        if gone := set(manifest.data_schema.names) - set(material.frame.columns):
            raise ValueError(f"the champion reads {', '.join(sorted(gone))}, which the rows do not have")
        self._task, self._plan, self._metric = task, plan, metrics_for(task.problem)[task.metric]
        frame = material.frame.iloc[rows[self._unseen]]
        self._labels = material.labels[rows[self._unseen]]
        self._old = Scorer.load(champion).predict(frame).scores
        self._blocks = blocks_of(as_datetimes(frame[task.time], task.time).to_numpy(), len(frame))

    def reached(self, folder: Path, best: Sequence[Result]) -> bool:
        """Whether the mean of these trials' networks is surely better than the champion, by more than
        `gate.min_gain`."""
        outputs = [self._plan.answers(plans.read_outputs(folder, one.number)[self._unseen]) for one in best]
        mixture = np.mean(outputs, axis=0)
        new, old = (self._metric.by_block(self._labels, one, self._blocks) for one in (mixture, self._old))

        def gain(held: Array) -> tuple[Array]:
            return (new(held) - old(held) if self._metric.greater_is_better else old(held) - new(held),)

        gate = self._task.gate
        (found,) = jackknife(gain, self._blocks, confidence=1 - (1 - gate.confidence) / ROOM)
        return bool(found.low > gate.min_gain)
