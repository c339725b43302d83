"""Calibration: how far the answers' confidence lies from how often they are right, on the labels that have arrived.

The expected calibration error of the top class (ECE), in bins that hold equal shares of the reference's rows. It is
never 0: bins of few labels differ from their confidence by chance. Calibrated answers show, to first order, with the
gaps of n labels in bins b normal,

    sqrt(2 / pi) sum_b sqrt(effect sum_(i in b) c_i (1 - c_i)) / n

c_i being the confidences, `effect` how much less rows say that depend on their neighbours. That is the figure beside
it: small windows and large ones can both be read. Whether calibration has changed is judged by the log loss's gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitor.borders import Borders
from monitor.dependence import Dependence
from monitor.measurements import Measurement
from monitor.values import Codes
from monitor.views import Measure, View
from registry.metrics import BLOCKS, CALIBRATION_BINS, Array, Labels, hits

_Z = 1.96
_MEAN_OF_NORMAL = math.sqrt(2 / math.pi)
"""Of its absolute value, in standard deviations."""


class Calibration(Measure):
    """Expected calibration error, with the error of a jackknife over blocks of neighbours; its reference is what
    calibrated answers would show on as many labels."""

    name: ClassVar[str] = "calibration"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement for classification; none for regression, whose intervals `coverage` judges."""
        if view.manifest.target.problem == "regression":
            return []
        if (n := len(view.window.known[0])) < BLOCKS:
            return [Measurement(name=self.name, rows=n, note=f"fewer than {BLOCKS} labels")]
        known = known_calibration(view)
        found = binned(*gaps_now(view), places_now(view))
        effect = known.dependence.over_windows(n, stride=view.stride).effect
        value, error = found.value, found.error
        return [
            Measurement(
                name=self.name,
                value=value,
                error=error,
                low=max(0.0, value - _Z * error),
                high=min(1.0, value + _Z * error),
                reference=found.by_chance(effect),
                rows=n,
                note=known.note,
            )
        ]


@dataclass(frozen=True)
class Binned:
    """Of n labels, by bin of confidence: `sums` (BLOCKS, bins) of being right less confidence in each of `BLOCKS` runs
    of neighbours, `sizes` (BLOCKS,) the labels in each, `variances` (bins,) those of the sums if calibrated."""

    sums: Array
    sizes: Array
    variances: Array

    @property
    def value(self) -> float:
        """The error of calibration."""
        return float(np.abs(self.sums.sum(axis=0)).sum() / self.sizes.sum())

    @property
    def error(self) -> float:
        """Its standard error, by leaving out each run. Of what is as small as can be it is up to 1.7 times too large,
        as an absolute value spreads less than what it is of."""
        without = np.abs(self.sums.sum(axis=0) - self.sums).sum(axis=1) / (self.sizes.sum() - self.sizes)
        return float(np.sqrt((BLOCKS - 1) * ((without - without.mean()) ** 2).mean()))

    def by_chance(self, effect: float = 1.0) -> float:
        """What calibrated answers show, where `effect` rows are worth one."""
        return min(1.0, _MEAN_OF_NORMAL * float(np.sqrt(effect * self.variances).sum() / self.sizes.sum()))


def binned(confidence: Array, gap: Array, places: Codes) -> Binned:
    """Of n labels what `gap_of` gives, by which of `CALIBRATION_BINS` each lies in; n is `BLOCKS` at least.

    >>> found = binned(*gap_of(np.tile([0, 1], 750), np.full((1_500, 2), 0.5)), np.zeros(1_500, dtype=np.int64))
    >>> found.value, round(found.by_chance(), 3)
    (0.0, 0.01)
    """
    bins, sizes = CALIBRATION_BINS, np.diff(-(-np.arange(BLOCKS + 1) * len(gap) // BLOCKS))
    by_block = np.repeat(np.arange(BLOCKS) * bins, sizes)
    by_block += places
    sums = np.bincount(by_block, gap, BLOCKS * bins).reshape(BLOCKS, bins)
    variances = np.bincount(places, confidence * (1 - confidence), bins)
    return Binned(*(np.asarray(one, dtype=np.float64) for one in (sums, sizes, variances)))


def gap_of(labels: Labels, scores: Array) -> tuple[Array, Array]:
    """Of (n,) labels and (n, k) probabilities each answer's confidence, and by how much it was more right, (n,)."""
    confidence = np.maximum.reduce(list(scores.T))  # classes are few and rows are many
    return confidence, hits(labels, scores) - confidence


def gaps_now(view: View) -> tuple[Array, Array]:
    """Those of the window's labels, made once."""
    labels, scores = view.window.known
    return view.here("gaps of confidence", lambda: gap_of(labels, scores.scores))


def places_now(view: View) -> Codes:
    """In which bin of confidence each of the window's labels lies, (n,)."""
    return view.here("bins of confidence", lambda: known_calibration(view).borders.places(gaps_now(view)[0]))


def gaps_before(view: View) -> tuple[Array, Array]:
    """Those of the reference's."""
    labels, scores = view.reference.known
    return view.once("gaps of confidence", lambda: gap_of(labels, scores.scores))


@dataclass(frozen=True)
class Known:
    """What the reference says: where confidences are parted, how its rows depend on one another, its own figure."""

    borders: Borders
    dependence: Dependence
    note: str


def known_calibration(view: View) -> Known:
    """That of a view's reference, made once."""
    return view.once(Calibration.name, lambda: _known(view))


def _known(view: View) -> Known:
    gaps, every = gaps_before(view), view.reference.scores.scores
    found = np.quantile(np.maximum.reduce(list(every.T)), np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    borders = Borders(np.nextafter(found, -np.inf))  # what is on a border is above it
    dependence = Dependence(gaps[1][:, None])
    if (n := len(gaps[1])) < BLOCKS:
        return Known(borders, dependence, "")
    return Known(borders, dependence, f"{binned(*gaps, borders.places(gaps[0])).value:.3f} on {n:,} reference labels")
