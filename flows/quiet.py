"""How often monitoring would have alarmed on a task's own history had nothing changed, beside the stated budget.

The history is cut into blocks of time, and the blocks change places at random: whatever changes from one block to
another, season and drift alike, is then spread over all of it, and no row is of a later world than another. The first
share of such an order teaches a first champion and holds its reference, so that both come from the same pool as what
follows: a reference from the real beginning would differ from every window by the season alone. The rest is replayed as
in a back-test (`backtest.py`), watched only. Blocks are exchangeable there, and an alarm tells of none but luck.

Rows move by whole blocks, so that hours, and weekdays where a block is of whole weeks, stay what they are. The time
column moves, and every other column of moments with it: how long one lies before the row's time is the row's own.

What it does not show: what lasts longer than a block (a bad month, which windows share) is not kept, nor are the alarms
that such luck causes; blocks that differ, as by season, make a window differ from the one before it more than in the
real order, which is the harder test; a block whose data were broken is told in every order, and rightly; and time
itself moves on, for a model that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import gammaincinv

from flows.backtest import FIRST, Plan, lay_out, moments, progress_of
from flows.replay import Judged
from flows.stream import steps
from monitor.windows import MONDAY, REST
from registry.durations import format_duration
from registry.errors import DataError, StateError
from registry.plurals import counted
from registry.policies import DriftPolicy, FalseAlarms, PerformancePolicy, format_false_alarms
from registry.schema import Frozen
from registry.sources import read
from registry.task import RowWindows, TaskSpec, TimeWindows

LEAST_BLOCKS, MANY_BLOCKS = 12, 30
"""Fewest blocks that are put into another order, and so many of whole weeks that weeks are taken instead of days."""

REAL = "real"
_DAY, _WEEK, _SURE = timedelta(days=1), timedelta(days=7), 0.95
_NEVER = 120
"""Years from a row's time, from which on a moment is none of its life."""
_ALARMS = ("shifted", "faulty", "degraded")
"""Verdicts that are alarms, the worst last (as of alerts)."""


class Alarms(Frozen):
    """What was told of the windows of an order: `entered` alarms by the worst verdict of each, `on`: in how many of the
    windows one was."""

    name: str
    windows: int
    entered: dict[str, int]
    on: int

    @property
    def total(self) -> int:
        """Alarms entered."""
        return sum(self.entered.values())

    @property
    def rate(self) -> tuple[float, float, float]:
        """Alarms entered a window, and its 95 % interval by Poisson's law (Garwood 1936)."""
        few, many = (1 - _SURE) / 2, (1 + _SURE) / 2
        low = float(gammaincinv(self.total, few)) if self.total else 0.0
        high = float(gammaincinv(self.total + 1, many))
        return self.total / self.windows, low / self.windows, high / self.windows


class Quiet(Frozen):
    """What was found. `budget` is the stated one in alarms a window, `stated` as it was written."""

    task: str
    block: str
    stated: str
    budget: float
    orders: tuple[Alarms, ...]
    real: Alarms

    @property
    def together(self) -> Alarms:
        """All orders in which nothing drifts."""
        entered = {name: sum(one.entered[name] for one in self.orders) for name in _ALARMS}
        windows, on = (sum(values) for values in zip(*((one.windows, one.on) for one in self.orders), strict=True))
        return Alarms(name="together", windows=windows, entered=entered, on=on)


@dataclass(frozen=True)
class Order:
    """One order of the rows: its folder and its back-test, under the task's own policy."""

    name: str
    folder: Path
    plan: Plan


def prepare(
    folder: Path, task: TaskSpec, *, orders: int, windows: int, block: timedelta | None, delay: timedelta
) -> tuple[timedelta, list[Order]]:
    """Lay out so many orders in which nothing drifts, and the real one, `windows` windows each at most; the length of
    a block.

    Nothing is ever done about a verdict (`mode: observe`), but all are judged by the task's own policy, whose budget
    they are paid from. Raises `DataError` where there are too few blocks, `StateError` when the folder holds another.
    """
    frame = read(task.source)
    times = moments(frame, task)
    if times.isna().all():
        raise DataError(f"column {task.time!r}: no row has a time")
    size = block or block_of(times.dropna(), task.monitor.windows)
    frame, times = _whole(frame.assign(**{str(task.time): times}), times, size)
    found = len(np.unique(_cells(times, size)))
    if found < LEAST_BLOCKS:
        said = f"only {counted(found, 'whole block')} of {format_duration(size)}, {LEAST_BLOCKS} are needed"
        raise DataError(f"{said} to put them into another order: shorter ones (--block), or more rows")
    watched = task.model_copy(update={"mode": "observe"})
    start = _start(times, size)
    made = []
    for name, moved in _orders(frame, times, size, orders):
        first = _first_windows(moved, watched, start, windows)
        policy = {f"{name}, blocks of {format_duration(size)}": task.policy}
        place, own = folder / name.replace(" ", "-"), moments(first, watched)
        made.append(Order(name, place, lay_out(place, first, own, watched, policy, start=start, delay=delay)))
    return size, made


