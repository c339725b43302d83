"""Data quality: what is wrong with the rows themselves, column by column, beside the reference."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from monitor.binned import counts_of
from monitor.dependence import Dependence
from monitor.measurements import Measurement
from monitor.shares import share
from monitor.values import Codes, Marks, Names, Numbers, repeats
from monitor.views import Logged, Measure, Side, View
from registry.metrics import Array
from registry.schema import CategoricalColumn, Column, NumericColumn
from registry.watched import SeenColumn


class ColumnShare(Measure):
    """A measure that is a share of the rows in each column. `lasts`: its evidence adds up over windows."""

    lasts: ClassVar[bool] = True

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column that the measure is about."""
        return [self._of(view, column) for column in view.manifest.data_schema.columns if self.concerns(column)]

    def concerns(self, column: Column) -> bool:
        """Whether the measure is about such a column."""
        return True

    @abstractmethod
    def mark(self, side: Side, column: Column) -> Marks:
        """Which of the rows that count are meant."""

    def kin(self, view: View, column: Column) -> Marks:
        """Rows of the reference that come in runs as those do that are meant."""
        return self._known(view, column)

    def example(self, side: Side, column: Column) -> str:
        """One of those that are meant, in words."""
        return ""

    def count(self, side: Side, column: Column) -> tuple[int, int]:
        """How many of the rows that count are meant, and how many count."""
        marks = self.mark(side, column)
        return int(np.count_nonzero(marks)), len(marks)

    def _of(self, view: View, column: Column) -> Measurement:
        hits, rows = self.count(view.window, column)
        known = view.once(f"{self.name} {column.name}, counted", lambda: self.count(view.reference, column))
        note = self.example(view.window, column) if hits else ""
        effect = self._effect(view, column, rows) if hits else 1.0
        doubt = view.doubt if self.lasts else None
        return share(self.name, column.name, (hits, rows), known, note, effect=effect, doubt=doubt)

    def _effect(self, view: View, column: Column, rows: int) -> float:
        """How many rows are worth an independent one, luck that outlasts a window included: hours without a value, or
        days of heat, are those of several small windows."""
        key = f"dependence of {self.name} {column.name}"
        dependence = view.once(key, lambda: Dependence(self.kin(view, column)[:, None]))
        return dependence.over_windows(rows, stride=view.stride, lasting=True).effect

    def _known(self, view: View, column: Column) -> Marks:
        return view.once(f"{self.name} {column.name}", lambda: self.mark(view.reference, column))


class BrokenShare(ColumnShare):
    """Values of a wrong type, which the column cannot hold."""

    name: ClassVar[str] = "broken"
    lasts: ClassVar[bool] = False

    def mark(self, side: Side, column: Column) -> Marks:
        """As many rows as have a broken value: they are missing by now, and no longer told apart."""
        found = side.broken.get(column.name)
        return np.arange(len(side)) < (found.rows if found else 0)

    def count(self, side: Side, column: Column) -> tuple[int, int]:
        """As they were counted when the window was read."""
        found = side.broken.get(column.name)
        return found.rows if found else 0, len(side)

    def example(self, side: Side, column: Column) -> str:
        """One such value."""
        return f"such as {side.broken[column.name].example}"


def _leads(column: Column) -> bool:
    """Whether it stands for itself: of an image's numbers, all of which are there or not, the first does."""
    return not isinstance(column, SeenColumn) or column.leads


class MissingShare(ColumnShare):
    """Missing values; broken ones are counted apart."""

    name: ClassVar[str] = "missing"

    def concerns(self, column: Column) -> bool:
        """All columns; of an image's numbers the first."""
        return _leads(column)

    def mark(self, side: Side, column: Column) -> Marks:
        """Rows with nothing in them."""
        marks = side.column(column.name).missing
        if column.name in side.broken:
            marks = marks & (marks.cumsum() > side.broken[column.name].rows)
        return marks


