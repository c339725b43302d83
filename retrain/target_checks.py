"""Checks of the column to predict: its values, and whether each part of the rows can be learnt from and judged by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.conforming import as_strings
from registry.errors import DataError
from registry.inference import MAX_CLASSES, printed, unsupported
from registry.target import LARGEST
from registry.task import TaskSpec
from retrain.finding import Finding
from retrain.notation import misread, spellings
from retrain.splits import split

MIN_CLASS_ROWS = 20
"""Two classes at least must have so many rows."""
UNDEFINED_ON_ONE = ("auc", "r2")
"""Metrics that say nothing of rows whose targets are all the same."""
COARSE = 0.25
"""The largest step between two answers, beside the targets' standard deviation."""
FAR_SHARE, RULED = 0.001, 0.99
"""Of so few targets, those furthest from the median, more than this share of the variance makes outliers."""


def target_gaps(target: pd.Series[Any], task: TaskSpec) -> pd.Series[bool]:
    """Rows without a usable target: missing, an empty text, or for regression infinite."""
    if task.problem != "regression":
        return as_strings(target).isna().set_axis(target.index)
    numbers = pd.to_numeric(target, errors="coerce")
    return target.isna() | numbers.isin([np.inf, -np.inf])


def examine_target(frame: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    """What is found of the target alone: gaps, values that are no numbers, classes that are too few or too rare."""
    name, values, n = task.target, frame[task.target], len(frame)
    if (reason := unsupported(values)) is not None:
        yield _fatal(task, reason, "check `target`", n)
        return
    gaps = int(target_gaps(values, task).sum())
    if gaps == n:
        yield Finding(level="fatal", column=name, message="no row has a target", remedy="check `target`", rows=n)
        return
    if gaps:
        kind = "a missing or infinite" if task.problem == "regression" else "no"
        message = f"{gaps:,} of {n:,} rows have {kind} target"
        yield Finding(level="warning", column=name, message=message, remedy="they are left out", rows=gaps)
    yield from _numbers(values, task) if task.problem == "regression" else _classes(values, task)


def _numbers(values: pd.Series[Any], task: TaskSpec) -> Iterator[Finding]:
    wrong = values[values.notna() & pd.to_numeric(values, errors="coerce").isna()]
    if len(wrong):
        message = f"{len(wrong):,} of {len(values):,} targets are no numbers, such as {printed(wrong.iloc[0])}"
        remedy = "clean them, or set `problem` to multiclass"
        yield Finding(level="fatal", column=task.target, message=message, remedy=remedy, rows=len(wrong))
    elif values.nunique() == 1:
        message = f"every target is {printed(values.dropna().iloc[0])}"
        yield Finding(level="fatal", column=task.target, message=message, remedy="check `target`", rows=len(values))
    else:
        yield from _single(values, task)


def _single(values: pd.Series[Any], task: TaskSpec) -> Iterator[Finding]:
    """Targets that an answer in single precision cannot hold, or cannot tell apart."""
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    known = numbers[np.isfinite(numbers)]
    largest = float(np.abs(known).max())
    if largest > LARGEST:
        message, remedy = f"targets are as large as {largest:.3g}", "give them in a larger unit"
    elif (step := float(np.spacing(np.float32(largest)))) > COARSE * float(known.std()):
        message = f"targets as large as {largest:.9g} vary by {known.std():.3g} only, less than answers can tell apart"
        message, remedy = f"{message} (steps of {step:.3g})", "predict the difference to something near them instead"
    else:
        yield from _outliers(known, task)
        return
    yield _fatal(task, f"{message}; answers are in single precision", remedy, len(known))


def _outliers(known: npt.NDArray[np.float64], task: TaskSpec) -> Iterator[Finding]:
    """A few targets by which squared errors, and the unit that all are trained in, go alone."""
    middle = float(np.median(known))
    distance = np.abs(known - middle)
    few = max(1, int(FAR_SHARE * len(known)))
    order = np.argpartition(distance, -few)
    if known[order[:-few]].var() <= (1 - RULED) * known.var():
        message = f"{few:,} of {len(known):,} targets make up more than {RULED:.0%} of their variance, such as "
        message += f"{known[distance.argmax()]:.6g} (median {middle:.6g})"
        remedy = "correct or drop them; if they are right, predict the logarithm"
        yield Finding(level="warning", column=task.target, message=message, remedy=remedy, rows=few)


def _classes(values: pd.Series[Any], task: TaskSpec) -> Iterator[Finding]:
    counts = as_strings(values).value_counts()
    shown = _counted(counts)
    if len(counts) == 1:
        yield _fatal(task, f"only one class, {shown}", "give data with at least two classes", int(counts.iloc[0]))
    elif task.problem == "binary" and len(counts) > 2:
        yield _fatal(task, f"{len(counts)} classes, but the problem is binary", "set `problem` to multiclass", 0)
    elif counts.iloc[1] < MIN_CLASS_ROWS:
        message = f"too few rows in all classes but one: {shown}; at least {MIN_CLASS_ROWS} each are needed in two"
        yield _fatal(task, message, "give more rows of them", int(counts.iloc[1]))
    elif counts.iloc[-1] < MIN_CLASS_ROWS:
        rare = counts[counts < MIN_CLASS_ROWS]
        message = f"{len(rare)} of {len(counts)} classes have fewer than {MIN_CLASS_ROWS} rows: {_counted(rare)}"
        remedy = "merge or drop them; they will hardly be learnt"
        yield Finding(level="warning", column=task.target, message=message, remedy=remedy, rows=int(rare.sum()))

    written = misread(values, task.target, "each different value is a class") if len(counts) > MAX_CLASSES else ()
    for message, remedy, rows in [*written, *spellings(values)]:
        yield Finding(level="warning", column=task.target, message=message, remedy=remedy, rows=rows)


def _counted(counts: pd.Series[Any]) -> str:
    """Classes with their rows: the rarest, if they are many."""
    return ", ".join(f"{label} ({rows:,})" for label, rows in counts.tail(5).items())


def _fatal(task: TaskSpec, message: str, remedy: str, rows: int) -> Finding:
    return Finding(level="fatal", column=task.target, message=message, remedy=remedy, rows=rows)


def in_parts(rows: pd.DataFrame, task: TaskSpec) -> Iterator[Finding]:
    """Training rows must show two classes, and those that choose and judge networks what the metric tells apart."""
    try:
        parts = split(rows, task)
    except DataError:  # which says enough, when they are cut for real
        return
    target = rows[task.target]
    train, time = target.iloc[parts.train], "" if task.time is None else "oldest "
    if task.problem != "regression" and as_strings(train).nunique() == 1:
        message = f"the {time}{len(train):,} rows, which train, are all {printed(train.iloc[0])}"
        yield _fatal(task, message, "give rows that begin earlier or end later", len(train))
    for name, held in (("validation", parts.validation), ("test", parts.test)):
        if (why := undecided(target.iloc[held], task)) is not None:
            message = f"the {len(held):,} rows of the {name} part tell nothing: {why}"
            remedy = "give more rows, choose another `metric`, or change `splits`"
            yield _fatal(task, message, remedy, len(held))


def undecided(target: pd.Series[Any], task: TaskSpec) -> str | None:
    """Why no model is better than another by the task's metric on rows of these targets; None where one may be."""
    if task.metric not in UNDEFINED_ON_ONE or as_strings(target).nunique() > 1:
        return None
    return f"all targets are {printed(target.iloc[0])}, and {task.metric} is undefined on them"
