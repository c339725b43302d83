"""Records of windows as a policy sees them, made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from monitor.measurements import Measurement, Window, WindowRecord

START, WEEK = datetime(2024, 1, 1), timedelta(days=7)


def performance(value: float | None, *, error: float = 0.008, rows: int = 6_000, reference: float = 0.7) -> Measurement:
    """A window's AUC beside a reference of the given value, known to 0.01."""
    return Measurement(
        name="performance", value=value, error=error, rows=rows, reference=reference, reference_error=0.01, note="auc"
    )


def record(index: int, *measurements: Measurement, version: str = "1", metric: str = "auc") -> WindowRecord:
    """The record of a week."""
    start = START + index * WEEK
    window = Window(index=index, start=start, end=start + WEEK, rows=6_000)
    return WindowRecord(window=window, version=version, metric=metric, measurements=measurements)


def weeks(values: Iterable[float | None], *, reference: float = 0.7, **options: float) -> list[WindowRecord]:
    """A record a week with these AUCs."""
    return [record(i, performance(value, reference=reference, **options)) for i, value in enumerate(values)]


def end_of(index: int) -> datetime:
    """The moment at which week `index` is complete."""
    return START + (index + 1) * WEEK
