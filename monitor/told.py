"""A window's performance as people are told it: one figure, with one interval and beside one reference, in the sentence
of the verdict, on the tile and in the chart of the status page.

The figure is the metric on the labels that are there; while others are still to come the fused one (`fused.py`), which
is what is judged. The interval is that of its own rows, in blocks. How far windows of so many rows lie apart while
nothing has changed is another thing, luck, and is told as one: how many windows would be as bad by it. The reference
is the champion's figure on its test rows; another one that says more against it is named after that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.comparison import BY_NAME, Comparison, Level
from monitor.diagnosis import possible
from monitor.measurements import WindowRecord

_Z = 1.96
_RARE, _COMMON = 1e-6, 0.4


@dataclass(frozen=True)
class Figure:
    """The metric of one window: its value and the labels it rests on, and its 95 % interval, where that is known."""

    level: Level
    low: float | None
    high: float | None


def figure(record: WindowRecord) -> Figure | None:
    """What is told of a window; None while no label is there."""
    found = record.performance
    fused = next((one for one in record.named("fused") if one.value is not None and one.error is not None), None)
    if found is None or found.value is None:
        return None
    if fused is None or found.rows >= fused.rows:
        return Figure(Level(found.value, found.error or 0.0, found.rows), found.low, found.high)
    own = math.nan if found.error is None else found.error * math.sqrt(found.rows / fused.rows)
    error = math.hypot(fused.error or 0.0, own)
    level = Level(fused.value or 0.0, error, fused.rows, awaited=fused.rows - found.rows)
    if math.isnan(error):
        return Figure(level, None, None)
    least, most = BY_NAME[record.metric].bounds
    return Figure(level, max(level.value - _Z * error, least), min(level.value + _Z * error, most))


def sentence(
    records: Sequence[WindowRecord], one: Comparison, *, degraded: bool, most: Comparison | None = None
) -> str:
    """What a comparison of these windows, one or several pooled, says in figures. `most` is another one of the same
    window that says more against the champion."""
    metric, shown = records[-1].metric, possible(records[-1].metric, one)
    where = f"{'in' if len(records) == 1 else 'pooled over'} {names(records)}"
    said = f"{metric} {_value(records, shown)} on {shown.realised.basis} {where}, reference {_reference(shown)}"
    said += f": {_change(shown, lucky=most is None and not degraded)}"
    if most is not None:
        other = possible(metric, most)
        said += f"; with more evidence beside {_reference(other)}: {_change(other, lucky=True)}"
    return said if degraded or not (worse(one) or most is not None) else f"{said}: not called degraded yet"


def worse(one: Comparison) -> bool:
    """Whether it is worse by more than is tolerated, surely or not."""
    return one.loss > one.tolerated


def telling(one: Comparison) -> bool:
    """Whether it is worse, and by more than every other window would be by luck."""
    return worse(one) and one.p_value <= _COMMON


def names(records: Sequence[WindowRecord]) -> str:
    """Windows in words."""
    first, last = records[0].window.name, records[-1].window.name
    if len(records) == 1:
        return f"the window from {first}"
    return f"{len(records)} windows, from that of {first} to that of {last}"


def by_luck(p_value: float) -> str:
    """How often a champion that is worse by what is tolerated looks as bad.

    >>> by_luck(0.057), by_luck(0.6), by_luck(1e-9)
    ('one window in 18', 'every other window', 'less than one window in a million')
    """
    if p_value < _RARE:
        return "less than one window in a million"
    return "every other window" if p_value > _COMMON else f"one window in {1 / p_value:,.0f}"


def _value(records: Sequence[WindowRecord], one: Comparison) -> str:
    """With the interval of the figure, if it is that of one window; else with the error that it was judged with."""
    told = figure(records[0]) if len(records) == 1 else None
    if told is not None and told.level.value == one.realised.value and told.low is not None and told.high is not None:
        return f"{one.realised.value:.3f} ({told.low:.3f} to {told.high:.3f})"
    return f"{one.realised.value:.3f}" + ("" if one.paired else f" +/- {one.realised.error:.3f}")


def _reference(one: Comparison) -> str:
    return f"{one.reference.value:.3f} +/- {one.reference.error:.3f} ({one.against})"


def _change(one: Comparison, *, lucky: bool) -> str:
    """`lucky`: with how often it comes by luck, where it is worse than tolerated."""
    if one.loss <= 0:
        return f"no worse ({0.0 - one.loss:+.3g})"
    error = f" +/- {one.realised.error:.2g}" if one.paired else ""
    change = f"worse by {one.loss:.3g}{error}, tolerated {one.tolerated:.2g}"
    if not (lucky and worse(one)):
        return change
    spread = "" if one.paired else f" (windows of so many rows vary by {one.realised.error:.2g})"
    return f"{change}; {by_luck(one.p_value)} would look as bad by luck{spread}"


def share_of_alarm(strength: float) -> str:
    """How much of the evidence that an alarm takes there is.

    >>> share_of_alarm(0.00029), share_of_alarm(0.996), share_of_alarm(1234.5)
    ('0.029 % of what', '99 % of what', '1,234 times what')
    """
    if strength >= 1:
        return f"{strength:,.0f} times what"
    return f"{min(99.0, 100 * strength):.2g} % of what"
