"""Whether a row is unlike those that a version was made from: what an answer's `out_of_distribution` says.

A row is, when a number lies outside the range of the training rows, when a category was not among theirs, or when the
networks disagree about it (the mutual information, or the spread, of a deep ensemble: Lakshminarayanan, Pritzel,
Blundell, arXiv 1612.01474) more than about `FAMILIAR` of the reference rows. So about one row in a hundred of the
reference's own kind is said to be so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from registry.schema import CategoricalColumn, NumericColumn, Schema
from registry.scoring import Feed, Scores

FAMILIAR = 0.99


class Novelty:
    """What is familiar to one version."""

    def __init__(self, schema: Schema, disagreement: npt.NDArray[np.float64]) -> None:
        """`disagreement` is that about each of the reference rows."""
        self._most = float(np.quantile(disagreement, FAMILIAR))
        self._ranges = [
            (column.name, -np.inf if column.low is None else column.low, np.inf if column.high is None else column.high)
            for column in schema.columns
            if isinstance(column, NumericColumn)
        ]
        self._categories = [
            (column.name, np.array([*column.categories, ""], dtype=object))
            for column in schema.columns
            if isinstance(column, CategoricalColumn) and column.distinct <= len(column.categories)
        ]
        """Those of which all values of the training rows are known."""

    def of(self, feed: Feed, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which of n rows are out of distribution, (n,)."""
        strange: npt.NDArray[np.bool_] = np.asarray(scores.disagreement, np.float64) > max(self._most, 0.0)
        for name, low, high in self._ranges:
            values = feed[name][:, 0]
            strange |= (values < low) | (values > high)
        for name, known in self._categories:
            strange |= ~np.isin(feed[name][:, 0], known)
        return strange
