"""Data quality: what is wrong with the rows themselves, column by column, beside the reference."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from monitor.measurements import Measurement
from monitor.significance import share_above
from monitor.views import Measure, Side, View
from registry.schema import CategoricalColumn, Column, NumericColumn


def share(
    name: str, subject: str | None, window: tuple[int, int], reference: tuple[int, int], note: str = ""
) -> Measurement:
    """A share of rows beside the reference's, each given as (hits, rows), and the chance of one so much larger."""
    (hits, rows), (known_hits, known_rows) = window, reference
    return Measurement(
        name=name,
        subject=subject,
        value=hits / rows if rows else None,
        reference=known_hits / known_rows if known_rows else None,
        p_value=share_above(hits, rows, known_hits, known_rows) if rows else None,
        rows=rows,
        note=note,
    )


class ColumnShare(Measure):
    """A measure that is a share of the rows in each column."""

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column that the measure is about."""
        return [self._of(view, column) for column in view.manifest.data_schema.columns if self.concerns(column)]

    def concerns(self, column: Column) -> bool:
        """Whether the measure is about such a column."""
        return True

    @abstractmethod
    def count(self, side: Side, column: Column) -> tuple[int, int, str]:
        """How many rows are meant, of how many, and an example."""

    def _of(self, view: View, column: Column) -> Measurement:
        hits, rows, note = self.count(view.window, column)
        return share(self.name, column.name, (hits, rows), self.count(view.reference, column)[:2], note)


class BrokenShare(ColumnShare):
    """Values of a wrong type, which the column cannot hold."""

    name: ClassVar[str] = "broken"

    def count(self, side: Side, column: Column) -> tuple[int, int, str]:
        """Rows with a broken value, and one such value."""
        found = side.broken.get(column.name)
        return (found.rows, len(side), f"such as {found.example}") if found else (0, len(side), "")


class MissingShare(ColumnShare):
    """Missing values; broken ones are counted apart."""

    name: ClassVar[str] = "missing"

    def count(self, side: Side, column: Column) -> tuple[int, int, str]:
        """Rows with nothing in them."""
        broken = side.broken[column.name].rows if column.name in side.broken else 0
        return int(side.inputs[column.name].isna().sum()) - broken, len(side), ""


class UnseenShare(ColumnShare):
    """Categories that training did not learn: new ones, or too rare ones."""

    name: ClassVar[str] = "unseen"

    def concerns(self, column: Column) -> bool:
        """Categorical columns."""
        return isinstance(column, CategoricalColumn)

    def count(self, side: Side, column: Column) -> tuple[int, int, str]:
        """Rows whose category is not known, and the most frequent such."""
        present = side.inputs[column.name].dropna()
        unseen = present[~present.isin(column.categories)] if isinstance(column, CategoricalColumn) else present[:0]
        example = f"such as {unseen.mode().iloc[0]!r}" if len(unseen) else ""
        return len(unseen), len(present), example


class OutOfRange(ColumnShare):
    """Numbers outside the range seen in training."""

    name: ClassVar[str] = "out_of_range"

    def concerns(self, column: Column) -> bool:
        """Numeric columns whose range is known."""
        return isinstance(column, NumericColumn) and column.low is not None and column.high is not None

    def count(self, side: Side, column: Column) -> tuple[int, int, str]:
        """Rows below the lowest or above the highest number."""
        present = side.inputs[column.name].dropna()
        if not isinstance(column, NumericColumn) or column.low is None or column.high is None:
            return 0, len(present), ""
        return int(((present < column.low) | (present > column.high)).sum()), len(present), ""


class Constant(Measure):
    """How far a column stands still: the share of its most frequent value in the window, and what share that value has
    in the reference. Moments are left out: time moves on.

    A month or a season stands still for weeks and is not broken. The chance is at least that of no change in so long a
    window, exp(-changes), if changes come as often as between the reference's rows in time order (a Poisson process).
    """

    name: ClassVar[str] = "constant"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement a column that has values in the window."""
        columns = [column.name for column in view.manifest.data_schema.columns if column.kind != "datetime"]
        times_as_long = _times_as_long(view)
        pairs = ((name, view.window.inputs[name].dropna(), view.reference.inputs[name].dropna()) for name in columns)
        return [self._of(name, window, reference, times_as_long) for name, window, reference in pairs if len(window)]

    def _of(self, name: str, window: pd.Series[Any], reference: pd.Series[Any], times_as_long: float) -> Measurement:
        values, counts = np.unique(window.to_numpy(), return_counts=True)
        most, before = values[counts.argmax()], reference.to_numpy()
        known = (int((before == most).sum()), len(before))
        found = share(self.name, name, (int(counts.max()), len(window)), known, f"at {most!s}"[:80])
        often = int(np.count_nonzero(before[1:] != before[:-1]))
        changes = often * times_as_long if math.isfinite(times_as_long) else math.inf
        return found.model_copy(update={"p_value": max(found.p_value or 0.0, math.exp(-changes))})


def _times_as_long(view: View) -> float:
    """How many times as long as the reference's time the window's is; infinity without a time column, or with a
    reference of one moment, as nobody can tell then how long is long."""
    time = view.manifest.task.time
    if time is None or time not in view.reference.inputs.columns:
        return math.inf
    window, reference = (side.inputs[time].dropna().to_numpy() for side in (view.window, view.reference))
    if not len(window) or not len(reference) or reference.max() == reference.min():
        return math.inf
    return float((window.max() - window.min()) / (reference.max() - reference.min()))


class Duplicates(Measure):
    """Rows that repeat an earlier one of the window in every column."""

    name: ClassVar[str] = "duplicates"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        (hits, rows), reference = _repeats(view.window), _repeats(view.reference)
        return [share(self.name, None, (hits, rows), reference)]


def _repeats(side: Side) -> tuple[int, int]:
    return int(side.inputs.duplicated().sum()), len(side)


class NovelLabels(Measure):
    """Labels of a class that the model does not know; regression has none."""

    name: ClassVar[str] = "novel_labels"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement for classification."""
        if view.manifest.target.problem == "regression":
            return []
        counts = [(side.novel, side.novel + int(side.labelled.sum())) for side in (view.window, view.reference)]
        return [share(self.name, None, counts[0], counts[1])]


class Volume(Measure):
    """How many rows the window has, and how many of them the champion answered and have a label."""

    name: ClassVar[str] = "volume"

    def measure(self, view: View) -> list[Measurement]:
        """Three measurements, by subject: all, own, labelled."""
        side = view.window
        labels = int(side.labelled.sum()) + side.novel
        counts = {"all": len(side), "own": int(side.own.sum()), "labelled": labels}
        return [Measurement(name=self.name, subject=subject, value=n, rows=len(side)) for subject, n in counts.items()]
