"""Segments: what is measured of all rows, in each part of them (`parting.py`): its share of the rows, how far answers
have moved in it and elsewhere, and on the labels that are there the task's metric, coverage and calibration.

Answers, and not each column: they weigh what moved by what the model makes of it, and show harm best of what was tried
by Rabanser, Günnemann & Lipton (2019). A shift that is everywhere alike is no segment's: the p-value is that of as
large a difference between the one inside and the one elsewhere, by Kolmogorov's law with the rows that a difference of
four samples is worth. Numbers are looked at in their bins, classes in the order of the bins.

A conformal promise holds over all rows and not in each segment (Vovk 2012), nor is a model calibrated in each: each is
beside its own reference rows. Luck that the window's rows share, those of a segment share at most as much, as they are
fewer a day: the design effect is that of the whole window. Nothing alarms by itself (`located.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from scipy.special import kolmogorov, ndtr

from monitor.binned import known_column
from monitor.calibrated import binned, gaps_before, gaps_now, known_calibration, places_now
from monitor.measurements import Measurement
from monitor.parting import Parting, labelled, partings
from monitor.performance import compared, realised, task_metric
from monitor.shift import PredictionShift
from monitor.significance import LEAST_EXPECTED, wilson
from monitor.uncertainty import chance_of_so_few, covered_before, covered_now, effect_on_coverage, surely_kept
from monitor.values import Codes, Marks
from monitor.views import Measure, Side, View
from registry.metrics import BLOCKS, Array

LEAST_ROWS = 20
"""Fewest rows inside and elsewhere, of either side, whose answers are compared."""

_Z = 1.96
_ANSWERS = PredictionShift()


class SegmentPerformance(Measure):
    """The task's metric in each value of the columns that the task watches apart, beside the same on the reference."""

    name: ClassVar[str] = "segment_performance"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment that has labels; its subject is `column=value`."""
        metric, out = task_metric(view), []
        for parting in partings(view):
            if parting.column is None:
                continue  # `slice_performance` is that
            figures = partial(_figures, view, view.reference, parting.reference, range(len(parting.subjects)))
            before = parting.once(view, "metric", figures)
            labels = parting.rows(labelled(parting.window, view.window))
            there = np.flatnonzero(labels[:-1])
            now = _figures(view, view.window, parting.window, there)
            out += [compared(self.name, parting.subjects[one], metric, now[one], before[one]) for one in there.tolist()]
        return out


def _figures(view: View, side: Side, codes: Codes, segments: Codes | range) -> dict[int, tuple[float, float, int]]:
    metric = task_metric(view)
    return {int(one): realised(metric, side, codes == one) for one in segments}


class SegmentShare(Measure):
    """The share of the rows that each segment makes up, beside that of the reference. The p-value is a normal law's,
    for as many independent rows as the window's are worth by the segments' column; of a slice found there is none."""

    name: ClassVar[str] = "segment_share"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment, where the champion answered any row."""
        return [one for parting in partings(view) for one in self._of(view, parting)]

    def _of(self, view: View, parting: Parting) -> Iterator[Measurement]:
        before = parting.once(view, "rows", lambda: parting.rows(parting.reference))
        now = parting.rows(parting.window)
        rows, known = float(now.sum()), float(before.sum())
        if not rows or not known:
            return
        column = parting.column
        effect = 1.0 if column is None else known_column(view, column).effect(int(rows), view.stride)
        errors = np.sqrt(effect * now * (rows - now) / rows) / rows
        chances = _as_far(now / effect, rows / effect, before, known)
        for place, subject in enumerate(parting.subjects):
            yield Measurement(
                name=self.name,
                subject=subject,
                value=now[place] / rows,
                error=None if column is None else errors[place],
                reference=before[place] / known,
                p_value=None if column is None else chances[place],
                rows=int(rows),
            )


def _as_far(first: Array, rows: float, second: Array, others: float) -> Array:
    """Of counts (k,) among so many rows and among others: the chance of shares as far apart, if they are the same; 1
    where fewer than `LEAST_EXPECTED` are to be expected."""
    both = (first + second) / (rows + others)
    error = np.sqrt(both * (1 - both) * (1 / rows + 1 / others))
    with np.errstate(invalid="ignore"):
        found = 2 * ndtr(-np.abs(first / rows - second / others) / error)
    few = min(rows, others) * np.minimum(both, 1 - both) < LEAST_EXPECTED
    return np.where(few | (error == 0), 1.0, found)


