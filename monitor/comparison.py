"""Is the champion worse than it was? The arithmetic of that question, apart from what is done about it.

A champion's realised metric m, with standard error s, is compared with a reference r, with standard error e: it is
worse when (loss - tolerated) / sqrt(s^2 + e^2) is large, where loss = r - m (m - r where smaller is better). There are
three references: the champion's figure on its own test rows; its own realised windows before those judged; and what a
model fitted to newer rows reaches on the very same windows (`attainable.py`). The second matters where the test rows
happened to be hard ones: without it, a champion that does well and then falls would not be seen before it is worse
than on its worst days. (The drift detection method of Gama et al. 2004 compares with the best level reached so far for
the same reason; the mean used here has no bias from choosing the best.) The third sees an ageing model through the
ups and downs of the weeks, since both models meet the same rows.

Rows of one stretch of time may depend on one another: errors are over blocks of them (`error_of_mean`), and judged by
Student's t with the blocks' degrees of freedom. Luck that lasts longer than a twentieth of a window is still not in
them; `tolerate` and `consecutive` are what stands against that. Nor does it know that a window whose labels arrive in
parts is looked at more than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr

from monitor.measurements import Measurement, WindowRecord
from registry.metrics import BLOCKS, METRICS, Metric

MIN_PAST = 2
"""Fewest earlier windows that make a reference of their own."""

YOUNG = 4
"""A version's first windows, which show what newer rows add to it before it can have aged much."""

_TINY = 1e-9

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Level:
    """A metric's value with its standard error, on so many rows."""

    value: float
    error: float
    rows: int


@dataclass(frozen=True)
class Comparison:
    """A realised level against a reference: `loss` is positive when it is worse, `deviation` in standard errors
    beyond what is tolerated, `p_value` one-sided. `tried` is the number of references of which this looked worst,
    `windows` the number of windows behind the realised level."""

    realised: Level
    reference: Level
    against: str
    loss: float
    tolerated: float
    deviation: float
    tried: int = 1
    windows: int = 1

    @property
    def p_value(self) -> float:
        """Chance of such a deviation if the loss were exactly what is tolerated: Bonferroni over those tried."""
        return min(1.0, self.tried * float(stdtr((BLOCKS - 1) * self.windows, -self.deviation)))


def tolerated_loss(metric: str, reference: float, tolerate: float) -> float:
    """How much worse than the reference still is no matter: the share `tolerate` of the reference's size.

    R2 is a share of the variance already and may be near 0: there `tolerate` is taken as it is.

    >>> round(tolerated_loss("auc", 0.7, 0.02), 4), tolerated_loss("r2", 0.01, 0.02)
    (0.014, 0.02)
    """
    return tolerate * (1.0 if metric == "r2" else abs(reference))


def pool(levels: Sequence[Level]) -> Level:
    """Several windows as one level: the mean weighted by rows. `levels` is not empty.

    >>> pool([Level(0.5, 0.06, 100), Level(0.75, 0.06, 100)]).value
    0.625
    """
    rows = sum(level.rows for level in levels)
    value = sum(level.rows * level.value for level in levels) / rows
    error = math.sqrt(sum((level.rows * level.error) ** 2 for level in levels)) / rows
    return Level(value, error, rows)


def compare(metric: str, realised: Level, reference: Level, against: str, tolerate: float) -> Comparison:
    """One comparison."""
    loss = BY_NAME[metric].gain(reference.value, realised.value)
    tolerated = tolerated_loss(metric, reference.value, tolerate)
    excess, error = loss - tolerated, math.hypot(realised.error, reference.error)
    deviation = excess / error if error > 0 else math.copysign(math.inf, excess)
    return Comparison(realised, reference, against, loss, tolerated, deviation)


def worst(history: Sequence[WindowRecord], last: int, tolerate: float) -> Comparison:
    """The newest `last` records together against each reference: the comparison that looks worst.

    All records are of one version and have a performance. Which references there are does not depend on their values.
    """
    found = [_performance(record) for record in history]
    realised, metric = pool([_now(one) for one in found[-last:]]), history[-1].metric
    tried = [compare(metric, realised, _before(found[-1]), "its test rows", tolerate)]
    if len(past := found[:-last]) >= MIN_PAST:
        before = pool([_now(one) for one in past])
        tried.append(compare(metric, realised, before, f"its {len(past)} windows before", tolerate))
    fresh = _attainable(history[-last:])
    if len(fresh) == last:
        tried.append(_attained(metric, fresh, _attainable(history[:-last])[:YOUNG], tolerate))
    return replace(max(tried, key=lambda one: one.deviation), tried=len(tried), windows=last)


def _attainable(history: Sequence[WindowRecord]) -> list[Measurement]:
    return [one for record in history for one in record.named("attainable") if one.value is not None]


def _attained(metric: str, fresh: Sequence[Measurement], young: Sequence[Measurement], tolerate: float) -> Comparison:
    """The champion against what was attainable on the same rows.

    What newer rows add to a champion that has not aged is known from its test rows, with an error, and from its first
    windows: both are pooled by precision, and what the windows say differently is taken off.
    """
    realised = pool([Level(one.reference or 0.0, one.error or 0.0, one.rows) for one in fresh])
    level = pool([Level(one.value or 0.0, 0.0, one.rows) for one in fresh])
    usual = [(0.0, fresh[-1].reference_error or 0.0)]
    usual += [((one.value or 0.0) - (one.reference or 0.0), one.error or 0.0) for one in young]
    weights = [1 / max(error, _TINY) ** 2 for _, error in usual]
    more = sum(weight * value for weight, (value, _) in zip(weights, usual, strict=True)) / sum(weights)
    reference = Level(level.value - more, 1 / math.sqrt(sum(weights)), level.rows)
    return compare(metric, realised, reference, "what newer rows add", tolerate)


def worst_segments(record: WindowRecord, tolerate: float, min_labels: int, level: float) -> tuple[str, ...]:
    """In words, worst first: segments worse than on the reference rows, all of them with error probability `level`."""
    found = [one for one in record.named("segment_performance") if one.rows >= min_labels]
    known = [one for one in found if one.value is not None and one.reference is not None]
    compared = [(one.subject, compare(record.metric, _now(one), _before(one), "", tolerate)) for one in known]
    sure = [(name, one) for name, one in compared if one.p_value <= level / len(compared)]
    return tuple(
        f"{name}: {record.metric} {one.realised.value:.3f} on {one.realised.rows:,} labels, "
        f"reference {one.reference.value:.3f}"
        for name, one in sorted(sure, key=lambda pair: -pair[1].loss)
    )


def _performance(record: WindowRecord) -> Measurement:
    if (found := record.performance) is None or found.reference is None:
        raise ValueError(f"window {record.window.index} has no performance, or no reference for it")
    return found


def _now(one: Measurement) -> Level:
    return Level(one.value or 0.0, one.error or 0.0, one.rows)


def _before(one: Measurement) -> Level:
    return Level(one.reference or 0.0, one.reference_error or 0.0, 0)
