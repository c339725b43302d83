"""Which rows of a request are out of distribution: looked at only where a client asks for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from registry.novelty import Novelty
from registry.schema import Schema
from registry.scoring import Scores
from serving.request import Request
from serving.rows import RowReader


class Unfamiliar:
    """What is unfamiliar to one version, by the columns of a request that tell it: no image is decoded for it."""

    def __init__(self, schema: Schema, disagreement: npt.NDArray[np.float64]) -> None:
        """`disagreement` is that about each of the reference rows."""
        self._novelty = Novelty(schema, disagreement)
        telling = [one.name for one in schema.columns if one.kind in ("numeric", "categorical")]
        self._reader = RowReader(schema.without(set(schema.names) - set(telling)))

    def of(self, request: Request, scores: Scores) -> npt.NDArray[np.bool_]:
        """Of n rows that fit, (n,)."""
        read = self._reader
        feed = read.many(request.rows) if request.table is None else read.table(request.table)
        return self._novelty.of(feed, scores)
