"""What a bundle's graph tells of an image: the features of the heaviest member's body, in few numbers.

The numbers are the features' coordinates along their principal directions over training rows (Pearson 1901), each of
unit variance there. What the network tells images apart by varies most in its features, and so comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.images import COMPONENTS
from registry.metrics import Array
from retrain.preparation_graph import GraphBuilder

LEAST = 1e-5
"""Share of the features' mean square that a direction's variance has at least: below, what single precision errs by
would be more than the tolerance between graph and torch, once it is stretched to unit variance. A network that has
hardly learnt has large features that hardly vary."""

ROWS = 4_096
"""Training rows that show the directions, evenly spread."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Representation:
    """(features - centre) directions, of the member at `place`: (n, width) to (n, `COMPONENTS`)."""

    place: int
    centre: Floats
    directions: Floats

    @classmethod
    def fit(cls, place: int, features: Array) -> Representation:
        """Learn from the features (n, width) of training rows. Directions that there are not give 0."""
        centre = features.mean(axis=0)
        spread = np.cov(features - centre, rowvar=False, bias=True).reshape(features.shape[1], features.shape[1])
        variances, vectors = np.linalg.eigh(spread)
        most = np.argsort(-variances)[:COMPONENTS]
        told = most[variances[most] > LEAST * max(float(np.square(features).sum(axis=1).mean()), 1e-12)]
        directions = np.zeros((features.shape[1], COMPONENTS))
        directions[:, : len(told)] = _signed(vectors[:, told]) / np.sqrt(variances[told])
        return cls(place, centre.astype(np.float32), directions.astype(np.float32))

    def apply(self, features: Array) -> Floats:
        """(n, width) -> (n, `COMPONENTS`)."""
        return np.asarray((features.astype(np.float32) - self.centre) @ self.directions, dtype=np.float32)

    def add_to(self, graph: GraphBuilder, features: str) -> str:
        """The same as nodes; the name of their output."""
        moved = graph.add("Sub", features, graph.constant(self.centre[None]))
        return graph.add("MatMul", moved, graph.constant(self.directions))


def _signed(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Directions with their largest entry positive: eigenvectors come with either sign."""
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])]))


def heaviest(weights: Sequence[float]) -> int:
    """The place of the member whose features are told."""
    return int(np.argmax(weights))
