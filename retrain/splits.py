"""Training, validation, calibration and test rows that never overlap: by time where there is time, else stratified."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.conforming import as_datetimes, as_strings
from registry.errors import DataError
from registry.task import Splits, TaskSpec

Rows: TypeAlias = npt.NDArray[np.int64]

STRATA = 20
RUNS = 5
"""Runs into which validation and calibration are cut each when they are spread."""


@dataclass(frozen=True)
class Parts:
    """Row positions of each part, disjoint and together all rows. In time order when the task has a time column."""

    train: Rows
    validation: Rows
    calibration: Rows
    test: Rows

    def counts(self) -> dict[str, int]:
        """The number of rows of each part, by name."""
        return {name: len(rows) for name, rows in vars(self).items()}


def split(frame: pd.DataFrame, task: TaskSpec) -> Parts:
    """The parts of a frame whose rows all have a target (and a time, if the task has a time column).

    With time: training oldest, then validation, calibration, test newest; rows of one moment stay in one part. Under
    `splits.spread`, runs of validation and calibration alternate with runs of training before the test part.
    Without: stratified by class, or by quantiles of a regression's target, shuffled by the search's seed.
    Raises `DataError` when a part would be empty.
    """
    if task.time is not None:
        times = as_datetimes(frame[task.time], task.time).to_numpy().astype(np.int64)
        train, validation, calibration, test = _in_time(times, task.splits)
    else:
        shares, strata = cumulative_shares(task.splits), _strata(frame[task.target], task)
        part = _stratified(strata, shares, np.random.default_rng(task.search.seed))
        train, validation, calibration, test = (np.flatnonzero(part == number) for number in range(4))
    parts = Parts(train, validation, calibration, test)
    empty = [name for name, rows in parts.counts().items() if rows == 0]
    if empty:
        what = f"only {pd.unique(frame[task.time]).size} moments in {task.time!r}" if task.time else "too few rows"
        raise DataError(f"the {empty[0]} part is empty: {what} ({len(frame)} rows); give more rows or change `splits`")
    return parts


def _in_time(times: npt.NDArray[np.int64], splits: Splits) -> list[Rows]:
    """The four parts by time: runs of them in turn, each part's runs joined."""
    if splits.spread == 1:
        order, cuts = time_cuts(times, cumulative_shares(splits))
        return list(np.split(order, cuts))
    held = splits.validation + splits.calibration
    between = min(held * (splits.spread - 1), 1 - splits.test - held) / (2 * RUNS)
    lengths = [between, splits.validation / RUNS, between, splits.calibration / RUNS] * RUNS
    first = 1 - splits.test - sum(lengths)
    order, cuts = time_cuts(times, tuple(accumulate([first, *lengths])))
    oldest, *runs, test = np.split(order, cuts)
    train = np.concatenate([oldest, *runs[0::2]])
    return [train, np.concatenate(runs[1::4]), np.concatenate(runs[3::4]), test]


def cumulative_shares(splits: Splits) -> tuple[float, float, float]:
    """Where the shares of training, validation and calibration end."""
    train = 1 - splits.validation - splits.calibration - splits.test
    return train, train + splits.validation, 1 - splits.test


def time_cuts(times: npt.NDArray[np.int64], shares: tuple[float, ...]) -> tuple[Rows, Rows]:
    """Rows in time order (ties in their given order), and the cuts into it nearest to the cumulative shares that
    leave no moment on both sides."""
    order = np.argsort(times, kind="stable").astype(np.int64)
    ordered = times[order]
    borders = np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(ordered)]
    wanted = np.asarray(shares) * len(ordered)
    cuts = borders[np.abs(borders[None, :] - wanted[:, None]).argmin(axis=1)]
    return order, cuts.astype(np.int64)


def _strata(target: pd.Series[Any], task: TaskSpec) -> npt.NDArray[np.int64]:
    if task.problem != "regression":
        return np.asarray(pd.factorize(as_strings(target))[0], dtype=np.int64)
    ranks = pd.to_numeric(target).rank(method="first").to_numpy()
    strata = int(np.clip(len(target) // 50, 1, STRATA))
    return np.asarray((ranks - 1) * strata // len(target), dtype=np.int64)


def _stratified(strata: npt.NDArray[np.int64], shares: tuple[float, ...], rng: np.random.Generator) -> Rows:
    """The part (0 to 3) of each row. Each stratum is shuffled and laid on the shares with a random offset, so that rare
    ones are spread fairly; its first row always trains."""
    part = np.zeros(len(strata), dtype=np.int64)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        place = (np.arange(len(rows)) + rng.random()) / len(rows)
        place[0] = 0.0
        part[rows] = np.searchsorted(np.asarray(shares), place, side="right")
    return part
