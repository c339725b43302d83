"""A quantity's distribution in bins that the reference sets: what a window leaves behind of it is a vector of counts.

Counts add up over windows, so nothing is read twice; and how far two of them are apart is known from the counts alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from monitor.borders import Borders
from monitor.dependence import Dependence
from monitor.evidence import part_of
from monitor.significance import homogeneity, jensen_shannon, smirnov_off, smirnov_p
from monitor.values import Codes, Names, Numbers, Values, places_of
from registry.metrics import Array

BINS = 32
"""Most bins: of about equal counts in the reference for numbers, the most frequent names and the rest for others."""

WITNESSES = 8
"""Bins, or borders of them, whose dependence in time is looked at."""


@dataclass(frozen=True)
class Distance:
    """How far a window is from the reference, 0 to 1, and the chance of so much while nothing has changed, given the
    reference there is."""

    value: float
    p_value: float


@dataclass(frozen=True)
class Distribution:
    """The bins and the reference's rows in them, in time order, (m,); -1 is missing, which is passed over.

    `edges` are the borders between bins of numbers, or None; `names` the names with a bin of their own, the last bin
    being that of any other.
    """

    codes: Codes
    edges: Array | None = None
    names: pd.Index | None = None

    @cached_property
    def counts(self) -> Codes:
        """Reference rows by bin."""
        return np.bincount(self.codes + 1, minlength=self.size + 1)[1:]

    @cached_property
    def total(self) -> int:
        """Reference rows that have a value."""
        return int(self.counts.sum())

    @cached_property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges if self.edges is not None else self._by_name) + 1

    def count(self, values: Values) -> Codes:
        """Rows by bin. Numbers are not asked of names, nor names of numbers."""
        if isinstance(values, Numbers):
            return self._borders.count(values.array, len(values) - values.there)
        return np.bincount(self._places(values), weights=values.counts, minlength=self.size).astype(np.int64)

    def code(self, values: Values) -> Codes:
        """The bin of each row, -1 where missing."""
        if isinstance(values, Numbers):
            found = self._borders.places(values.array)
            return found if values.there == len(values) else np.where(values.missing, -1, found)
        return np.append(self._places(values), -1)[values.codes]

    def distance(self, counts: Codes, *, doubt: float, stride: float = 1.0) -> Distance | None:
        """Of a window's counts; None where it, or the reference, has no value. `doubt`: the probability that the
        reference is off by more than is allowed for. `stride`: see `Dependence.effect`.

        Numbers: Kolmogorov-Smirnov at the borders. Others: Jensen-Shannon, by Pearson's test. Both for as many
        independent rows as the window's, and the reference's, are worth (Rao & Scott 1981).
        """
        rows = int(counts.sum())
        if not rows or not self.total:
            return None
        units = rows / self.effect(rows, stride)
        worth = max(1.0, units)
        if self.edges is None:
            mine, known = worth / rows * counts.astype(np.float64), self.counts / self._dependence.whole
            chance = homogeneity(mine, known, doubt)
            value = jensen_shannon(counts.astype(np.float64), self.counts.astype(np.float64))
            return Distance(value, part_of(chance, units))
        apart = counts.cumsum() / rows
        apart -= self.below
        gap = float(max(apart.max(), -apart.min()))
        return Distance(gap, part_of(smirnov_p(gap, worth, self.off(doubt), BINS), units))

    def off(self, doubt: float) -> float:
        """How far from the numbers it was drawn from the reference is at most, but for a `doubt`."""
        if doubt not in self._offs:
            self._offs[doubt] = smirnov_off(max(1.0, self.total / self._dependence.whole), doubt, BINS)
        return self._offs[doubt]

    def effect(self, rows: int, stride: float) -> float:
        """The design effect of so many consecutive rows, luck that outlasts them included."""
        if (rows, stride) not in self._effects:
            self._effects[rows, stride] = self._dependence.over_windows(
                rows, stride=stride, lasting=True, cautious=False
            ).effect
        return self._effects[rows, stride]

    def middle(self, counts: Codes) -> tuple[float, float]:
        """The borders of the bin that holds the median of numbers that are counted; infinite at the ends."""
        summed = counts.cumsum()
        place = int(summed.searchsorted(summed[-1] / 2))
        return self._ends[place], self._ends[place + 1]

    @cached_property
    def usual_middle(self) -> tuple[float, float]:
        """That of the reference."""
        return self.middle(self.counts)

    @cached_property
    def _ends(self) -> list[float]:
        return [-math.inf, *self._edges.tolist(), math.inf]

    @cached_property
    def below(self) -> Array:
        """The share of the reference's rows up to each bin."""
        return np.asarray(self.counts.cumsum() / self.total, dtype=np.float64)

    @cached_property
    def _effects(self) -> dict[tuple[int, float], float]:
        return {}

    @cached_property
    def _offs(self) -> dict[float, float]:
        return {}

    @cached_property
    def _dependence(self) -> Dependence:
        return Dependence(self._witnesses())

    @cached_property
    def _borders(self) -> Borders:
        return Borders(self._edges)

    @property
    def _edges(self) -> Array:
        return self.edges if self.edges is not None else np.empty(0)

    @cached_property
    def _by_name(self) -> dict[Any, int]:
        return {name: place for place, name in enumerate([] if self.names is None else self.names.tolist())}

    def _places(self, values: Names) -> Codes:
        """The bin of each name."""
        found = places_of(values.names, self._by_name)
        return np.where(found < 0, self.size - 1, found)

    def _witnesses(self) -> Array:
        """Indicators (m, w) of being below a border, or in a bin, without missing rows."""
        codes = self.codes[self.codes >= 0]
        if self.edges is None:
            return np.asarray(codes[:, None] == np.argsort(-self.counts)[:WITNESSES], dtype=np.float64)
        borders = np.unique(np.linspace(0, self.size - 1, WITNESSES + 2).astype(np.int64)[1:-1])
        return np.asarray(codes[:, None] <= borders, dtype=np.float64)


def distribution_of(reference: Values) -> Distribution:
    """The distribution of (m,) reference values."""
    if isinstance(reference, Numbers):
        present = reference.present
        edges = np.unique(np.quantile(present, np.arange(1, BINS) / BINS, method="lower")) if len(present) else present
        return Distribution(Distribution(_NONE, edges=edges).code(reference), edges=edges)
    names = reference.names[np.argsort(-reference.counts, kind="stable")[: BINS - 1]]
    return Distribution(Distribution(_NONE, names=names).code(reference), names=names)


_NONE = np.empty(0, dtype=np.int64)