def _orders(frame: pd.DataFrame, times: Any, size: timedelta, number: int) -> Iterator[tuple[str, pd.DataFrame]]:
    for seed in range(number):
        yield f"quiet {seed + 1}", permuted(frame, times, size, seed)
    yield REAL, frame


def block_of(times: Any, windows: TimeWindows | RowWindows) -> timedelta:
    """How long a block is by default: as a window, rounded up to whole weeks, so that what the rows of a window share
    stays together, as do days and weekdays; to whole days where fewer than `MANY_BLOCKS` weeks would be left.

    >>> hours = pd.Series(pd.date_range("2024-01-01", periods=24 * 365, freq="h"))
    >>> block_of(hours, RowWindows(rows=30)).days, block_of(hours[:2000], RowWindows(rows=30)).days
    (7, 2)
    """
    span = (times.max() - times.min()).to_pytimedelta()
    window = windows.every if isinstance(windows, TimeWindows) else span * windows.rows / len(times)
    weeks, days = (max(1, math.ceil(window / unit)) * unit for unit in (_WEEK, _DAY))
    return weeks if span / weeks >= MANY_BLOCKS else days


def _cells(times: Any, size: timedelta) -> Any:
    """The number of each row's block: a grid of its own length (weeks begin on Monday)."""
    return ((times - MONDAY) // size).to_numpy()


def _whole(frame: pd.DataFrame, times: Any, size: timedelta) -> tuple[pd.DataFrame, Any]:
    """The rows that have a time, without a first and a last block that are cut off by the ends of the history: by more
    than a tenth, and by more than rows usually lie apart."""
    cells = (times - MONDAY) // size
    begin, end = MONDAY + int(cells.min()) * size, MONDAY + (int(cells.max()) + 1) * size
    rest = max(size / REST, pd.Series(times.dropna().sort_values().unique()).diff().median())
    kept = times.notna() & ((times.min() - begin <= rest) | (cells > cells.min()))
    kept &= (end - times.max() <= rest) | (cells < cells.max())
    return frame[kept.to_numpy()], times[kept]


def permuted(frame: pd.DataFrame, times: Any, size: timedelta, seed: int) -> pd.DataFrame:
    """The rows with their blocks of time in another order, their columns of moments moved along."""
    cells = _cells(times, size)
    found, place = np.unique(cells, return_inverse=True)
    moved = (np.random.default_rng(seed).permutation(found)[place] - cells) * np.timedelta64(size)
    kinds = {str(name): kind for name, kind in frame.dtypes.items()}
    shifted = {name: frame[name] + _own(frame[name], times, moved) for name, kind in kinds.items() if kind.kind == "M"}
    return frame.assign(**shifted)


def _own(values: pd.Series[Any], times: Any, moved: Any) -> Any:
    """By how much moments move with their rows, which have these times: not at all what stands for never, as the last
    day of 9999 does, or the last that nanoseconds can tell."""
    years = (values.dt.year - times.dt.year).abs().to_numpy(dtype=np.float64, na_value=0)
    return np.where(years < _NEVER, moved, np.timedelta64(0))


def _start(times: Any, size: timedelta) -> datetime:
    """Where the first share of the rows ends, at the beginning of a block."""
    cells = np.sort(_cells(times, size))
    return MONDAY + int(cells[int(FIRST * len(cells))]) * size


def _first_windows(frame: pd.DataFrame, task: TaskSpec, start: datetime, most: int) -> pd.DataFrame:
    """The rows before `start`, and those of the first windows after it."""
    times = moments(frame, task).to_numpy().astype("datetime64[us]")
    later = np.sort(times[times >= np.datetime64(start, "us")])
    cut = steps(later, task.monitor.windows)[:most][-1].end
    return frame[times < np.datetime64(cut, "us")]


def gather(task: TaskSpec, size: timedelta, orders: Sequence[Order]) -> Quiet:
    """Count what was told. Raises `StateError` while an order is not finished."""
    told = [(one.name, _steps(one)) for one in orders]
    judged = [step for _, every in told for step in every]
    span = sum((step.end - step.begin for step in judged), timedelta()) / len(judged)
    budget = budget_of(task)
    *quiet, real = (count(name, [step.severity for step in every]) for name, every in told)
    return Quiet(
        task=task.name,
        block=format_duration(size),
        stated=format_false_alarms(budget),
        budget=1 / budget.windows_each(span),
        orders=tuple(quiet),
        real=real,
    )


def _steps(order: Order) -> list[Judged]:
    """The windows that were judged: not one that is cut off by the end of the rows."""
    progress = progress_of(order.folder, 0)
    if progress is None or not progress.finished:
        raise StateError(f"{order.name!r} is not finished: run it again, it goes on where it stopped")
    return [step for step in progress.steps if step.severity]


def budget_of(task: TaskSpec) -> FalseAlarms:
    """What the task's verdicts are paid from: of a policy that states none, the usual one."""
    policy = task.policy if isinstance(task.policy, (PerformancePolicy, DriftPolicy)) else PerformancePolicy()
    return policy.false_alarms


def count(name: str, severities: Sequence[str]) -> Alarms:
    """The alarms among the verdicts of windows one after another: one is entered from `ok`, and lasts until it is `ok`
    again.

    >>> count("a", ["ok", "shifted", "degraded", "ok", "faulty"]).entered
    {'shifted': 0, 'faulty': 1, 'degraded': 1}
    """
    entered, worst = dict.fromkeys(_ALARMS, 0), ""
    for now in (*severities, "ok"):
        if now in _ALARMS:
            worst = max(worst, now, key=("", *_ALARMS).index)
        elif worst:
            entered[worst] += 1
            worst = ""
    return Alarms(name=name, windows=len(severities), entered=entered, on=sum(one in _ALARMS for one in severities))


def describe(found: Quiet) -> str:
    """The table, and in words whether the budget holds and what the real order tells beyond it."""
    head = f"{'order':<10} {'windows':>7} {'alarms':>6}  {'a window (95 %)':<25}"
    lines = [f"{head} {' '.join(_ALARMS)} {'windows on':>10}"]
    for one in (*found.orders, found.together, found.real):
        value, low, high = one.rate
        verdicts = " ".join(f"{one.entered[name]:>{width}}" for name, width in zip(_ALARMS, (7, 6, 8), strict=True))
        rate = f"{value:.4f} ({low:.4f} to {high:.4f})"
        lines.append(f"{one.name:<10} {one.windows:>7,} {one.total:>6,}  {rate:<25} {verdicts} {one.on:>10,}")
    told = (
        f"In a quiet order blocks of {found.block} change places at random, the rows that teach the first model among "
        "them:\nnothing drifts from one to the next, and every alarm is false. An alarm is entered from ok, and counts "
        "by its worst\nverdict. What lasts longer than a block is shuffled away. Each order has one model and one "
        "reference: orders differ\nby more than the interval, Poisson's, says."
    )
    return "\n".join([*lines, "", told, _inside(found), _beside(found)])


def _inside(found: Quiet) -> str:
    """Whether the quiet orders' rate is within the budget, as far as their windows tell."""
    quiet = found.together
    value, low, high = quiet.rate
    allowed = f"stated {found.stated}: {found.budget:.4f} a window, {found.budget * quiet.windows:.1f} in these"
    if value <= found.budget:
        sure = "surely" if high <= found.budget else "as counted; so few windows do not show it for sure"
        return f"INSIDE the budget ({sure}): {counted(quiet.total, 'false alarm')}; {allowed}."
    sure = "surely" if low > found.budget else "as counted; chance alone may do that in so few windows"
    return f"OVER the budget ({sure}): {counted(quiet.total, 'false alarm')}; {allowed}."


def _beside(found: Quiet) -> str:
    """The real order beside what would be told of it with nothing changed."""
    real, expected = found.real, found.together.rate[0] * found.real.windows
    alarms = f"{counted(real.total, 'alarm')}, on in {real.on:,} of {counted(real.windows, 'window')}"
    share = found.together.on / found.together.windows
    quiet = f"a quiet one as long: {expected:.1f}, on in {share * real.windows:.1f}"
    return f"Real order: {alarms}; {quiet}. What is beyond is told by change, or by luck that outlasts a block."