class UnseenShare(ColumnShare):
    """Categories that training did not learn: new ones, or too rare ones."""

    name: ClassVar[str] = "unseen"

    def concerns(self, column: Column) -> bool:
        """Categorical columns."""
        return isinstance(column, CategoricalColumn)

    def mark(self, side: Side, column: Column) -> Marks:
        """Rows whose category is not known."""
        values, new = self._new(side, column)
        return np.asarray(new[values.present])

    def count(self, side: Side, column: Column) -> tuple[int, int]:
        """By name, not by row."""
        values, new = self._new(side, column)
        return int(values.counts[new].sum()), values.there

    def example(self, side: Side, column: Column) -> str:
        """The most frequent such category."""
        values, new = self._new(side, column)
        return f"such as {values.names[int(np.where(new, values.counts, -1).argmax())]!r}"

    def _new(self, side: Side, column: Column) -> tuple[Names, Marks]:
        """The column, and which of its names are not known."""
        values = side.column(column.name)
        if not isinstance(values, Names) or not isinstance(column, CategoricalColumn):
            raise TypeError(f"column {column.name!r} holds no names")
        learnt = set(column.categories)
        return values, np.array([name not in learnt for name in values.names.tolist()], dtype=np.bool_)


EXTREME = 0.01
"""Share of the reference's numbers at either end that show how long an extreme lasts."""


class OutOfRange(ColumnShare):
    """Numbers outside the range seen in training.

    The reference has few of them or none, and a heat wave's come together: they are taken to run on as the most extreme
    of the reference do (the extremal index of Leadbetter 1983 hardly depends on how high the threshold is).
    """

    name: ClassVar[str] = "out_of_range"

    def concerns(self, column: Column) -> bool:
        """Numeric columns whose range is known."""
        return isinstance(column, NumericColumn) and column.low is not None and column.high is not None

    def mark(self, side: Side, column: Column) -> Marks:
        """Rows below the lowest or above the highest number."""
        present = side.column(column.name).present
        if not isinstance(column, NumericColumn) or column.low is None or column.high is None:
            return np.zeros(len(present), dtype=np.bool_)
        return np.asarray((present < column.low) | (present > column.high))

    def count(self, side: Side, column: Column) -> tuple[int, int]:
        """Without the marks of rows."""
        values = side.column(column.name)
        if not isinstance(column, NumericColumn) or column.low is None or column.high is None:
            return 0, values.there
        if not isinstance(values, Numbers):
            raise TypeError(f"column {column.name!r} holds no numbers")
        return len(values.outside(column.low, column.high)), values.there

    def kin(self, view: View, column: Column) -> Marks:
        """Rows among the lowest and the highest."""
        return view.once(f"extremes of {column.name}", lambda: _extreme(view.reference.column(column.name).present))


def _extreme(present: Array | Codes) -> Marks:
    if not len(present):
        return np.zeros(0, dtype=np.bool_)
    low, high = np.quantile(present, [EXTREME, 1 - EXTREME])
    return np.asarray((present <= low) | (present >= high))


STILL = 0.9
"""Share of a window's rows from which a column stands still: a price may well rest for half a day."""

LEAST_REST, BEGINNINGS = 10, 8
"""Fewest of the reference's rows in a stretch of which stillness is no chance of few; where the first may begin."""


