"""Shift of all inputs, or all outputs, together: can a classifier tell the window's rows from the reference's?

The classifier two-sample test (C2ST, Lopez-Paz & Oquab 2017, arXiv 1610.06545) in its AUC form (Kim et al. 2021): a
classifier is fitted to which side a row is from; on rows that it has not seen, its scores are no better than chance
while nothing has changed. It sees what no column shows alone, such as a correlation that has turned round.

The classifier is Fisher's linear discriminant, with a ridge (Friedman 1989), on the columns' ranks in the reference,
their squares and their products by pairs, which a window of 500 rows pays with some milliseconds; a boosted one took a
hundred and found little more.

Each side is cut into two halves in time, and each half is scored by the model of the other one: neighbours of a day,
which are alike, are not in both. With u the mid-ranks of n scores of a half, divided by n,

    AUC - 1/2 = mean of u over the window - mean of u over the reference,    variance = var(u) (e_w / n_w + e_r / n_r)

where e are the design effects of the reference's u (`dependence.py`). The halves' results lean the same way by chance
too (what the first has learnt from noise, the second has in its rows): they count as one. All windows share a reference
that its luck may make easy to be told from: a score is a product of what one half has learnt, and what the other one
has, and where the reference has a share s of both their variances, two windows' scores have s^2 in common. Its root,
times the normal's deviation for a `doubt` (`significance.py`), is taken off. Where dependence outlasts
half a window, both halves share a week's weather and any window is told from the rest: how surely, stretches of the
reference as long as the window show, each tested against the others. Their mean, and what their spread exceeds that of
independent rows by, are taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from scipy.linalg.blas import dsyr, dsyrk
from scipy.linalg.lapack import dposv
from scipy.special import ndtr, ndtri

from monitor.basis import Basis, Placed, Scales
from monitor.comparison import SURE
from monitor.dependence import Dependence, unsure
from monitor.encoding import encoded, lean_schema, sampled
from monitor.measurements import Measurement
from monitor.values import spaced
from monitor.views import Measure, Side, View
from registry.bundle import Manifest
from registry.metrics import Array, mid_ranks
from registry.yardstick import Features, width

MOST_ROWS = 2_000
"""Rows of a side, evenly spread over its time: a window is measured every few minutes."""

LEAST_ROWS = 100
RIDGE = 0.3
"""Of a second moment of 1."""

CONSTANT = 1e-6
"""Standard deviation up to which a number of the discriminant, none of which exceeds 1, does not vary."""

STRETCHES = 12
"""Stretches of the reference that show how surely a window is told from it while nothing changes."""

LEAST_STRETCH = 50
"""Fewest rows of one; it is a quarter of the reference at most."""


@dataclass(frozen=True)
class Sample:
    """n rows of a side in time order as (n, d) numbers, of which there is one in `spacing` rows of the stream."""

    features: Features
    spacing: float

    def __len__(self) -> int:
        return len(self.features)

    def thinned(self) -> Sample:
        """At most `MOST_ROWS` of them, evenly spaced."""
        rows = spaced(len(self), MOST_ROWS)
        return Sample(self.features[rows], self.spacing * len(self) / max(1, len(rows)))

    def parted(self, start: int, stop: int) -> tuple[Sample, Sample]:
        """The rows from `start` to `stop`, and all others."""
        others = np.concatenate([self.features[:start], self.features[stop:]])
        return Sample(self.features[start:stop], self.spacing), Sample(others, self.spacing)


@dataclass(frozen=True)
class Usual:
    """The mean and the standard deviation of a score while nothing changes, at least those of independent rows; and by
    how much the mean is taken to be larger, since all windows share its error."""

    mean: float = 0.0
    spread: float = 1.0
    error: float = 0.0


@dataclass(frozen=True)
class Separation:
    """How well two samples are told apart, and how surely: a standard score of independent rows that are alike. `share`
    is the reference's of the score's variance."""

    auc: float
    score: float
    share: float

    def p_value(self, usual: Usual, doubt: float) -> float:
        """The chance of at least that while they are alike, the reference being as easy to be told from as one is with
        the probability `doubt`, or as its stretches leave room for: both are about the same luck."""
        off = max(usual.error, -self.share * float(ndtri(doubt)))
        return float(ndtr(-(self.score - max(0.0, usual.mean + off)) / usual.spread))


class Known:
    """A reference of `LEAST_ROWS` rows or more that windows are told from; `categorical` (d,) says which columns are
    codes. What depends on the reference alone is computed once.

    >>> rng = np.random.default_rng(0)
    >>> alike, other = (Sample(rng.normal(shift, 1, (200, 2)), 1.0) for shift in (0.0, 2.0))
    >>> Known(alike, [False, False]).separate(other).auc > 0.9
    True
    """

    def __init__(self, reference: Sample, categorical: Sequence[bool]) -> None:
        self._spacing = reference.spacing
        self._scales = Scales(reference.features, categorical)
        placed = self._scales.place(reference.features)
        self._lacking = bool(placed.missing.any())
        first, second = placed.halves()
        self._halves = [_Half(self._scales, first, second), _Half(self._scales, second, first)]

    def separate(self, window: Sample) -> Separation:
        """The test on `LEAST_ROWS` rows or more."""
        placed = self._scales.place(window.features)
        first, second = placed.halves()
        lacking = self._lacking or bool(placed.missing.any())  # else what is missing tells nothing apart
        ranks = [self._halves[0].ranks(first, second, lacking), self._halves[1].ranks(second, first, lacking)]
        gaps = [float(mine.mean() - known.mean()) for mine, known in ranks]
        errors, shares = _errors(ranks, self._spacing / window.spacing)
        sure = sum(gaps) / sum(errors) if sum(errors) > 0 else 0.0
        return Separation(0.5 + sum(gaps) / 2, sure, sum(shares) / 2)


def usual(reference: Sample, rows: int, categorical: Sequence[bool]) -> Usual:
    """How surely so many rows of the stream are told from a reference of their kind, by stretches of it.

    Few stretches tell it badly. The mean is taken to be larger by its standard error, and the spread by as much as it
    is with a probability of 10 % only (chi-squared), of what it exceeds that of independent rows by.

    Luck that outlasts a window is the next one's too. Where `STRETCHES` that do not overlap show it, the spread is that
    of the long run (`Dependence.over_windows`), and the mean, whose error all windows share, is larger by SURE standard
    errors of values each of which is told from most of the others (Nadeau & Bengio 2003, 1 / J + n2 / n1).
    """
    length = min(round(rows / reference.spacing), len(reference) // 4)
    if length < LEAST_STRETCH:
        return Usual()
    if len(reference) // length < STRETCHES:
        scores = _overlapping(reference, length, categorical)
        spread = float(np.std(scores, ddof=1))
        error = spread / len(scores) ** 0.5
    else:
        scores = _in_a_row(reference, length, categorical)
        lasting = Dependence(scores[:, None]).over_windows(1, cautious=False).effect
        spread = float(np.std(scores, ddof=1)) * lasting**0.5
        error = SURE * spread * (2 / len(scores)) ** 0.5
    larger = 1 + max(0.0, spread - 1) * unsure(len(scores)) ** 0.5
    return Usual(float(np.mean(scores)), larger, error)


def _overlapping(reference: Sample, length: int, categorical: Sequence[bool]) -> Array:
    """How surely each of `STRETCHES` stretches of so many rows is told from all other rows."""
    starts = spaced(len(reference) - length + 1, STRETCHES)
    parts = [reference.parted(int(start), int(start) + length) for start in starts]
    return np.array([Known(others.thinned(), categorical).separate(mine.thinned()).score for mine, others in parts])


def _in_a_row(reference: Sample, length: int, categorical: Sequence[bool]) -> Array:
    """The same of all stretches there are that do not overlap, in time order: neighbours are told from the same rows,
    those nearby, up to a `STRETCHES`-th of all, being left out, since they are of the same week (h-block
    cross-validation, Burman, Chow & Nolan 1994)."""
    starts, near, out = np.arange(len(reference) // length) * length, len(reference) // STRETCHES, []
    for group in np.array_split(starts, STRETCHES):
        _, others = reference.parted(max(0, int(group[0]) - near), int(group[-1]) + length + near)
        known = Known(others.thinned(), categorical)
        stretches = (reference.parted(int(start), int(start) + length)[0] for start in group)
        out += [known.separate(one.thinned()).score for one in stretches]
    return np.array(out)


class _Half:
    """One half of the reference to learn from, the other one to be scored."""

    def __init__(self, scales: Scales, training: Placed, tested: Placed) -> None:
        self._basis = Basis(scales, training)
        known = self._basis.expand(training)
        self._mean = known.mean(axis=1)
        self._second = np.asfortranarray(known @ known.T / known.shape[1])
        self._tested = self._basis.expand(tested)

    def ranks(self, training: Placed, tested: Placed, lacking: bool) -> tuple[Array, Array]:
        """Mid-ranks, over their number, of the tested rows of window and reference; `lacking`: see `Basis.expand`."""
        direction = self._direction(self._basis.expand(training, lacking=lacking))
        mine = direction @ self._basis.expand(tested, lacking=lacking)
        scores = np.concatenate([mine, direction @ self._tested[: len(direction)]])
        ranks = mid_ranks(scores) / len(scores)
        return ranks[: len(tested)], ranks[len(tested) :]

    def _direction(self, rows: Features) -> Array:
        """What tells the window's rows (k, n) from the reference; both sides weigh the same. Of the matrix, which is
        symmetric, only the lower half is made."""
        k, n = rows.shape
        mean = rows.mean(axis=1)
        centre = (mean + self._mean[:k]) / 2
        alike = dsyrk(0.5 / n, rows.T, 0.5, self._second[:k, :k], trans=1, lower=1)
        alike = dsyr(-1.0, centre, a=alike, lower=1, overwrite_a=1)
        scale = np.sqrt(np.maximum(alike.diagonal(), 0.0))
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > CONSTANT)
        alike *= inverse
        alike *= inverse[:, None]
        diagonal = np.einsum("ii->i", alike)  # as it stands in the matrix
        diagonal += RIDGE
        _, found, failed = dposv(alike, inverse * (mean - self._mean[:k]), lower=1, overwrite_a=1)
        if failed:  # the ridge makes it definite, but for numbers that are none: no direction tells them apart
            return np.zeros_like(mean)
        return np.asarray(inverse * found, dtype=np.float64)


def _errors(ranks: Sequence[tuple[Array, Array]], stride: float) -> tuple[list[float], list[float]]:
    """Standard error of each half's gap, and the share that the reference has in its variance as far as it shows for
    real that its rows depend; `stride` is how many of the window's rows one of the reference spans."""
    known = Dependence(np.concatenate([half - half.mean() for _, half in ranks])[:, None])
    effect = cache(known.effect)  # both halves are of a size, or nearly so
    errors, shares = [], []
    for mine, half in ranks:
        effects = effect(len(mine), stride=stride), effect(len(half))
        variance = np.concatenate([mine, half]).var()
        own, shared = effects[0] / len(mine), known.whole / len(half)
        errors.append(float(np.sqrt(variance * (own + effects[1] / len(half)))))
        shares.append(shared / (own + shared))
    return errors, shares


