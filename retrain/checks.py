"""Checks of the data before any training: findings with row counts; fatal ones stop with what to do.

`examine` measures, `require` judges, `usable` gives the rows that remain. What no check here can see: a leak spread
over two columns, labels that are wrong, rows that stand for one another (patients, devices) across the parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from registry.conforming import as_datetimes
from registry.database import utc_now
from registry.dating import dated
from registry.errors import DataError, RowError, did_you_mean
from registry.images import seen_names
from registry.inference import (
    SEGMENTS,
    conform_as,
    infer_kinds,
    nested,
    no_segments,
    printed,
    require_overrides,
)
from registry.plurals import counted
from registry.privacy import hides_image
from registry.schema import ColumnKind
from registry.task import TaskSpec
from retrain.finding import Finding
from retrain.leaks import leaks
from retrain.notation import misread
from retrain.target_checks import examine_target, in_parts, target_gaps

MIN_ROWS = 200
"""Fewer usable rows are fatal: the calibration part would be too small for a conformal quantile."""
FEW_ROWS = 1_000
AHEAD = timedelta(days=1)
"""Beyond the clock; no zone is further ahead of UTC."""
NAMED = 3
"""Columns that a message of many names."""


def require(findings: Sequence[Finding]) -> None:
    """Raise `DataError` with every fatal finding, one a line."""
    fatal = [str(finding) for finding in findings if finding.level == "fatal"]
    if fatal:
        raise DataError("the data cannot be used:\n" + "\n".join(f"  {line}" for line in fatal))


def usable(frame: pd.DataFrame, task: TaskSpec) -> pd.DataFrame:
    """The rows that have a target (finite, for regression) and a time, if the task has a time column."""
    keep = ~target_gaps(frame[task.target], task)
    if task.time is not None:
        keep &= frame[task.time].notna()
    return frame[keep].reset_index(drop=True)


def examine(frame: pd.DataFrame, task: TaskSpec, *, seed: int = 0) -> list[Finding]:
    """All findings on a raw frame, fatal ones first. Raises `TaskError` if the task's column overrides are wrong.

    Later checks need what earlier ones establish: a missing target or unparsable times end the examination there.
    """
    findings: list[Finding] = []
    for stage in (_columns, _enough, _times, examine_target):
        findings += stage(frame, task)
        if any(finding.level == "fatal" for finding in findings):
            return sorted(findings, key=lambda finding: finding.level)
    rows = usable(frame, task)
    kinds = infer_kinds(frame, task.columns, target=task.target, time=task.time)
    findings += [*_count(rows, task), *_duplicates(frame)]
    findings += [
        Finding(level="warning", column=one.name, message=one.reason, remedy="it is left out", rows=len(frame))
        for one in kinds.left_out
        if one.name not in task.columns.exclude
    ]
    for one in (one for one in kinds.left_out if one.reason.startswith("identifier-like")):
        findings += _misread(frame[one.name], one.name, "it is left out")
    findings += [*_taken(kinds.kinds, task), *_images(kinds.kinds, task), *_segments(kinds.kinds, task)]
    findings += _columns_beside(kinds.kinds, task)
    if not kinds.kinds:
        gone = "; ".join(f"{one.name!r}: {one.reason}" for one in kinds.left_out[:NAMED])
        message = f"no column is left to learn from{f' ({gone})' if gone else ''}"
        findings.append(Finding(level="fatal", message=message, remedy="add columns"))
    for name, kind in kinds.kinds.items():
        findings += _values(frame[name], name, kind, declared=name in task.columns.kinds)
    bad = {finding.column for finding in findings if finding.level == "fatal"}
    read = [name for name, kind in kinds.kinds.items() if kind != "image"]  # an image may well tell the target alone
    readable = {name: kinds.kinds[name] for name in read if name not in bad and name != task.time}
    findings += _leaks(rows, readable, task, seed)
    return sorted(findings, key=lambda finding: finding.level)


def require_columns(frame: pd.DataFrame, task: TaskSpec) -> None:
    """Raise `DataError` where the data, of which one row is enough, lack a column that the task names or have no
    rows, `TaskError` where it says something of columns that cannot be."""
    require(list(_columns(frame, task)))
    require_overrides(frame, task.columns, task.target, task.time)


def _columns(frame: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    known = [str(name) for name in frame.columns]
    for role, name in (("target", task.target), ("time", task.time)):
        if name is not None and name not in known:
            message = f"the data have no such column{did_you_mean(name, known)}"
            yield Finding(level="fatal", column=name, message=message, remedy=f"correct `{role}` in the task")
    for role, names in (("log", task.log.names), (SEGMENTS, task.monitor.segments)):
        for name in (name for name in names if name not in known):
            message = f"the data have no such column{did_you_mean(name, known)}"
            yield Finding(level="fatal", column=name, message=message, remedy=f"correct `{role}` in the task")
    if len(frame) == 0:
        yield Finding(level="fatal", message="there are no rows", remedy="check the source")


def _enough(frame: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    """Too few rows for anything: what else is wrong with so few would lead astray."""
    if (n := len(frame)) < MIN_ROWS:
        message = f"{counted(n, 'row')}, at least {MIN_ROWS} are needed"
        yield Finding(level="fatal", message=message, remedy="give more rows", rows=n)


def _times(frame: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    if task.time is None:
        return
    name, values = task.time, frame[task.time]
    remedy = dated(values, name)
    if values.dtype.kind in "iufb":
        yield Finding(
            level="fatal", column=name, message=f"times are numbers, such as {printed(values.iloc[0])}", remedy=remedy
        )
        return
    bad = _unparsable(values, name)
    if len(bad):
        message = f"{len(bad):,} of {len(values):,} values are no times, such as {printed(values[bad[0]])}"
        yield Finding(level="fatal", column=name, message=message, remedy=remedy, rows=len(bad))
    else:
        yield from _ahead(values, name)
    missing = int(values.isna().sum())
    if missing == len(values):
        yield Finding(level="fatal", column=name, message="all times are missing", remedy=remedy, rows=missing)
    elif missing:
        message = f"{missing:,} of {len(values):,} rows have no time"
        yield Finding(level="warning", column=name, message=message, remedy="they are left out", rows=missing)
    if not len(bad) and missing < len(values) and values.nunique() == 1:
        message = f"every row has the same time, {printed(values.dropna().iloc[0])}: none is newer than another"
        remedy = "name a column that tells them apart, or none (`time: null`; no `--time`)"
        yield Finding(level="fatal", column=name, message=message, remedy=remedy, rows=len(values))


def _ahead(values: pd.Series[Any], name: str) -> Iterator[Finding]:
    """Times that have not come yet: what stands for no end, such as 9999-12-31, would be the newest rows for ever."""
    times = as_datetimes(values, name)
    ahead = int((times > utc_now() + AHEAD).sum())
    if ahead:
        message = f"{ahead:,} of {len(values):,} times are in the future, up to {times.max():%Y-%m-%d}"
        remedy = "correct or drop these rows, unless they foretell: they count as the newest, which test the model, "
        remedy += "and no row served before them is newer than what it knows"
        yield Finding(level="warning", column=name, message=message, remedy=remedy, rows=ahead)


def _unparsable(values: pd.Series[Any], name: str) -> pd.Index[Any]:
    try:
        as_datetimes(values, name)
    except RowError:
        known = pd.Series(pd.unique(values.dropna()))
        wrong = known[pd.to_datetime(known, utc=True, format="ISO8601", errors="coerce").isna()]
        return values.index[values.isin(wrong.tolist())]
    return values.index[:0]


def _count(rows: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    n = len(rows)
    if n < MIN_ROWS:
        message = f"{counted(n, 'usable row')}, at least {MIN_ROWS} are needed"
        yield Finding(level="fatal", message=message, remedy="give more rows", rows=n)
        return
    if n < FEW_ROWS:
        message = f"only {n:,} usable rows: scores will be noisy"
        yield Finding(level="warning", message=message, remedy=f"more than {FEW_ROWS:,} are advisable", rows=n)
    yield from in_parts(rows, task)


def _duplicates(frame: pd.DataFrame) -> Iterator[Finding]:
    hashable = [name for name in frame.columns if not nested(frame[name])]
    rows = int(frame.duplicated(subset=hashable).sum())
    if rows:
        message = f"{rows:,} of {len(frame):,} rows repeat an earlier row exactly"
        remedy = "drop them if they are one event stored twice: they would stand in two parts"
        yield Finding(level="warning", message=message, remedy=remedy, rows=rows)


def _taken(kinds: dict[str, ColumnKind], task: TaskSpec) -> Iterator[Finding]:
    """Columns whose names the log needs for the numbers that monitoring sees an image by."""
    read = [*dict.fromkeys([*kinds, task.target, *([task.time] if task.time else [])])]
    for image in (name for name, kind in kinds.items() if kind == "image"):
        for name in (name for name in read if name in seen_names(image)):
            message = f"the log needs this name for what is seen of the images in {image!r}"
            yield Finding(level="fatal", column=name, message=message, remedy="rename it")


def _images(kinds: dict[str, ColumnKind], task: TaskSpec) -> Iterator[Finding]:
    """Images that the task's log is to hide otherwise than by dropping them."""
    for name in (name for name, kind in kinds.items() if kind == "image"):
        if (why := hides_image(task, name)) is not None:
            message, remedy = why.split(": ", 1)
            yield Finding(level="fatal", column=name, message=message, remedy=remedy)


