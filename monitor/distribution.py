"""A quantity's distribution in bins that the reference sets: what a window leaves behind of it is a vector of counts.

Counts add up over windows, so nothing is read twice; and how far two of them are apart is known from the counts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import kolmogorov

from monitor.dependence import design_effect
from monitor.significance import homogeneity, jensen_shannon
from registry.metrics import Array

BINS = 32
"""Most bins: of about equal counts in the reference for numbers, the most frequent values and the rest for others."""

WITNESSES = 8
"""Bins, or borders of them, whose dependence in time is looked at."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Distance:
    """How far a window is from the reference, 0 to 1, and the chance of so much while nothing has changed."""

    value: float
    p_value: float


@dataclass(frozen=True)
class Distribution:
    """The bins and the reference's rows in them, in time order, (m,); -1 is missing, which is passed over. `edges` are
    the borders between bins of numbers and `middle` is their median; `names` are the values of other bins, of which
    the last is any other value."""

    codes: Codes
    edges: Array | None = None
    names: pd.Index | None = None
    middle: float = float("nan")

    @cached_property
    def counts(self) -> Codes:
        """Reference rows by bin."""
        return self._count(self.codes)

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1 if self.edges is not None else len(self.names if self.names is not None else ()) + 1

    def count(self, values: npt.NDArray[Any]) -> Codes:
        """Rows by bin, of values (n,)."""
        return self._count(self.code(values))

    def code(self, values: npt.NDArray[Any]) -> Codes:
        """The bin of each of (n,) values."""
        if self.edges is not None:
            numbers = np.asarray(values, dtype=np.float64)
            found = np.searchsorted(self.edges, numbers, side="left")
            return np.where(np.isnan(numbers), -1, found)
        places = np.asarray((self.names if self.names is not None else pd.Index([])).get_indexer(pd.Index(values)))
        return np.where(pd.isna(values), -1, np.where(places < 0, self.size - 1, places))

    def distance(self, counts: Codes, *, stride: float = 1.0) -> Distance | None:
        """Of a window's counts; None where it, or the reference, has no value. `stride`: see `design_effect`.

        Numbers: Kolmogorov-Smirnov at the borders, by the asymptotic law with Stephens' (1970) correction, which is
        conservative for bins. Others: Jensen-Shannon, by Pearson's test. Both for as many independent rows as the
        window's are worth (Rao & Scott 1981).
        """
        rows, known = int(counts.sum()), int(self.counts.sum())
        if not rows or not known:
            return None
        worth = 1 / self.effect(rows, stride)
        if self.edges is None:
            share = homogeneity(worth * counts.astype(np.float64), self.counts.astype(np.float64))
            return Distance(jensen_shannon(counts.astype(np.float64), self.counts.astype(np.float64)), share)
        gap = float(np.abs(counts.cumsum() / rows - self.counts.cumsum() / known).max())
        root = np.sqrt(rows * worth * known / (rows * worth + known))
        return Distance(gap, float(kolmogorov((root + 0.12 + 0.11 / root) * gap)))

    def effect(self, rows: int, stride: float) -> float:
        """The design effect of so many consecutive rows."""
        if (rows, stride) not in self._effects:
            self._effects[rows, stride] = design_effect(self._witnesses, rows, stride=stride)
        return self._effects[rows, stride]

    @cached_property
    def _effects(self) -> dict[tuple[int, float], float]:
        return {}

    @cached_property
    def _witnesses(self) -> Array:
        """Indicators (m, w) of being below a border, or in a bin, without missing rows."""
        codes = self.codes[self.codes >= 0]
        if self.edges is None:
            return np.asarray(codes[:, None] == np.argsort(-self.counts)[:WITNESSES], dtype=np.float64)
        borders = np.unique(np.linspace(0, self.size - 1, WITNESSES + 2).astype(np.int64)[1:-1])
        return np.asarray(codes[:, None] <= borders, dtype=np.float64)

    def _count(self, codes: Codes) -> Codes:
        return np.bincount(codes + 1, minlength=self.size + 1)[1:]


def of_numbers(reference: npt.NDArray[Any]) -> Distribution:
    """The distribution of (m,) reference numbers, NaN where missing."""
    values = np.asarray(reference, dtype=np.float64)
    present = values[~np.isnan(values)]
    if not len(present):
        return Distribution(np.full(len(values), -1), edges=np.empty(0))
    edges = np.unique(np.quantile(present, np.arange(1, BINS) / BINS, method="lower"))
    bare = Distribution(np.empty(0, dtype=np.int64), edges=edges)
    return Distribution(bare.code(values), edges=edges, middle=float(np.median(present)))


def of_categories(reference: npt.NDArray[Any]) -> Distribution:
    """The distribution of (m,) reference values of any kind, None or NaN where missing."""
    names = pd.Series(reference).value_counts().index[: BINS - 1]
    bare = Distribution(np.empty(0, dtype=np.int64), names=names)
    return Distribution(bare.code(reference), names=names)