class DomainShift(Measure):
    """Shift of all input columns together; a moment counts as its lag behind the row's event time."""

    name: ClassVar[str] = "domain_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        rows, key = len(view.reference), _by_stride(self.name, view)
        known = view.once(key, lambda: _inputs(view, view.reference, view.stride, rows))
        plain = lean_schema(view)
        lags = len(_lagging(view.manifest))
        codes = [column.kind == "categorical" for column in plain.columns for _ in range(width(column))]
        categorical = [*codes, *([False] * lags)]
        mine = _inputs(view, view.window, 1.0, MOST_ROWS)
        return [_measured(view, self.name, mine, known, categorical)]


def _by_stride(name: str, view: View) -> str:
    """Views of one reference whose windows were read at another density share nothing that depends on it."""
    return f"{name}, one in {view.stride:.6g}"


def _lagging(manifest: Manifest) -> list[str]:
    """Datetime columns beside the event time."""
    schema, time = manifest.data_schema, manifest.task.time
    return [column.name for column in schema.of("datetime") if time in schema.names and column.name != time]


def _inputs(view: View, side: Side, spacing: float, most: int) -> Sample:
    plain, time, rows = lean_schema(view).columns, view.manifest.task.time, spaced(len(side), most)
    lagging = _lagging(view.manifest)
    known = sampled(view, plain, rows) if side is view.window else encoded(side, plain, rows)
    if lagging:
        inputs = side.inputs[[str(time), *lagging]].iloc[rows]
        lags = [(inputs[time] - inputs[lag]).dt.total_seconds().to_numpy() for lag in lagging]
        known = np.column_stack([known, *lags])
    return Sample(known, spacing * len(side) / max(1, len(rows)))


