"""Which windows are due. A window is a half-open interval of event time, complete once the clock has passed its end.

By time: equal spans on a grid that depends on nothing but the span (weeks begin on Monday), from the span that holds
the first logged row. By rows: the next so many rows in order of time; rows that share the moment of the last one belong
to the window too, so that it is an interval. A row that is logged late belongs to the window of its own time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitor.measurements import Window
from registry.inference_log import InferenceLog
from registry.task import RowWindows, TimeWindows, Windows

MONDAY = datetime(1970, 1, 5)
"""Where the grid of equal spans is anchored."""

MOST_DUE = 500
"""Most windows that one pass measures; of a longer list the newest."""

REST = 10
"""A window by time whose rows come up to a tenth of it before its end is taken for whole."""

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Span:
    """The place of a window: its number since the first logged row, and `start <= time < end`."""

    index: int
    start: datetime
    end: datetime


def spans(first: datetime, every: timedelta, as_of: datetime, *, index: int = 0) -> Iterator[Span]:
    """All complete spans of the grid from the one that holds `first`, numbered from `index`.

    >>> [str(span.start.date()) for span in spans(datetime(2024, 5, 1), timedelta(days=7), datetime(2024, 5, 15))]
    ['2024-04-29', '2024-05-06']
    """
    start = MONDAY + (first - MONDAY) // every * every
    while start + every <= as_of:
        yield Span(index, start, start + every)
        start, index = start + every, index + 1


def seen(windows: Windows, newest: datetime) -> datetime:
    """The moment by which windows are over, as far as the newest event shows: its own; but the end of a window by time
    that it comes up to, and just after it where it may be the last of a window by rows. So a history that ends with a
    window has all its windows judged, and of one that is cut off the last is not.

    >>> [str(seen(TimeWindows(every="1d"), datetime(2024, 5, 1, hour))) for hour in (12, 23)]
    ['2024-05-01 12:00:00', '2024-05-02 00:00:00']
    """
    if isinstance(windows, RowWindows):
        return newest + _TICK
    end = MONDAY + ((newest - MONDAY) // windows.every + 1) * windows.every
    return end if end - newest <= windows.every / REST else newest


def due(windows: Windows, log: InferenceLog, known: Collection[Window], as_of: datetime) -> list[Span]:
    """The complete windows that are not known yet, in time order. Those before the first known one stay unmeasured."""
    if (logged := log.span()) is None:
        return []
    if isinstance(windows, TimeWindows):
        oldest = min(known, key=lambda window: window.start, default=None)
        first, number = (logged[0], 0) if oldest is None else (oldest.start, oldest.index)
        seen = {(window.start, window.end) for window in known}
        every = spans(first, windows.every, as_of, index=number)
        return [span for span in every if (span.start, span.end) not in seen][-MOST_DUE:]
    newest = max(known, key=lambda window: window.end, default=None)
    start, number = (logged[0], 0) if newest is None else (newest.end, newest.index + 1)
    return list(_by_rows(windows, log, start, number, as_of))


def _by_rows(windows: RowWindows, log: InferenceLog, start: datetime, index: int, as_of: datetime) -> Iterator[Span]:
    for number in range(index, index + MOST_DUE):
        last = log.frame(start=start, end=as_of, columns=[], offset=windows.rows - 1, limit=1)
        if last.empty:
            return
        end = last["__time__"].iloc[0].to_pydatetime() + _TICK
        yield Span(number, start, end)
        start = end
