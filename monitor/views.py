"""What a measure sees: the window and the reference side by side, in the same form; and the base of all measures.

A logged row holds what a client sent. A value that its column cannot hold is counted as broken and becomes missing: a
measure never meets it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitor.measurements import Measurement
from monitor.reading import Broken, Conformed, readable
from monitor.significance import LUCK
from monitor.values import Names, Values, values_of
from registry.bundle import LABEL, TIME, Manifest, ModelBundle
from registry.conforming import conform
from registry.inference_log import InferenceLog
from registry.log_frame import lost, sealed
from registry.metrics import Labels
from registry.schema import Schema
from registry.scoring import Scores
from registry.target import UNKNOWN_CLASS, Target
from registry.watched import watched, watched_manifest, watched_rows
from registry.yardstick import Yardstick

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """n rows of one side.

    `columns` are the conformed columns (n rows), as a frame or by name. `own` (n,) says which rows the version in
    question answered; `scores` and `labels` belong to those m rows alone. `labelled` (m,) says whose label has arrived
    and is of a known class, `novel` counts the labels that are of none. `times` (n,) are event times, where they are
    known. `names` are categorical columns as measures read them, where whoever conformed them knows them already.
    """

    columns: pd.DataFrame | Mapping[str, pd.Series[Any]]
    own: npt.NDArray[np.bool_]
    scores: Scores
    labels: Labels
    labelled: npt.NDArray[np.bool_]
    novel: int = 0
    broken: Mapping[str, Broken] = field(default_factory=dict)
    times: pd.Series[Any] | None = None
    names: Mapping[str, Names] = field(default_factory=dict)
    _read: dict[str, Values] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.own)

    @cached_property
    def inputs(self) -> pd.DataFrame:
        """The columns as a frame: to make one takes a small window as long as to look at all of its columns."""
        if isinstance(self.columns, pd.DataFrame):
            return self.columns
        return pd.DataFrame(dict(self.columns), pd.RangeIndex(len(self)), copy=False)

    def column(self, name: str) -> Values:
        """A column as measures read it."""
        if name not in self._read:
            self._read[name] = self.names[name] if name in self.names else values_of(self.columns[name])
        return self._read[name]

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """Which of the n rows are the m of the version in question, (m,)."""
        return np.flatnonzero(self.own)

    @cached_property
    def known(self) -> tuple[Labels, Scores]:
        """The labels that have arrived, and the scores of their rows: no copies where all have."""
        if self.labelled.all():
            return self.labels, self.scores
        return self.labels[self.labelled], self.scores.take(self.labelled)


@dataclass(frozen=True)
class Fresh:
    """A boosted model fitted to so many newer rows."""

    model: Yardstick
    rows: int


@dataclass(frozen=True)
class Logged:
    """How many rows a window has, how many the champion answered, and how many of these have a label."""

    rows: int
    own: int
    labelled: int


@dataclass(frozen=True)
class View:
    """A window beside the champion's reference rows. `fresh` is a quick model fitted to the newest rows before the
    window whose labels were known when it began; None where they are too few or it is not wanted. `logged` counts all
    rows of the window's time where `window` holds one in so many of them. `unwatched` are the columns whose values the
    log does not have of all rows, and why: the manifest's schema lacks them. `sealed` are those that it has encrypted:
    what is measured goes into the ledger, and must quote none of their values."""

    window: Side
    reference: Side
    manifest: Manifest
    fresh: Fresh | None = None
    logged: Logged | None = None
    unwatched: Mapping[str, str] = field(default_factory=dict)
    sealed: frozenset[str] = frozenset()
    memory: dict[str, Any] = field(default_factory=dict)
    _own: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives, made when first asked for under this key: all views of one reference share a `memory`, so
        it may depend on the reference and the manifest alone."""
        return _kept(self.memory, key, make)

    def here(self, key: str, make: Callable[[], T]) -> T:
        """The same for what depends on the window too, and more than one measure asks for."""
        return _kept(self._own, key, make)

    @property
    def stride(self) -> float:
        """How many of the window's rows one of the reference stands for: it is a sample of the test rows."""
        one_in = self.logged.rows / len(self.window) if self.logged is not None and len(self.window) else 1.0
        return max(1.0, self.manifest.reference.rows / max(1, len(self.reference)) / one_in)

    @property
    def doubt(self) -> float:
        """The probability that is left to each look for a shift that the reference is off by more than is allowed for:
        of `LUCK` for all of them together. A column is looked at three times at most, and all of it seven times."""
        return LUCK / (3 * len(self.manifest.data_schema.columns) + 7)

    @property
    def tellable(self) -> Schema:
        """The schema of the columns whose values may be quoted."""
        schema = self.manifest.data_schema
        return schema.without(self.sealed) if self.sealed else schema


def _kept(memory: dict[str, Any], key: str, make: Callable[[], T]) -> T:
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found


class Measure(ABC):
    """Numbers about a window: the plug-in point of monitoring. A measure holds no threshold and keeps no state.

    It must cope with an empty window, a column that is missing throughout, one class only, and no label at all.
    """

    name: ClassVar[str]

    @abstractmethod
    def measure(self, view: View) -> list[Measurement]:
        """The measurements, all of this measure's name."""


