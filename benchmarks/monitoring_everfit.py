"""Everfit as a contender of the monitoring benchmark: what `watch` does with a window, without log and ledger.

All that knows the monitoring API is in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.monitoring_streams import COVERAGE, Rows
from monitor.measurements import Measurement, Window, WindowRecord
from monitor.measures import measure_all
from monitor.policy import decide
from monitor.reading import Conformed, read_column
from monitor.views import Side, View
from monitor.watching import HISTORY
from registry.bundle import Estimate, Lineage, Manifest
from registry.metrics import METRICS
from registry.schema import CategoricalColumn, Column, DatetimeColumn, NumericColumn, Schema
from registry.scoring import Scores
from registry.target import Target
from registry.task import TaskSpec

TIME = "time"
CLASSES = ("no", "yes")


class Everfit:
    """Measures a window, again once its labels are there, and decides on the newest records. `radius` is how improbable
    a class of the conformal set may be, `policy` is the task's, with its defaults where it says nothing."""

    verdicts: Sequence[str] = ("Everfit",)

    def __init__(self, metric: str, policy: Mapping[str, Any], radius: float) -> None:
        self._metric, self._policy, self._radius = metric, policy, radius

    def start(self, reference: Rows) -> None:
        """Everything that comes with a model."""
        self._manifest = _manifest(reference, self._metric, self._policy, self._radius)
        self._reference = self._side(reference, labelled=True)
        self._memory: dict[str, Any] = {}
        self._records: dict[int, WindowRecord] = {}
        self._waiting: dict[int, Rows] = {}
        self._newest = -1

    def see(self, window: Rows, answered: int | None) -> dict[str, str]:
        """The newest window's severity; `answered` is the window whose labels have arrived with it, if any has."""
        self._newest += 1
        newest = self._newest
        self._waiting[newest] = window
        self._records[newest] = self._record(newest, window, labelled=answered == newest)
        if answered is not None:
            rows = self._waiting.pop(answered)
            if answered != newest and answered in self._records:
                self._records[answered] = self._record(answered, rows, labelled=True)
        self._records.pop(newest - HISTORY, None)
        task, history = self._manifest.task, [self._records[index] for index in sorted(self._records)]
        found = decide(task.policy, history, version="1", min_labels=task.monitor.min_labels)
        self.reasons = found.reasons
        return {"Everfit": found.severity}

    def measure(self, window: Rows, *, labelled: bool) -> tuple[Measurement, ...]:
        """All that is measured about a window."""
        side = self._side(window, labelled=labelled)
        return measure_all(View(side, self._reference, self._manifest, memory=self._memory))

    def _record(self, index: int, window: Rows, *, labelled: bool) -> WindowRecord:
        start = datetime(2024, 1, 1) + index * timedelta(hours=1)
        place = Window(index=index, start=start, end=start + timedelta(hours=1), rows=len(window))
        found = self.measure(window, labelled=labelled)
        return WindowRecord(window=place, version="1", metric=self._metric, measurements=found)

    def _side(self, rows: Rows, *, labelled: bool) -> Side:
        frame, columns = _timed(rows), self._manifest.data_schema.columns
        read = {column.name: read_column(frame[column.name], column) for column in columns}
        inputs = Conformed(read)
        names = {name: one.names for name, one in read.items() if one.names is not None}
        known = np.full(len(rows), labelled)
        labels = np.where(known, rows.labels, -1)
        own, scores = np.ones(len(rows), dtype=bool), _scores(rows, self._radius)
        return Side(inputs, own, scores, labels, known, times=inputs.get(TIME), names=names)


def _timed(rows: Rows) -> pd.DataFrame:
    return rows.inputs if rows.times is None else rows.inputs.assign(**{TIME: rows.times})


def _scores(rows: Rows, radius: float) -> Scores:
    """What a graph would answer: a single model has no members to disagree."""
    p = np.column_stack([1 - rows.positive, rows.positive])
    top = (p[:, 1] > p[:, 0]).astype(np.int64)
    sets = p >= 1 - radius
    sets[np.arange(len(p)), top] = True
    entropy = -np.einsum("ij,ij->i", p, np.log(np.clip(p, 1e-12, 1)))
    prediction = np.array(CLASSES, dtype=object)[top]
    return Scores(prediction, entropy, np.zeros(len(p)), probabilities=p, sets=sets)


def _manifest(reference: Rows, metric: str, policy: Mapping[str, Any], radius: float) -> Manifest:
    timed = _timed(reference)
    task = TaskSpec.model_validate(
        {
            "name": "monitoring",
            "source": {"kind": "file", "path": "none.csv"},
            "target": "label",
            "time": None if reference.times is None else TIME,
            "problem": "binary",
            "metric": metric,
            "coverage": COVERAGE,
            "policy": {"kind": "performance", **policy},
        }
    )
    scores, judge = _scores(reference, radius).scores, next(one for one in METRICS if one.name == metric)
    value, error = judge.value(reference.labels, scores), judge.standard_error(reference.labels, scores)
    return Manifest(
        task=task,
        data_schema=Schema(columns=tuple(_column(str(name), timed[name]) for name in timed)),
        target=Target(problem="binary", classes=CLASSES),
        reference=Estimate(value=value, error=error, rows=len(reference)),
        metrics={"champion": {metric: value}},
        conformal_radius=radius,
        lineage=Lineage(data_hash="0" * 64, rows={}, code_version="", seed=0, seconds=0, trials=0),
    )


def _column(name: str, values: pd.Series[Any]) -> Column:
    missing = float(values.isna().mean())
    if name == TIME:
        return DatetimeColumn(name=name, missing=missing)
    if pd.api.types.is_numeric_dtype(values):
        return NumericColumn(name=name, missing=missing, low=float(values.min()), high=float(values.max()))
    counts = values.value_counts()
    return CategoricalColumn(name=name, missing=missing, categories=tuple(counts.index), distinct=len(counts))
