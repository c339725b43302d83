"""From a raw frame to what a study trains on: checked, split, described, prepared, and written as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry.conforming import as_datetimes, conform
from registry.inference import learn_schema
from registry.metrics import Labels
from registry.schema import Schema
from registry.target import Target
from registry.task import TaskSpec
from retrain.calibration import TargetScale
from retrain.checks import examine, require, usable
from retrain.finding import Finding
from retrain.preparation import Preparation, ScalingName
from retrain.search import plan as plans
from retrain.search.inputs import Layout
from retrain.splits import Parts, split


@dataclass(frozen=True)
class Material:
    """A task's usable rows, and all that was learnt of them before any training. Schema, preparations (by scaling) and
    the target's scale know the training rows alone; but for the columns' kinds, and the size and channels of images,
    which all rows show (`registry/inference.py`)."""

    task: TaskSpec
    frame: pd.DataFrame
    findings: tuple[Finding, ...]
    parts: Parts
    schema: Schema
    target: Target
    preparations: Mapping[str, Preparation]
    scale: TargetScale | None

    @cached_property
    def conformed(self) -> pd.DataFrame:
        """All usable rows, conformed."""
        return conform(self.frame, self.schema)

    @cached_property
    def labels(self) -> Labels:
        """The labels of all usable rows (n,)."""
        return self.target.encode(self.frame[self.task.target])

    @property
    def layout(self) -> Layout:
        """What the networks' inputs stand for: alike for every scaling."""
        return layout_of(next(iter(self.preparations.values())))

    @property
    def d_out(self) -> int:
        """How many numbers a network gives."""
        return 2 if self.scale is not None else len(self.target.classes)

    def newest(self, *parts: npt.NDArray[np.int64]) -> datetime | None:
        """The newest event time of the rows of these parts; None without a time column."""
        times = self._times(parts)
        return None if times is None else times.max().to_pydatetime()

    def oldest(self, *parts: npt.NDArray[np.int64]) -> datetime | None:
        """The oldest event time of the rows of these parts; None without a time column."""
        times = self._times(parts)
        return None if times is None else times.min().to_pydatetime()

    def after(self, moment: datetime | None, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these rows are later than a moment; all of them after None, none without a time column."""
        if moment is None or (times := self._times((rows,))) is None:
            return np.full(len(rows), moment is None)
        return (times > moment).to_numpy(dtype=bool)

    def _times(self, parts: tuple[npt.NDArray[np.int64], ...]) -> pd.Series[Any] | None:
        if self.task.time is None:
            return None
        return as_datetimes(self.frame[self.task.time], self.task.time).iloc[np.concatenate(parts)]


def gather(task: TaskSpec, frame: pd.DataFrame, found: Sequence[Finding] = ()) -> Material:
    """Check, split, describe and prepare. Images are loaded already (`image_checks.py`), and `found` is what was found
    then. Raises `DataError` with every fatal finding."""
    findings = sorted([*found, *examine(frame, task, seed=task.search.seed)], key=lambda finding: finding.level)
    require(findings)
    rows = usable(frame, task)
    parts = split(rows, task)
    train = rows.iloc[parts.train]
    schema = learn_schema(rows, train, task)
    target = Target.learn(rows[task.target], task.problem)
    conformed = conform(train, schema)
    regression = task.problem == "regression"
    return Material(
        task=task,
        frame=rows,
        findings=tuple(findings),
        parts=parts,
        schema=schema,
        target=target,
        preparations={name: Preparation.fit(conformed, schema, name) for name in get_args(ScalingName)},
        scale=TargetScale.fit(target.encode(train[task.target])) if regression else None,
    )


def write_arrays(material: Material, folder: Path) -> None:
    """Write the prepared rows of training and validation under `arrays/`."""
    home = folder / plans.ARRAYS
    home.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", material.parts.train), ("validation", material.parts.validation)):
        np.save(home / f"{part}.labels.npy", material.labels[rows])
        conformed = material.conformed.iloc[rows]
        for scaling, preparation in material.preparations.items():
            prepared = preparation.apply(conformed)
            np.save(home / f"{part}.{scaling}.npy", prepared.numeric)
            np.save(home / f"{part}.categories.npy", prepared.categories)
        if prepared.images is not None:
            np.save(home / f"{part}.images.npy", prepared.images)


def layout_of(preparation: Preparation) -> Layout:
    """The names of a preparation's outputs, in their order."""
    words = {text.name: (" characters", " words", *(f": {one}" for one in text.words)) for text in preparation.texts}
    numbers = [
        column.name if column.place is None else column.name + words[column.name][column.place]
        for column in preparation.numbers
    ]
    gaps = [f"{column.name} missing" for column in preparation.numbers if column.gap]
    waves = [
        f"{column.name} {cycle} {shift}"
        for shift in ("sine", "cosine")
        for column in preparation.moments
        for cycle in column.cycles
    ]
    moment_gaps = [f"{column.name} missing" for column in preparation.moments if column.gap]
    return Layout(
        numeric=(*numbers, *gaps, *waves, *moment_gaps),
        categorical=tuple((column.name, column.categories) for column in preparation.categories),
        image=None if preparation.image is None else preparation.image.input,
    )


def hash_frame(frame: pd.DataFrame) -> str:
    """SHA-256 of a frame's column names, types and values, whatever its index."""
    digest = hashlib.sha256("\0".join(f"{name}\0{dtype}" for name, dtype in frame.dtypes.items()).encode())
    for name in frame.columns:
        values = frame[name]
        if values.dtype == object:
            values = values.map(_told)
        digest.update(pd.util.hash_pandas_object(values, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _told(value: object) -> str:
    """A value as text; bytes, which may be images, by their digest, and not four characters a byte."""
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else repr(value)
