"""What the cheap remedies share: a champion as it is, and the labelled rows that are newer than what it learnt from.

Nothing is learnt anew but weights, levels and calibration: schema, preparation, classes and the target's scale are the
champion's. Of the newer rows a test part is the newest; validation and calibration are runs before it, with rows to
learn from between them, as in a re-search (`Splits.spread`): the gate judges on rows newer than all of these.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from registry.bundle import ModelBundle
from registry.conforming import as_datetimes
from registry.errors import DataError
from registry.metrics import Array, Labels, Metric, metrics_for
from registry.plurals import counted
from registry.target import UNKNOWN_CLASS
from registry.task import Splits, TaskSpec
from retrain import levels
from retrain.calibration import Calibration, TargetScale
from retrain.checks import usable
from retrain.export import Member, member_outputs
from retrain.members import level, read_members, read_scale, trained_until
from retrain.search.material import Material, hash_frame
from retrain.search.progress import Progress, silent
from retrain.search.sealing import Finish, one_thread, seal
from retrain.splits import Parts, Rows, split
from retrain.target_checks import undecided

NEWER = Splits(validation=0.15, calibration=0.15, test=0.1, spread=2.0)
"""Shares of the newer rows."""
LEAST = 150
"""Fewer newer rows are too few to learn from and to judge by."""


@dataclass(frozen=True)
class Request:
    """What a cheap remedy is asked for: `bundle` is the champion, `version` its number, `frame` the labelled rows known
    now less those of the gate. The bundle goes to `out`; whatever is tried ends before `seconds` have passed."""

    task: TaskSpec
    bundle: ModelBundle
    version: str
    frame: pd.DataFrame
    out: Path
    seconds: float = 60.0
    seed: int = 0
    progress: Callable[[Progress], None] = silent


class Renewal:
    """A champion's networks beside the rows they have not seen.

    Raises `DataError` when nobody can tell which rows those are, when they are too few, when their labels are of
    classes the champion does not know or say nothing by the task's metric, or when none of its networks can be read.
    """

    def __init__(self, asked: Request) -> None:
        self.asked, self.began = asked, time.monotonic()
        manifest = asked.bundle.manifest
        rows = usable(asked.frame, asked.task)
        newer = _newer(asked, rows)
        labels = manifest.target.encode(rows[asked.task.target])
        if manifest.target.classes and (labels[newer] == UNKNOWN_CLASS).any():
            raise DataError("the newer rows have labels of classes that the champion does not know")
        known = np.isin(np.arange(len(rows)), newer) | (labels != UNKNOWN_CLASS)
        parts = split(rows.iloc[newer].reset_index(drop=True), asked.task.model_copy(update={"splits": NEWER}))
        self.new = Parts(*(newer[part] for part in vars(parts).values()))
        for name, part in (("validation", self.new.validation), ("test", self.new.test)):
            if (why := undecided(rows[asked.task.target].iloc[part], asked.task)) is not None:
                raise DataError(f"of the newer rows the {len(part):,} of the {name} part tell nothing: {why}")
        self.scale = read_scale(asked.bundle)
        if not manifest.target.classes and self.scale is None:
            raise DataError("the champion does not tell the scale of its target")
        self.old: Rows = np.setdiff1d(np.flatnonzero(known), newer)
        self.members = list(read_members(asked.bundle))
        if not self.members:
            raise DataError("none of the champion's networks can be read")
        train = np.concatenate([self.old, self.new.train])
        self.material = Material(
            task=asked.task,
            frame=rows,
            findings=(),
            parts=replace(self.new, train=train),
            schema=manifest.data_schema,
            target=manifest.target,
            preparations={},
            scale=self.scale,
        )

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return metrics_for(self.asked.task.problem)[self.asked.task.metric]

    @property
    def deadline(self) -> float:
        """A reading of `time.monotonic`."""
        return self.began + self.asked.seconds

    def rows(self, part: Rows) -> tuple[pd.DataFrame, Labels]:
        """Conformed rows at these positions, and their labels."""
        return self.material.conformed.iloc[part], self.material.labels[part]

    def levelled(self, member: Member) -> Member:
        """A network brought, in place, to the level of the newer training rows. One of a regression stays as it is."""
        if self.scale is None:
            part = self.new.train
            level(member, *self.rows(part[:: -(-len(part) // levels.ROWS)]))
        return member

    def answers(self, outputs: Array, scale: TargetScale | None = None) -> Array:
        """Outputs (..., n, d_out) as metrics take them: probabilities (..., n, k), or values in the target's unit."""
        if (used := scale or self.scale) is not None:
            return np.asarray(outputs[..., 0] * used.spread + used.centre)
        each = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return np.asarray(each / each.sum(axis=-1, keepdims=True))

    def value(self, answers: Array, labels: Labels) -> float:
        """The metric, larger is better; minus infinity where it is undefined."""
        found = self.metric.gain(self.metric.value(labels, answers), 0.0)
        return found if np.isfinite(found) else -np.inf

    def seal(self, members: Sequence[Member], told: Mapping[str, Any], until: Rows | None = None) -> ModelBundle:
        """Calibrate these members on the calibration part and seal them; `told` says what was done, and `until` are
        rows that weights were fitted to."""
        asked, part = self.asked, self.new.calibration
        shutil.rmtree(asked.out, ignore_errors=True)
        weights = np.array([member.weight for member in members])
        conformed, labels = self.rows(part)
        with one_thread():
            calibration = Calibration.fit(
                member_outputs(members, conformed),
                weights,
                labels,
                coverage=asked.task.coverage,
                scale=self.material.scale,
            )
            fitted = trained_until(asked.bundle) if until is None else self.material.newest(until)
            finish = Finish(
                data_hash=hash_frame(asked.frame),
                seed=asked.seed,
                parent_version=asked.version,
                until=fitted,
                seconds=lambda: time.monotonic() - self.began,
                tell=self.tell,
                heritage=told,
                study=asked.bundle.candidates.get("study", []),
                parent=asked.bundle.manifest,
            )
            return seal(self.material, members, calibration, asked.out, finish)

    def tell(self, stage: str, message: str) -> None:
        """Report a stage."""
        left = max(0.0, self.deadline - time.monotonic())
        self.asked.progress(Progress(stage, 0, None, None, self.metric.name, left, message))


def _newer(asked: Request, rows: pd.DataFrame) -> Rows:
    until = trained_until(asked.bundle)
    if asked.task.time is None or until is None:
        raise DataError("without times nobody can tell which rows the champion has learnt from")
    times = as_datetimes(rows[asked.task.time], asked.task.time)
    newer = np.flatnonzero((times > until).to_numpy())
    if len(newer) < LEAST:
        raise DataError(f"only {counted(len(newer), 'labelled row')} newer than the champion's, {LEAST} are needed")
    return newer.astype(np.int64)