def _columns_beside(kinds: dict[str, ColumnKind], task: TaskSpec) -> Iterator[Finding]:
    """Choices of how columns are augmented where there are none beside the images."""
    if not task.search.choices or set(kinds.values()) != {"image"}:
        return
    from retrain.augmentation import OF_COLUMNS

    for name in (name for name in OF_COLUMNS if name in task.search.choices):
        message = f"search.choices.{name}: it changes columns, and there are none beside the images"
        yield Finding(level="fatal", message=message, remedy="leave it out, or add columns")


def _segments(kinds: dict[str, ColumnKind], task: TaskSpec) -> Iterator[Finding]:
    """Segments that are no categories, or that nobody logs."""
    for name in (name for name in task.monitor.segments if name not in kinds):
        message = f"`{SEGMENTS}` names it, and no model reads it: it is not logged"
        yield Finding(level="warning", column=name, message=message, remedy="its values are not watched apart")
    for name, why in no_segments(kinds, task.monitor.segments):
        remedy = f"correct `{SEGMENTS}` in the task, or declare it categorical under `columns.kinds`"
        yield Finding(level="fatal", column=name, message=why, remedy=remedy)


def _values(values: pd.Series[Any], name: str, kind: ColumnKind, *, declared: bool) -> Iterator[Finding]:
    """Values that do not fit the column's kind, or types that are mixed in it."""
    if kind == "categorical":
        yield from () if declared else _misread(values, name, "it is read as categories")
    elif declared:
        yield from _misfits(values, name, kind)
    if kind == "numeric" and values.dtype.kind == "f" and (infinite := int(np.isinf(values.to_numpy()).sum())):
        message = f"{infinite:,} of {len(values):,} values are infinite"
        yield Finding(level="warning", column=name, message=message, remedy="they count as missing", rows=infinite)


