"""What measures return: numbers about one window, without any judgement. All of it is JSON, for the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BeforeValidator

from registry.schema import Frozen

T = TypeVar("T")


def _finite(value: object) -> object:
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


Number: TypeAlias = Annotated[float | None, BeforeValidator(_finite)]
"""A finite number, or None: NaN and infinities become None."""


class Window(Frozen):
    """The rows with `start <= time < end`: event time, UTC without zone. `index` counts from the first logged row."""

    index: int
    start: datetime
    end: datetime
    rows: int

    @property
    def name(self) -> str:
        """What people call it by, here and in all tables: the moment it begins, with seconds where it has any.

        >>> Window(index=3, start=datetime(2024, 5, 6), end=datetime(2024, 5, 13), rows=0).name
        '2024-05-06 00:00'
        """
        whole = self.start.second == self.start.microsecond == 0
        return f"{self.start:%Y-%m-%d %H:%M}" if whole else f"{self.start:%Y-%m-%d %H:%M:%S}"


class Measurement(Frozen):
    """One number about a window.

    `subject` is the column or the segment it is about, None for the whole window. `low` and `high` bound the value
    with 95 % confidence; `error` is its standard error. `reference` is the same number on the champion's reference
    rows, `reference_error` its standard error. `p_value` is the chance of a value at least as far from the reference
    when nothing changed, for this window's and the reference's own sizes and dependence, uncorrected; of measures of
    shift, given the reference (`significance.py`). `rows` is the
    number of rows behind the value. A value that cannot be had is None, and `note` says why; else `note` is an example
    or a detail. `null_error` is the standard error that a value of so many rows has while nothing has changed, as the
    reference's rows show it, and `skew` that of its law, towards the bad side; `freedom` are the degrees of
    freedom that it is known with, None where these are no matter. `counts` are the rows by bin of the
    reference: they add up over windows. `cost` is by how much the metric is estimated to be worse for this alone.
    """

    name: str
    value: Number = None
    subject: str | None = None
    low: Number = None
    high: Number = None
    reference: Number = None
    reference_error: Number = None
    error: Number = None
    null_error: Number = None
    skew: Number = None
    freedom: Number = None
    p_value: Number = None
    counts: tuple[int, ...] = ()
    cost: Number = None
    cost_error: Number = None
    rows: int = 0
    note: str = ""


class WindowRecord(Frozen):
    """Everything measured about one window, for the champion of that moment. `metric` is the task's metric."""

    window: Window
    version: str
    metric: str
    measurements: tuple[Measurement, ...]

    def named(self, *names: str) -> tuple[Measurement, ...]:
        """The measurements of these names: by name, in the order they were made."""
        return tuple(one for name in names for one in self._by_name.get(name, ()))

    @cached_property
    def p_values(self) -> dict[tuple[str, str | None], float]:
        """The p-values there are, by name and subject."""
        return {(one.name, one.subject): one.p_value for one in self.measurements if one.p_value is not None}

    def least_of(self, *names: str) -> float:
        """The least p-value of the measurements of these names; 1 without any."""
        return self.once(
            names, lambda: min((one.p_value for one in self.named(*names) if one.p_value is not None), default=1.0)
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made when first asked for under this key: it may depend on the measurements, the metric
        and the key alone. A window is looked at again in each of the passes that remember it."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found

    def first(self, name: str) -> Measurement | None:
        """The first measurement of this name that has a value."""
        return next((one for one in self._by_name.get(name, ()) if one.value is not None), None)

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _by_name(self) -> dict[str, list[Measurement]]:
        found: dict[str, list[Measurement]] = {}
        for one in self.measurements:
            found.setdefault(one.name, []).append(one)
        return found

    @property
    def performance(self) -> Measurement | None:
        """The task's metric on the labels that have arrived, if any has."""
        return self.first("performance")