class Constant(Measure):
    """How far a column stands still: the share of the value that nearly all of the window's rows have (`STILL`), and
    what share it has in the reference; 0 where no value is so frequent. Moments are left out: time moves on.

    A month or a season stands still for weeks and is not broken. The chance is at least that of no change in so long a
    window, exp(-changes), if changes come as often as between the reference's rows in time order (a Poisson process),
    and at least the share of the reference's stretches as long in which the column stands still: changes may come
    together, as those of an hour's weather do.
    """

    name: ClassVar[str] = "constant"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column that has values in the window."""
        columns = [one.name for one in view.manifest.data_schema.columns if one.kind != "datetime" and _leads(one)]
        times_as_long = _times_as_long(view)
        made = (self._of(view, name, times_as_long) for name in columns)
        return [one for one in made if one is not None]

    def _of(self, view: View, name: str, times_as_long: float) -> Measurement | None:
        window, known = view.window.column(name), view.reference.column(name)
        if not (rows := window.there):
            return None
        fullest = int(counts_of(view, name).max())  # of the bins: no value has more rows
        found = window.most_frequent() if fullest >= STILL * rows else None
        if found is None or found[1] < STILL * rows:
            return Measurement(name=self.name, subject=name, value=0.0, reference=0.0, p_value=1.0, rows=rows)
        most, count = found
        counted = (known.hits(most), len(known.present))
        made = share(self.name, name, (count, rows), counted, f"at {most!s}"[:80])
        often = view.once(f"changes of {name}", known.changes)
        changes = often * times_as_long if math.isfinite(times_as_long) else math.inf
        length = round(rows / view.stride)
        rests = view.once(f"rests of {name} for {length} rows", lambda: _resting(known.present, length))
        return made.model_copy(update={"p_value": max(made.p_value or 0.0, math.exp(-changes), rests)})


def _resting(present: Array | Codes, length: int) -> float:
    """The share of stretches of so many values in time order of which one value, the median, has `STILL`; 0 where they
    are too short to tell. Of `BEGINNINGS` of the first the one with most counts: what comes and goes may be cut."""
    most, step = 0.0, -(-length // BEGINNINGS)
    for begin in range(0, length, step) if length >= LEAST_REST else ():
        if (count := (len(present) - begin) // length) > 0:
            stretches = np.asarray(present[begin : begin + count * length]).reshape(count, length)
            middle = np.partition(stretches, length // 2, axis=1)[:, length // 2, None]
            most = max(most, float(((stretches == middle).mean(axis=1) >= STILL).mean()))
    return most


def _times_as_long(view: View) -> float:
    """How many times as long as the reference's time the window's is; infinity without times, or with a reference of
    one moment, as nobody can tell then how long is long."""
    window, reference = view.window.times, view.reference.times
    if window is None or reference is None or not len(window) or not reference.max() > reference.min():
        return math.inf
    return float((window.max() - window.min()) / (reference.max() - reference.min()))


class Duplicates(Measure):
    """Rows that repeat an earlier one of the window in every column."""

    name: ClassVar[str] = "duplicates"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement; none of a window of which one row in so many was read: neighbours repeat one another."""
        if view.logged is not None:
            return []
        names = view.once("columns by their values", lambda: _telling(view.reference))
        reference = view.once(self.name, lambda: _repeats(view.reference, names))
        return [share(self.name, None, _repeats(view.window, names), reference, doubt=view.doubt)]


def _telling(side: Side) -> list[str]:
    """The columns, those of the most different values first."""
    return sorted(map(str, side.columns), key=lambda name: -len(np.unique(side.column(name).present)))


def _repeats(side: Side, names: Sequence[str]) -> tuple[int, int]:
    return repeats([side.column(name) for name in names]), len(side)


class NovelLabels(Measure):
    """Labels of a class that the model does not know; regression has none."""

    name: ClassVar[str] = "novel_labels"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement for classification."""
        if view.manifest.target.problem == "regression":
            return []
        counts = [(side.novel, side.novel + int(side.labelled.sum())) for side in (view.window, view.reference)]
        return [share(self.name, None, counts[0], counts[1], doubt=view.doubt)]


class Volume(Measure):
    """How many rows the window has, and how many of them the champion answered and have a label."""

    name: ClassVar[str] = "volume"

    def measure(self, view: View) -> list[Measurement]:
        """Three measurements, by subject: all, own, labelled."""
        side = view.window
        labels = int(side.labelled.sum()) + side.novel
        found = view.logged or Logged(len(side), int(side.own.sum()), labels)
        counts = {"all": found.rows, "own": found.own, "labelled": found.labelled}
        return [Measurement(name=self.name, subject=subject, value=n, rows=found.rows) for subject, n in counts.items()]


class Unwatched(Measure):
    """Columns of which no other measure says anything: the log does not have their values."""

    name: ClassVar[str] = "unwatched"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement without a value for each; the note says why."""
        rows = len(view.window)
        return [Measurement(name=self.name, subject=name, rows=rows, note=why) for name, why in view.unwatched.items()]
