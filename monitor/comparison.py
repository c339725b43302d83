"""Is the champion worse than it was? The arithmetic of that question, apart from what is done about it.

A champion's realised metric m, with standard error s, is compared with a reference r, with standard error e; loss is
r - m (m - r where smaller is better). There are four references, and a `Trail` of comparisons, a window each, with
every one of them:

    its test rows       the champion's figure when it was made. One and the same error e is in all comparisons, so it
                        does not average out: the reference is taken to be worse by SURE e. Where labels are still to
                        come, the performance on all rows stands in for m, from outputs and the labels that are there
                        (`fused.py`); where none is, the one estimated without them (`estimated.py`).
    the windows before  test rows and windows so far, pooled. A window's deviation from all before it is independent of
                        theirs while nothing changes, as recursive residuals are (Brown, Durbin & Evans 1975): nothing
                        has to be allowed for. It finds an abrupt fall where the test rows happened to be hard ones,
                        and learns to live with a slow one, which the others see.
    what newer rows add what a model fitted to newer rows reaches on the very same windows (`attainable.py`). It sees
                        an ageing model through the ups and downs of the weeks, since both models meet the same rows.
    what its answers    the performance that the champion's own outputs promise on the very same rows (`gap.py`), e
    lead one to expect  being the error of its bias. A hard week is expected to be hard: luck that lasts for days
                        takes less from this comparison than from the first two. It counts only while the champion is
                        below its test rows too, by more than is tolerated, errors apart: rows that have become easier
                        can hide a concept that has moved, and then nobody is the worse for it.

The deviation is (loss - tolerated) / error. The error of a window is the larger of its own, over blocks of its rows,
and the one that the reference's rows lead one to expect of a window of that size (`null_error`), with the skew of that
law, and for as many windows in a row as the reference shows (`dependence.py`): Student's t as far as few stretches
tell it. Where the reference does not tell, or the window's own error is far larger, the law is Student's t with the
blocks' degrees of freedom. Luck that lasts longer than a twentieth of a window, and that the reference is too short to
show, is in neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from monitor.evidence import score_of, scores_of, tails
from monitor.measurements import Measurement, WindowRecord
from monitor.past import TINY, before
from registry.fallen import tolerated_loss
from registry.metrics import BLOCKS, METRICS, Array, Metric
from registry.plurals import counted

SURE = 1.64
"""Standard errors by which a reference that stays the same is taken to be worse than it seems: 95 %, one-sided."""

UNRULY = 1.3
"""Times the error that the reference leads one to expect from which a window's own counts, with the law of blocks: the
error of twenty blocks varies by 16 %."""

YOUNG = 4
"""A version's first windows, which show what newer rows add to it before it can have aged much."""