def _misread(values: pd.Series[Any], name: str, now: str) -> Iterator[Finding]:
    """A column whose texts are likely to be meant as numbers or dates."""
    for message, remedy, rows in misread(values, name, now):
        remedy = f"{remedy}, or declare its kind under `columns.kinds`"
        yield Finding(level="warning", column=name, message=message, remedy=remedy, rows=rows)


def _misfits(values: pd.Series[Any], name: str, kind: ColumnKind) -> Iterator[Finding]:
    """A declared kind that some value does not fit."""
    try:
        conform_as(values, name, kind)
    except RowError as error:
        remedy = f"correct the value, or the kind {kind!r} declared under `columns.kinds` in the task"
        message = re.sub(rf"^column {re.escape(repr(name))}[,:] ", "", str(error))
        yield Finding(level="fatal", column=name, message=message, remedy=remedy, rows=1)


def _leaks(rows: pd.DataFrame, kinds: dict[str, ColumnKind], task: TaskSpec, seed: int) -> Iterator[Finding]:
    for leak in leaks(rows, kinds, task.target, task.problem, seed=seed):
        declared = leak.column in task.columns.kinds
        certain = leak.perfect and not declared
        message = f"it predicts the target {'' if leak.perfect else 'almost '}alone ({leak.measure} {leak.score:.3f} "
        yield Finding(
            level="fatal" if certain else "warning",
            column=leak.column,
            message=f"{message}on {leak.rows:,} held-out rows)",
            remedy="if it is not known before the outcome, list it under `columns.exclude`"
            + (", otherwise declare its kind under `columns.kinds`" if certain else ""),
            rows=leak.rows,
        )