def reference_side(bundle: ModelBundle, manifest: Manifest | None = None) -> Side:
    """The rows that came with the model, answered before it was fitted to them, if ever (but for the golden ones of a
    champion that follows), in time order as a window's are: they were drawn at random. `manifest` is the bundle's, of
    fewer columns where not all are watched."""
    frame, manifest = bundle.reference(), manifest or bundle.manifest
    time = next((name for name in (TIME, manifest.task.time) if name in frame.columns), None)
    if time is not None:
        frame = frame.sort_values(time, kind="stable", ignore_index=True)
    labels, labelled, novel = _labels(frame[LABEL], manifest.target)
    own = np.ones(len(frame), dtype=bool)
    times = None if time is None else frame[time]
    inputs = conform(watched_rows(frame, manifest.data_schema), watched(manifest.data_schema))
    return Side(inputs, own, Scores.read(frame), labels, labelled, novel, times=times)


def window_side(logged: pd.DataFrame, version: str | Collection[str] | None, manifest: Manifest) -> Side:
    """The rows of `InferenceLog.frame`; scores and labels of those that `version`, or one of several, answered (None:
    any). Of a task with images those rows alone: what another one saw of an image cannot be compared."""
    names = [version] if isinstance(version, str) else list(version or ())
    own = (logged["__version__"].isin(names) | (version is None)).to_numpy(dtype=bool)
    if manifest.data_schema.image is not None:
        logged, own = logged[own].reset_index(drop=True), own[own]
    columns = {column.name: readable(logged, column) for column in watched(manifest.data_schema).columns}
    mine = logged[own]
    labels, labelled, novel = _labels(mine["__label__"], manifest.target)
    broken = {name: one.fault for name, one in columns.items() if one.fault is not None}
    found = {name: one.names for name, one in columns.items() if one.names is not None}
    times = logged["__time__"].reset_index(drop=True)
    return Side(Conformed(columns), own, _scores(mine, manifest.target), labels, labelled, novel, broken, times, found)


class Read(NamedTuple):
    """A window as it was read; see `View`. `manifest` is that of the columns that can be watched in it."""

    side: Side
    manifest: Manifest
    logged: Logged | None
    unwatched: Mapping[str, str]
    sealed: frozenset[str]

    def view(self, reference: Side, memory: dict[str, Any] | None = None) -> View:
        """The window beside the reference rows of these columns, and what all windows beside them share."""
        return View(
            self.side,
            reference,
            watched_manifest(self.manifest),
            logged=self.logged,
            unwatched=self.unwatched,
            sealed=self.sealed,
            memory={} if memory is None else memory,
        )


def read_window(
    log: InferenceLog, start: datetime, end: datetime, versions: Collection[str], manifest: Manifest, as_of: datetime
) -> Read:
    """The rows of a window with the labels known at `as_of`; its own are those that one of these versions answered. Of
    more than `monitor.most_rows` one in so many, evenly spaced, so that no window is too large for memory; and how many
    there are, where the side has not all of them."""
    inside: dict[str, Any] = {"start": start, "end": end, "labels_by": as_of}
    rows, most = log.number(start=start, end=end), manifest.task.monitor.most_rows
    frame = log.frame(step=max(1, -(-rows // most)), **inside)
    unwatched = lost(frame, manifest.data_schema.names)
    manifest = without(manifest, unwatched)
    side, hidden = window_side(frame, versions, manifest), sealed(frame)
    if rows <= most and len(side) == rows:
        return Read(side, manifest, None, unwatched, hidden)
    own = [log.counts(version=one, **inside) for one in versions]
    logged = Logged(rows, sum(one.predictions for one in own), sum(one.labelled for one in own))
    return Read(side, manifest, logged, unwatched, hidden)


def without(manifest: Manifest, names: Collection[str]) -> Manifest:
    """The manifest without some of its columns; the same one without any."""
    return manifest.model_copy(update={"data_schema": manifest.data_schema.without(names)}) if names else manifest


def _labels(values: pd.Series[Any], target: Target) -> tuple[Labels, npt.NDArray[np.bool_], int]:
    """Labels as metrics take them, which of them are there, and how many are of an unknown class."""
    if target.problem == "regression":
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
        return numbers, np.isfinite(numbers), 0
    arrived = values.notna().to_numpy()
    codes = target.encode(values)
    known = codes != UNKNOWN_CLASS
    return codes, arrived & known, int((arrived & ~known).sum())


def _scores(logged: pd.DataFrame, target: Target) -> Scores:
    """The outputs as they were logged."""
    n, k = len(logged), len(target.classes)
    total, apart = (logged[f"__{name}__"].to_numpy(dtype=np.float64) for name in ("uncertainty", "disagreement"))
    matrix = np.array(logged["__scores__"].to_list(), dtype=np.float64).reshape(n, k or 2)
    if target.problem == "regression":
        return Scores(logged["__prediction__"].to_numpy(dtype=np.float64), total, apart, interval=matrix)
    members, sets = logged["__set__"].to_list(), np.zeros((n, k), dtype=bool)
    rows = np.repeat(np.arange(n), [len(one or ()) for one in members])
    sets[rows, np.array([index for one in members for index in one or ()], dtype=np.int64)] = True
    return Scores(logged["__prediction__"].to_numpy(dtype=object), total, apart, probabilities=matrix, sets=sets)