class OutputShift(Measure):
    """Shift of all that the model answers together: probabilities or prediction, uncertainty, disagreement. A column
    that the model does not use does not move it. Intervals say nothing more: their width is a radius times the
    uncertainty, and the radius may follow the labels (`adaptive.py`)."""

    name: ClassVar[str] = "output_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement, on the rows that the champion answered."""
        known = view.once(
            _by_stride(self.name, view), lambda: _outputs(view.reference, view.stride, len(view.reference))
        )
        mine = _outputs(view.window, 1.0, MOST_ROWS)
        return [_measured(view, self.name, mine, known, [False] * mine.features.shape[1])]


def _outputs(side: Side, spacing: float, most: int) -> Sample:
    scores = side.scores
    rows = spaced(len(scores), most)
    columns = [scores.scores[rows], scores.uncertainty[rows], scores.disagreement[rows]]
    features = np.column_stack(columns).astype(np.float64)
    features[~np.isfinite(features)] = np.nan
    return Sample(features, spacing * len(scores) / max(1, len(rows)))


def _measured(view: View, name: str, window: Sample, reference: Sample, categorical: Sequence[bool]) -> Measurement:
    window = window.thinned()
    if min(len(window), len(reference)) < LEAST_ROWS:
        return Measurement(name=name, rows=len(window), note=f"needs {LEAST_ROWS} rows of each side")
    if not categorical:
        return Measurement(name=name, rows=len(window), note="no columns to compare")
    key = _by_stride(name, view)
    found = view.once(f"{key}, to tell from", lambda: Known(reference.thinned(), categorical)).separate(window)
    size = 2 ** round(np.log2(len(window) * window.spacing))  # windows of about a size share what is usual
    known = view.once(f"{key}, {size} rows", lambda: usual(reference, size, categorical))
    value, p_value = max(0.0, 2 * found.auc - 1), found.p_value(known, view.doubt)
    return Measurement(name=name, value=value, p_value=p_value, rows=len(window), note=f"AUC {found.auc:.3f}")