class SegmentShift(Measure):
    """How far the answers in each segment moved, 0 to 1 (Kolmogorov-Smirnov); its reference is the same elsewhere."""

    name: ClassVar[str] = "segment_shift"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment that has `LEAST_ROWS` rows, and as many elsewhere, of either side."""
        found = partings(view)
        if not found:
            return []
        known, places = _ANSWERS.known(view), _ANSWERS.places(view)
        if (places < 0).any():
            return []  # an answer is never missing
        effect = known.effect(max(1, len(places)), view.stride)
        return [one for parting in found for one in self._of(view, parting, places, effect)]

    def _of(self, view: View, parting: Parting, places: Codes, effect: float) -> Iterator[Measurement]:
        known = _ANSWERS.known(view)
        before = parting.once(view, "answers", lambda: parting.table(parting.reference, known.codes, known.size))
        now = parting.table(parting.window, places, known.size)
        moved, least, worth = [], [], np.zeros(len(parting.subjects))
        for inside in (True, False):
            sides = [(one if inside else one.sum(axis=0) - one)[:-1] for one in (now, before)]
            rows = [one.sum(axis=1) for one in sides]
            below = [one.cumsum(axis=1) / np.maximum(1, n)[:, None] for one, n in zip(sides, rows, strict=True)]
            moved.append(below[0] - below[1])
            least += rows
            worth += effect / np.maximum(1, rows[0]) + 1 / np.maximum(1, rows[1])
        inside, elsewhere = (np.abs(one).max(axis=1) for one in moved)
        root = 1 / np.sqrt(worth)  # Stephens' (1970) correction, as in `smirnov_p`
        chances = kolmogorov((root + 0.12 + 0.11 / root) * np.abs(moved[0] - moved[1]).max(axis=1))
        for place in np.flatnonzero(np.minimum.reduce(least) >= LEAST_ROWS).tolist():
            yield Measurement(
                name=self.name,
                subject=parting.subjects[place],
                value=inside[place],
                reference=elsewhere[place],
                p_value=chances[place],
                rows=int(least[0][place]),
                note="its reference is the shift elsewhere",
            )


class SegmentCoverage(Measure):
    """Share of labels inside the conformal set or interval in each segment, with Wilson's interval, beside the same on
    the reference. The p-value is that of `Coverage`, beside what the segment kept there."""

    name: ClassVar[str] = "segment_coverage"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment that has labels."""
        found = partings(view)
        return [one for parting in found for one in self._of(view, parting)] if len(covered_now(view)) else []

    def _of(self, view: View, parting: Parting) -> Iterator[Measurement]:
        promised, effect = view.manifest.task.coverage, effect_on_coverage(view)
        known = parting.once(
            view, "coverage", lambda: _hits(parting, parting.reference, view.reference, covered_before(view))
        )
        hits, rows = _hits(parting, parting.window, view.window, covered_now(view))
        for place in np.flatnonzero(rows[:-1]).tolist():
            n, most = int(rows[place]), int(known[1][place])
            low, high = wilson(int(hits[place]), n)
            kept = min(promised, surely_kept(int(known[0][place]), most, effect))
            yield Measurement(
                name=self.name,
                subject=parting.subjects[place],
                value=hits[place] / n,
                low=low,
                high=high,
                reference=known[0][place] / most if most else None,
                p_value=chance_of_so_few(int(hits[place]), n, kept, effect) if most else None,
                rows=n,
            )


def _hits(parting: Parting, codes: Codes, side: Side, inside: Marks) -> tuple[Array, Array]:
    """How many labels of each segment are inside of their set or interval, and how many there are, (k + 1,)."""
    out, hits = parting.table(labelled(codes, side), inside.astype(np.int64), 2).T
    return hits, out + hits


class SegmentCalibration(Measure):
    """Expected calibration error of the answers in each segment, with its error, beside what calibrated answers show on
    as many labels. The p-value is that of answers that are as much righter, or less right, than their confidence, as
    they were in the segment's reference: a normal law's, for as many independent rows as the window's are worth."""

    name: ClassVar[str] = "segment_calibration"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a segment of `BLOCKS` labels, in classification."""
        if view.manifest.target.problem == "regression" or len(view.window.known[0]) < BLOCKS:
            return []
        return [one for parting in partings(view) for one in self._of(view, parting)]

    def _of(self, view: View, parting: Parting) -> Iterator[Measurement]:
        (confidence, gap), places, known = gaps_now(view), places_now(view), known_calibration(view)
        codes = labelled(parting.window, view.window)
        effect = known.dependence.over_windows(len(gap), stride=view.stride).effect
        now = _confided(parting, codes, confidence, gap)
        before = parting.once(view, "confidence", lambda: _confided_before(view, parting))
        chances = _as_right(now, before, effect)
        for place in np.flatnonzero(now.rows[:-1] >= BLOCKS).tolist():
            rows = np.flatnonzero(codes == place)
            found = binned(confidence.take(rows), gap.take(rows), places.take(rows))
            value, error, lean = found.value, found.error, now.gaps[place] / now.rows[place]
            yield Measurement(
                name=self.name,
                subject=parting.subjects[place],
                value=value,
                error=error,
                low=max(0.0, value - _Z * error),
                high=min(1.0, value + _Z * error),
                reference=found.by_chance(effect),
                p_value=chances[place],
                rows=int(now.rows[place]),
                note=f"{abs(lean):.3f} {'more' if lean > 0 else 'less'} often right than confident",
            )


@dataclass(frozen=True)
class _Confided:
    """Of the labels in each segment, (k + 1,): how many, the sum of being right less confidence, and its variance if
    calibrated."""

    rows: Array
    gaps: Array
    variances: Array


def _confided(parting: Parting, codes: Codes, confidence: Array, gap: Array) -> _Confided:
    return _Confided(parting.rows(codes), parting.rows(codes, gap), parting.rows(codes, confidence * (1 - confidence)))


def _confided_before(view: View, parting: Parting) -> _Confided:
    return _confided(parting, labelled(parting.reference, view.reference), *gaps_before(view))


def _as_right(now: _Confided, before: _Confided, effect: float) -> Array:
    """The chance of gaps (k + 1,) as far from the reference's; 1 where fewer than `LEAST_EXPECTED` answers of either
    side are expected to be wrong."""
    rows, others = np.maximum(1, now.rows), np.maximum(1, before.rows)
    variance = effect * now.variances / rows**2 + before.variances / others**2
    few = np.minimum(now.variances, before.variances) < LEAST_EXPECTED
    apart = np.abs(now.gaps / rows - before.gaps / others) / np.sqrt(np.where(few, 1, variance))
    return np.where(few, 1.0, 2 * ndtr(-apart))