TEST = "its test rows"
ADDED, EXPECTED = "what newer rows add", "what its answers lead one to expect"
"""References on the very same rows: the error of a level beside them is that of the difference."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Level:
    """A metric's value with its standard error, on so many rows. `skew` is that of its law while nothing changes,
    towards the bad side; None where only blocks of its own rows tell the error. `freedom` are the degrees of freedom
    that the error is known with. `labelled`: realised, not estimated. `awaited`: those rows whose labels are still to
    come, for which an estimate stands."""

    value: float
    error: float
    rows: int
    skew: float | None = None
    freedom: float = math.inf
    labelled: bool = True
    awaited: int = 0

    @property
    def basis(self) -> str:
        """In words what it rests on: so many labels, and rows that are estimated."""
        if not self.labelled:
            return f"{self.rows:,} rows, estimated without labels,"
        estimated = f" and {counted(self.awaited, 'row')} estimated" if self.awaited else ""
        return f"{self.rows - self.awaited:,} labels{estimated}"


@dataclass(frozen=True)
class Comparison:
    """A level against a reference: `loss` is positive when it is worse, `deviation` in standard errors beyond what is
    tolerated. `lasting`: the reference is one that many comparisons share."""

    realised: Level
    reference: Level
    against: str
    loss: float
    tolerated: float
    deviation: float
    lasting: bool = False

    @property
    def paired(self) -> bool:
        """Whether `realised.error` is that of the loss, not that of the value."""
        return self.against in (ADDED, EXPECTED)

    @property
    def p_value(self) -> float:
        """Chance of such a deviation if the loss were exactly what is tolerated."""
        return float(_chances([self])[0])

    @cached_property
    def score(self) -> float:
        """The standard score of that chance."""
        return score_of(self.p_value)


def _chances(compared: Sequence[Comparison]) -> Array:
    """`p_value` of many. By blocks of their own rows where these alone tell the error, else by the law of `tails`."""
    known = [(one.deviation, one.realised.skew, one.realised.freedom) for one in compared]
    deviations, skews, freedoms = np.array(known, dtype=np.float64).reshape(-1, 3).T  # None becomes NaN
    own = np.isnan(skews)
    skews[own], freedoms[own] = 0.0, math.inf
    return np.where(own, stdtr(BLOCKS - 1, -deviations), tails(deviations, skews, freedoms))


Trail = tuple[Comparison | None, ...]
"""A comparison for each window, or None where the reference has nothing to say about it."""


def trail_scores(found: Sequence[Trail]) -> Array:
    """`Comparison.score` of each window in each of k trails, (k, T), NaN where there is no comparison."""
    each = [one for trail in found for one in trail]
    out = np.full(len(each), np.nan)
    out[[one is not None for one in each]] = scores_of(_chances([one for one in each if one is not None]))
    return out.reshape(len(found), -1)


def pool(levels: Sequence[Level]) -> Level:
    """Several windows as one level: the mean weighted by rows. `levels` is not empty.

    >>> pool([Level(0.5, 0.06, 100), Level(0.75, 0.06, 100)]).value
    0.625
    """
    rows = sum(level.rows for level in levels)
    value = sum(level.rows * level.value for level in levels) / rows
    error = math.sqrt(sum((level.rows * level.error) ** 2 for level in levels)) / rows
    awaited = sum(level.awaited for level in levels)
    return Level(value, error, rows, labelled=all(level.labelled for level in levels), awaited=awaited)


def compare(
    metric: str, realised: Level, reference: Level, against: str, tolerate: float, *, lasting: bool = False
) -> Comparison:
    """One comparison."""
    loss = BY_NAME[metric].gain(reference.value, realised.value)
    tolerated = tolerated_loss(metric, reference.value, tolerate)
    excess = loss - tolerated - (SURE * reference.error if lasting else 0.0)
    error = realised.error if lasting else math.hypot(realised.error, reference.error)
    deviation = excess / error if error > 0 else math.copysign(math.inf, excess)
    return Comparison(realised, reference, against, loss, tolerated, deviation, lasting)


def trails(records: Sequence[WindowRecord], tolerate: float, min_labels: int) -> tuple[Trail, ...]:
    """The trails of records of one version in time order, those that have any comparison."""
    key = "alone", tolerate, min_labels
    alone = [record.once(key, partial(_alone, record, tolerate, min_labels)) for record in records]
    fresh = [one.attainable for one in alone]
    found = (
        tuple(one.with_test for one in alone),
        _with_past(records, alone, tolerate),
        tuple(_with_attainable(record, fresh[: place + 1], tolerate) for place, record in enumerate(records))
        if any(fresh)
        else (),
        tuple(one.with_expected for one in alone),
    )
    return tuple(trail for trail in found if any(trail))


class _Alone(NamedTuple):
    """What a window says without those before it."""

    realised: Level | None
    test: Level | None
    with_test: Comparison | None
    with_expected: Comparison | None
    attainable: Measurement | None


def _alone(record: WindowRecord, tolerate: float, min_labels: int) -> _Alone:
    now = realised(record, min_labels)
    tests = _with_test(record, now, tolerate), _with_expected(record, now, tolerate)
    return _Alone(now, reference_level(record), *tests, _attainable(record, min_labels))


def realised(record: WindowRecord, min_labels: int) -> Level | None:
    """The metric on the labels of a window that are there, None where they are too few."""
    found = record.performance
    return _level(found) if found is not None and found.rows >= min_labels else None


def reference_level(record: WindowRecord) -> Level | None:
    """The champion's figure on its test rows."""
    found = next(iter(record.named("performance")), None)
    if found is None or found.reference is None:
        return None
    return Level(found.reference, found.reference_error or 0.0, 0)


def estimated(record: WindowRecord) -> Level | None:
    """The metric that is expected of a window without its labels."""
    found = record.first("estimated")
    if found is None or found.error is None:
        return None
    return Level(found.value or 0.0, found.error, found.rows, skew=0.0, labelled=False)


def _with_test(record: WindowRecord, labelled: Level | None, tolerate: float) -> Comparison | None:
    now, reference = _known(record, labelled), reference_level(record)
    if now is None or reference is None:
        return None
    return compare(record.metric, now, reference, TEST, tolerate, lasting=True)


def _known(record: WindowRecord, labelled: Level | None) -> Level | None:
    """The realised metric where all labels are there, else the fused one, which is the estimate where there are none.
    It varies from window to window at least as the realised one does, so that it grows surer as labels arrive. Its own
    error is about the realised metric of these very rows, and shrinks to 0 with the last label: where the labels' own
    tells more than the reference does (`_level`), that is added, for as many rows."""
    fused = next((one for one in record.named("fused") if one.value is not None and one.error is not None), None)
    arrived = max((one.rows for one in record.named("performance")), default=0)
    if fused is None or arrived >= fused.rows:
        return labelled or estimated(record)
    error, freedom = max(fused.error or 0.0, fused.null_error or 0.0), fused.freedom or math.inf
    known = Level(fused.value or 0.0, error, fused.rows, 0.0, freedom, labelled is not None, fused.rows - arrived)
    if labelled is None or labelled.skew is not None:
        return known
    own = math.hypot(fused.error or 0.0, labelled.error * math.sqrt(arrived / fused.rows))
    return replace(known, error=max(error, own), skew=None)


