"""Whether a row is unlike those that a version was made from: `out_of_distribution`, in answers and over windows.

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


class Familiar:
    """What is familiar to one version: the range of each number, the categories of the columns of which all values of
    the training rows are known, and the `most` that the networks disagree about."""

    def __init__(self, schema: Schema, disagreement: npt.NDArray[np.float64]) -> None:
        """`disagreement` is that about each of the reference rows."""
        self.most = max(0.0, float(np.quantile(disagreement, FAMILIAR)))
        self.ranges = [
            (column.name, -np.inf if column.low is None else column.low, np.inf if column.high is None else column.high)
            for column in schema.columns
            if isinstance(column, NumericColumn)
        ]
        self.categories = [
            (column.name, column.categories)
            for column in schema.columns
            if isinstance(column, CategoricalColumn) and column.distinct <= len(column.categories)
        ]


class Novelty:
    """The same, for rows as a graph is fed them."""

    def __init__(self, schema: Schema, disagreement: npt.NDArray[np.float64]) -> None:
        """`disagreement` is that about each of the reference rows."""
        self._known = Familiar(schema, disagreement)
        self._names = [(name, np.array([*known, ""], dtype=object)) for name, known in self._known.categories]

    def of(self, feed: Feed, scores: Scores) -> npt.NDArray[np.bool_]:
        """Which of n rows are out of distribution, (n,)."""
        strange: npt.NDArray[np.bool_] = np.asarray(scores.disagreement, np.float64) > self._known.most
        for name, low, high in self._known.ranges:
            values = feed[name][:, 0]
            strange |= (values < low) | (values > high)
        for name, known in self._names:
            strange |= ~np.isin(feed[name][:, 0], known)
        return strange
