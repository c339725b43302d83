"""When a re-search has found enough: the gate would say yes, with room to spare.

What was found so far meets the champion on those validation rows that it has never seen, compared as the gate compares
(`paired.py`). The bound has a tenth of the gate's error probability, which leaves room for what choosing
among a few trials adds, and for fresh rows that are others than these. The gate's own rows play no part.
"""

from __future__ import annotations

from registry.bundle import ModelBundle
from registry.conforming import as_datetimes
from registry.metrics import Array, metrics_for
from registry.scoring import Scorer
from retrain.paired import blocks_of, jackknife
from retrain.search.material import Material

LEAST_ROWS = 200
ROOM = 10.0
"""By how much the error probability is smaller than the gate's."""


class Enough:
    """The champion on the validation rows of a material that are newer than all it knows."""

    def __init__(self, champion: ModelBundle, material: Material) -> None:
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
        self._task, self._metric = task, metrics_for(task.problem)[task.metric]
        frame = material.frame.iloc[rows[self._unseen]]
        self._labels = material.labels[rows[self._unseen]]
        self._old = Scorer.load(champion).predict(frame).scores
        self._blocks = blocks_of(as_datetimes(frame[task.time], task.time).to_numpy(), len(frame))

    def reached(self, answers: Array) -> bool:
        """Whether answers to all validation rows, probabilities (n, k) or values (n,), are surely better than the
        champion's, by more than `gate.min_gain`."""
        found = answers[self._unseen]
        new, old = (self._metric.by_block(self._labels, one, self._blocks) for one in (found, self._old))

        def gain(held: Array) -> tuple[Array]:
            return (new(held) - old(held) if self._metric.greater_is_better else old(held) - new(held),)

        gate = self._task.gate
        (lead,) = jackknife(gain, self._blocks, confidence=1 - (1 - gate.confidence) / ROOM)
        return bool(lead.low > gate.min_gain)