def _with_past(records: Sequence[WindowRecord], alone: Sequence[_Alone], tolerate: float) -> Trail:
    """Each window against its test rows and all windows before it, pooled by precision."""
    judged = [
        (place, one.realised, one.test)
        for place, one in enumerate(alone)
        if one.realised is not None and one.test is not None
    ]
    out: list[Comparison | None] = [None] * len(records)
    tests, levels = (
        np.array([(one.value, one.error) for one in side])
        for side in ([test for *_, test in judged], [now for _, now, _ in judged])
    )
    means, errors = before(tests, levels)
    rows = judged[0][2].rows if judged else 0
    for count, ((place, now, _), mean, error) in enumerate(zip(judged, means.tolist(), errors.tolist(), strict=True)):
        if count:
            against = f"{TEST} and {counted(count, 'window')} before"
            out[place] = compare(records[place].metric, now, Level(mean, error, rows), against, tolerate)
        rows += now.rows
    return tuple(out)


def _precise(levels: Sequence[Level]) -> Level:
    """Levels pooled by precision. A window that happened to have no error is not taken to be exact."""
    least = max(TINY, sorted(level.error for level in levels)[len(levels) // 2] / 2)
    weights = [1 / max(least, level.error) ** 2 for level in levels]
    value = sum(weight * level.value for weight, level in zip(weights, levels, strict=True)) / sum(weights)
    return Level(value, 1 / math.sqrt(sum(weights)), sum(level.rows for level in levels))


def _with_attainable(record: WindowRecord, fresh: Sequence[Measurement | None], tolerate: float) -> Comparison | None:
    """The champion against what was attainable on the same rows.

    What newer rows add to a champion that has not aged is known from its test rows, with an error, and from its first
    windows: both are pooled by precision, and what the windows say differently is taken off.
    """
    if (now := fresh[-1]) is None:
        return None
    young = [one for one in fresh[:-1] if one is not None][:YOUNG]
    usual = [Level(0.0, now.reference_error or 0.0, 0)]
    usual += [Level((one.value or 0.0) - (one.reference or 0.0), one.error or 0.0, one.rows) for one in young]
    more = _precise(usual)
    reference = Level((now.value or 0.0) - more.value, more.error, now.rows)
    mine = Level(now.reference or 0.0, now.error or 0.0, now.rows)
    return compare(record.metric, mine, reference, ADDED, tolerate, lasting=True)


def _with_expected(record: WindowRecord, now: Level | None, tolerate: float) -> Comparison | None:
    """The champion against what its own answers lead one to expect on the same rows."""
    gap = next((one for one in record.named("gap") if one.value is not None and one.null_error), None)
    if now is None or gap is None or gap.null_error is None:
        return None
    expected = now.value + BY_NAME[record.metric].gain(1.0, 0.0) * (gap.value or 0.0)
    bias_error = math.sqrt(max(0.0, (gap.error or 0.0) ** 2 - gap.null_error**2))
    mine = Level(now.value, gap.null_error, gap.rows, gap.skew, gap.freedom or math.inf)
    return compare(record.metric, mine, Level(expected, bias_error, gap.rows), EXPECTED, tolerate, lasting=True)


def _attainable(record: WindowRecord, min_labels: int) -> Measurement | None:
    found = (one for one in record.named("attainable") if one.value is not None and one.rows >= min_labels)
    return next(found, None)


@dataclass(frozen=True)
class Worse:
    """A segment, or the slice found, that is worse than on the reference rows."""

    metric: str
    measurement: Measurement
    comparison: Comparison

    @property
    def subject(self) -> str:
        """What it is called."""
        return self.measurement.subject or ""

    @property
    def sentence(self) -> str:
        """It in words."""
        now, reference = self.comparison.realised, self.comparison.reference
        figures = f"{now.value:.3f} on {now.rows:,} labels, reference {reference.value:.3f}"
        return f"{self.subject}: {self.metric} {figures}"


def worst_segments(record: WindowRecord, tolerate: float, min_labels: int, level: float) -> tuple[Worse, ...]:
    """Worst first: segments and the slice found that are worse than on the reference rows, all of them with error
    probability `level`."""
    found = [one for one in record.named("segment_performance", "slice_performance") if one.rows >= min_labels]
    known = [one for one in found if one.value is not None and one.reference is not None]
    metric = record.metric
    compared = [Worse(metric, one, compare(metric, _level(one), _reference_of(one), "", tolerate)) for one in known]
    sure = [one for one in compared if one.comparison.p_value <= level / len(compared)]
    return tuple(sorted(sure, key=lambda one: -one.comparison.loss))


def _level(one: Measurement) -> Level:
    known = one.null_error is not None and (one.error or 0.0) <= UNRULY * one.null_error
    skew, error = one.skew if known else None, max(one.error or 0.0, one.null_error or 0.0)
    return Level(one.value or 0.0, error, one.rows, skew, one.freedom or math.inf)


def _reference_of(one: Measurement) -> Level:
    return Level(one.reference or 0.0, one.reference_error or 0.0, 0)
