"""A champion's networks on their way: window by window they are trained on, each time for an epoch or some on the
labels that came in the last few windows. How many of either is their pace."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from registry.errors import DataError
from registry.metrics import Array, Metric, metrics_for
from registry.scoring import Scores
from registry.target import UNKNOWN_CLASS
from retrain.batches import Rows, rows_of
from retrain.calibration import Calibration
from retrain.export import Member, member_outputs
from retrain.families.base import Candidate, Reads
from retrain.members import read_members, read_scale
from retrain.preparation import Preparation
from retrain.renewal import Request
from retrain.search.material import Material
from retrain.search.space import SearchSpace
from retrain.splits import Parts
from retrain.splits import Rows as Places
from retrain.training import Loop, Recipe

BATCHES, LEAST_BATCH = 16, 16
"""Fewest batches of a step, if rows allow, and the smallest batch."""
MOST = 20_000
"""Rows of a step at most, each counted as often as it is learnt, the newest."""
NEWEST = 2_000
"""Answered rows that the calibration is learnt from at most."""


@dataclass(frozen=True)
class Pace:
    """How much a step learns: the labels that came in so many of the newest windows, each so many times."""

    windows: int
    epochs: int


PACES = (Pace(3, 1), Pace(5, 6))
"""The first is taken while nothing tells them apart."""
DEEPEST = max(pace.windows for pace in PACES)


@dataclass(frozen=True)
class Lesson:
    """One step: positions of the rows whose labels it may learn, how many windows ago each came, and positions of the
    rows that the model then answers, whose labels had not come; and how many windows after the step before it comes."""

    learn: Places
    ago: npt.NDArray[np.int64]
    answer: Places
    windows: int = 1


class Ground:
    """What all learners of a champion share: the rows, their labels, and the champion's networks. Raises `DataError`
    when the task has no times, or no network can be read."""

    def __init__(self, asked: Request) -> None:
        self.asked = asked
        if asked.task.time is None:
            raise DataError("without times nobody can tell which labels are new")
        manifest = asked.bundle.manifest
        self.members = tuple(read_members(asked.bundle))
        if not self.members:
            raise DataError("none of the champion's networks can be read")
        self.material = Material(
            task=asked.task,
            frame=asked.frame,
            findings=(),
            parts=Parts(*(np.empty(0, dtype=np.int64) for _ in range(4))),
            schema=manifest.data_schema,
            target=manifest.target,
            preparations={},
            scale=read_scale(asked.bundle),
        )
        if not manifest.target.classes and self.material.scale is None:
            raise DataError("the champion does not tell the scale of its target")

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """The rows (n,) with a label that the champion's target knows, whenever it came."""
        labels = self.material.labels
        return np.asarray(np.isfinite(labels) if self.material.scale is not None else labels != UNKNOWN_CLASS)

    @property
    def metric(self) -> Metric:
        """The task's."""
        return metrics_for(self.asked.task.problem)[self.asked.task.metric]

    @property
    def weights(self) -> Array:
        """The members' (m,)."""
        return np.array([member.weight for member in self.members])

    @cached_property
    def inherited(self) -> Calibration:
        """The champion's calibration."""
        manifest = self.asked.bundle.manifest
        return Calibration(
            temperature=manifest.temperature, radius=manifest.conformal_radius, scale=self.material.scale
        )

    def outputs(self, members: Sequence[Member], rows: Places) -> Array:
        """What networks answer to rows, (m, n, d_out)."""
        if not len(rows):
            return np.empty((len(members), 0, self.material.d_out))
        return member_outputs(members, self.conformed(rows))

    def scores(self, outputs: Array) -> Scores:
        """What is answered by outputs (m, n, d_out)."""
        return self.inherited.scores(outputs, self.weights, self.material.target)

    def calibrated(self, outputs: Array, rows: Places) -> Calibration:
        """The calibration by what was answered (m, n, d_out) before the labels of these rows came."""
        labels = self.material.labels[rows]
        known = np.flatnonzero(self.known[rows])[-NEWEST:]
        if not len(known):
            return self.inherited
        task, scale = self.asked.task, self.material.scale
        return Calibration.fit(outputs[:, known], self.weights, labels[known], coverage=task.coverage, scale=scale)

    def conformed(self, rows: Places) -> pd.DataFrame:
        """Rows as members read them."""
        return self.material.conformed.iloc[rows]


class Learner:
    """Networks that learn at a pace, the champion's at first."""

    def __init__(self, ground: Ground, pace: Pace, members: Sequence[Member] | None = None) -> None:
        self.ground, self.pace = ground, pace
        self.members = tuple(ground.members if members is None else members)

    def learn(self, step: Lesson) -> None:
        """As much of a step as the pace says, less rows of a class the champion does not know."""
        rows = step.learn[step.ago < self.pace.windows]
        rows = rows[self.ground.known[rows]][-MOST // self.pace.epochs :]
        if len(rows) < LEAST_BATCH:
            return
        found = dict[int, Rows]()
        self.members = tuple(self._trained(member, self._rows(member, rows, found)) for member in self.members)

    def outputs(self, rows: Places) -> Array:
        """(m, n, d_out) by the models of now."""
        return self.ground.outputs(self.members, rows)

    def _trained(self, member: Member, rows: Rows) -> Member:
        told, asked = member.candidate, self.ground.asked
        candidate = Candidate(family=told["family"], choices=told["choices"])
        problem, seed, epochs = asked.task.problem, asked.seed, self.pace.epochs
        reads: Reads = "table" if self.ground.material.schema.image is None else "image"
        own = SearchSpace.of((candidate.family,), len(rows), 1, problem, reads).recipe(candidate)
        network = copy.deepcopy(member.module)
        torch.manual_seed(seed)
        loop = Loop(network, rows, _recipe(own, len(rows), epochs), problem, seed, averaged=False)
        finite = all(loop.epoch()[1] for _ in range(epochs))
        kept = loop.kept
        finite = finite and all(bool(value.isfinite().all()) for value in kept.parameters())
        return replace(member, module=kept.eval()) if finite else member

    def _rows(self, member: Member, rows: Places, found: dict[int, Rows]) -> Rows:
        """The rows as a member reads them; `found` has those of the preparations that were met before."""
        material = self.ground.material
        place = self._preparations.index(member.preparation)
        if place not in found:
            labels = material.labels[rows]
            targets = labels if material.scale is None else material.scale.standardise(labels).astype(np.float32)
            prepared = member.preparation.apply(self.ground.conformed(rows))
            found[place] = rows_of(prepared, torch.from_numpy(targets))
        return found[place]

    @cached_property
    def _preparations(self) -> list[Preparation]:
        out: list[Preparation] = []
        for member in self.members:
            if member.preparation not in out:
                out.append(member.preparation)
        return out


def _recipe(own: Recipe, rows: int, epochs: int) -> Recipe:
    """A network's own recipe for so many epochs at its full rate."""
    batch = min(own.batch_size, max(LEAST_BATCH, rows // BATCHES))
    return replace(own, epochs=epochs, patience=epochs, batch_size=batch, schedule="constant")
