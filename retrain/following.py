"""The remedy `follow`: the champion's networks are trained on window by window, each time for an epoch or some on the
labels that came in the last few windows, and every model answers the window after it before its labels are there.

How much a step learns is a matter of the world: where it turns quickly, much learning of what is a week old harms, and
where it does not, little learning wastes it. So a proof takes the steps at several paces side by side, and each window
is answered at the pace that has been the best until then, by the labels that had come (follow the leader: Hannan 1957).
The model that is sealed keeps its pace for the steps to come.

What is proven is the procedure: its answers, each given by a model that had not seen the label (prequential, or
test-then-train: Dawid 1984; Gama, Sebastião & Rodrigues 2013), are compared with the champion's on the same rows. The
newest model, which has learnt all labels, is what is sealed. One row in `HELD` is never learnt from, so that each model
brings reference rows as new as its training.
"""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.metrics import Array, Metric, metrics_for
from registry.scoring import Scores
from registry.target import UNKNOWN_CLASS
from retrain.batches import Rows, rows_of
from retrain.calibration import Calibration
from retrain.export import Member, member_outputs
from retrain.families.base import Candidate, Reads
from retrain.members import read_members, read_scale
from retrain.renewal import Request
from retrain.search.material import Material, hash_frame
from retrain.search.progress import Progress
from retrain.search.sealing import Finish, one_thread, seal
from retrain.search.space import SearchSpace
from retrain.splits import Parts
from retrain.splits import Rows as Places
from retrain.training import Loop, Recipe

FOLLOWED, BEGUN, PACE = "followed", "begun", "pace"
"""Keys of a bundle's `heritage`: the version that a chain began with, the newest moment that this one knew, and the
chain's pace."""


@dataclass(frozen=True)
class Pace:
    """How much a step learns: the labels that came in so many of the newest windows, each so many times."""

    windows: int
    epochs: int


PACES = (Pace(3, 1), Pace(5, 6))
"""The first is taken while nothing tells them apart."""
DEEPEST = max(pace.windows for pace in PACES)
BATCHES, LEAST_BATCH = 16, 16
"""Fewest batches of a step, if rows allow, and the smallest batch."""
MOST = 20_000
"""Rows of a step at most, each counted as often as it is learnt, the newest."""

HELD = 10
LEAST_HELD = 5
"""Fewer reference rows are none."""
NEWEST = 2_000
"""Answered rows that the calibration is learnt from at most."""


@dataclass(frozen=True)
class Lesson:
    """One step: positions of the rows whose labels it may learn, how many windows ago each came, and positions of the
    rows that the model then answers, whose labels had not come."""

    learn: Places
    ago: npt.NDArray[np.int64]
    answer: Places


def held(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
    """Which rows (n,) are never learnt from: the same at every step, whatever other rows are there."""
    micros = times.astype("datetime64[us]").astype(np.int64).astype(np.uint64)
    mixed = (micros // np.uint64(1_000_000)) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, vol. 3, 6.4)
    return np.asarray((mixed >> np.uint64(32)) % np.uint64(HELD) == 0)


def lessons(
    windows: npt.NDArray[np.int64], arrived: npt.NDArray[np.datetime64], ends: Sequence[np.datetime64]
) -> list[Lesson]:
    """The steps that would have been taken at the ends of windows. `windows` (n,) is the number of each row's window,
    `arrived` (n,) when its label came. Whoever learns at the end of window k answers window k + 1; at the last end the
    newest model is made, which answers nothing yet.

    >>> hours = np.arange(6)
    >>> day = np.datetime64("2024-01-01T00")
    >>> found = lessons(hours // 2, day + hours + 2, [day + 2, day + 4, day + 6])
    >>> [(one.learn.tolist(), one.answer.tolist()) for one in found]
    [([0], [2, 3]), ([0, 1, 2], [4, 5]), ([0, 1, 2, 3, 4], [])]
    """
    out = []
    came = np.searchsorted(np.array(ends), arrived)
    for place, moment in enumerate(ends):
        known = arrived <= moment
        learn = np.flatnonzero(known & (came > place - DEEPEST))
        out.append(Lesson(learn, place - came[learn], np.flatnonzero((windows == place + 1) & ~known)))
    return out


def follow(
    asked: Request, steps: Sequence[Lesson], *, pace: Pace | None = None, calibration: Calibration | None = None
) -> Followed:
    """Take all steps from the champion on, at a pace or, without one, at that which leads. `asked.frame` holds labelled
    rows in time order, none of which the champion has seen; `steps` are positions in it. Without a `calibration` it is
    learnt from what the models answered.

    Raises `DataError` when the task has no times, the rows are too few, or no network of the champion can be read.
    """
    with one_thread():
        chains = [Chain(asked, one) for one in (PACES if pace is None else (pace,))]
        known, answered = np.zeros(len(asked.frame), dtype=bool), list[Places]()
        leader, answers, raced = 0, list[Array](), [list[Array]() for _ in chains]
        for step in steps:
            known[step.learn] = True
            leader = _leader(chains, raced, answered, known)
            for chain, outputs in zip(chains, raced, strict=True):
                chain.learn(step)
                outputs.append(chain.outputs(step.answer))
            answered.append(step.answer)
            answers.append(raced[leader][-1])
        chain, said, rows = chains[leader], np.concatenate(answers, axis=1), np.concatenate(answered)
        scores = (calibration or chain.inherited()).scores(said, chain.weights, chain.material.target)
        return Followed(chain, np.flatnonzero(known), rows, scores, calibration or chain.calibrated(said, rows))


def _leader(
    chains: Sequence[Chain], raced: Sequence[Sequence[Array]], answered: Sequence[Places], known: npt.NDArray[np.bool_]
) -> int:
    """The chain with the best answers so far, by the task's metric on the rows whose labels have come; the first one
    while that says nothing."""
    if len(chains) == 1 or not answered:
        return 0
    rows = np.concatenate(answered)
    told = np.flatnonzero(known[rows])
    outputs = [np.concatenate(said, axis=1)[:, told] for said in raced]
    values = [chain.value(said, rows[told]) for chain, said in zip(chains, outputs, strict=True)]
    gains = [chains[0].metric.gain(value, values[0]) for value in values]
    return int(np.argmax(gains)) if np.isfinite(gains).all() else 0


@dataclass(frozen=True)
class Followed:
    """A chain after its steps: positions of the rows it has learnt, and of those that its models answered, with what
    they answered; and the calibration of the newest model."""

    chain: Chain
    learnt: Places
    answered: Places
    answers: Scores
    calibration: Calibration

    def seal(self, *, pictures: bool = True) -> ModelBundle:
        """The newest model as a bundle, in `Request.out`."""
        with one_thread():
            return self.chain.seal(self.calibration, self.learnt, pictures=pictures)


class Chain:
    """A champion's networks on their way."""

    def __init__(self, asked: Request, pace: Pace) -> None:
        self.asked, self.pace, self.began = asked, pace, time.monotonic()
        if (name := asked.task.time) is None:
            raise DataError("without times nobody can tell which labels are new")
        manifest = asked.bundle.manifest
        self.members = list(read_members(asked.bundle))
        if not self.members:
            raise DataError("none of the champion's networks can be read")
        self.held = held(asked.frame[name].to_numpy())
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
        if (kept := int(self._known(self.held).sum())) < LEAST_HELD:
            raise DataError(f"only {kept} rows for reference among {len(self.held)} new ones, {LEAST_HELD} are needed")

    @property
    def weights(self) -> Array:
        """The members' (m,)."""
        return np.array([member.weight for member in self.members])

    @property
    def metric(self) -> Metric:
        """The task's."""
        return metrics_for(self.asked.task.problem)[self.asked.task.metric]

    def value(self, outputs: Array, rows: Places) -> float:
        """The task's metric of outputs (m, n, d_out) for rows (n,), those of an unknown class left out."""
        counted = self._known(np.ones(len(self.held), dtype=bool))[rows]
        if not counted.any():
            return float("nan")
        said = self.inherited().scores(outputs[:, counted], self.weights, self.material.target)
        return self.metric.value(self.material.labels[rows[counted]], said.scores)

    def learn(self, step: Lesson) -> None:
        """As much of a step as the pace says, less rows held out and those of a class the champion does not know."""
        rows = step.learn[step.ago < self.pace.windows]
        rows = rows[self._known(~self.held)[rows]][-MOST // self.pace.epochs :]
        if len(rows) < LEAST_BATCH:
            return
        reads: Reads = "table" if self.material.schema.image is None else "image"
        self.members = [self._trained(member, rows, reads) for member in self.members]

    def outputs(self, rows: Places) -> Array:
        """(m, n, d_out) by the models of now."""
        if not len(rows):
            return np.empty((len(self.members), 0, self.material.d_out))
        return member_outputs(self.members, self.material.conformed.iloc[rows])

    def inherited(self) -> Calibration:
        """The champion's calibration."""
        manifest = self.asked.bundle.manifest
        return Calibration(
            temperature=manifest.temperature, radius=manifest.conformal_radius, scale=self.material.scale
        )

    def calibrated(self, outputs: Array, rows: Places) -> Calibration:
        """The calibration by what was answered (m, n, d_out) before the labels of these rows came."""
        labels = self.material.labels[rows]
        known = np.flatnonzero(self._known(np.ones(len(self.held), dtype=bool))[rows])[-NEWEST:]
        if not len(known):
            return self.inherited()
        task, scale = self.asked.task, self.material.scale
        return Calibration.fit(outputs[:, known], self.weights, labels[known], coverage=task.coverage, scale=scale)

    def seal(self, calibration: Calibration, learnt: Places, *, pictures: bool) -> ModelBundle:
        """The models of now as a bundle; the rows that were held out are its test part."""
        asked, nothing = self.asked, np.empty(0, dtype=np.int64)
        begun = asked.bundle.manifest.lineage.known_until
        train = learnt[~self.held[learnt]]
        test = np.flatnonzero(self._known(self.held))
        material = replace(self.material, parts=Parts(train, nothing, nothing, test))
        finish = Finish(
            data_hash=hash_frame(asked.frame),
            seed=asked.seed,
            parent_version=asked.version,
            until=material.newest(train) if len(train) else begun,
            seconds=lambda: time.monotonic() - self.began,
            tell=self._tell,
            heritage={
                FOLLOWED: asked.version,
                BEGUN: None if begun is None else begun.isoformat(),
                PACE: [self.pace.windows, self.pace.epochs],
            },
            study=asked.bundle.candidates.get("study", []),
            parent=asked.bundle.manifest,
            pictures=pictures,
        )
        shutil.rmtree(asked.out, ignore_errors=True)
        return seal(material, self.members, calibration, asked.out, finish)

    def _known(self, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Those of these rows whose label the champion's target knows."""
        labels = self.material.labels
        return among & (np.isfinite(labels) if self.material.scale is not None else labels != UNKNOWN_CLASS)

    def _trained(self, member: Member, rows: Places, reads: Reads) -> Member:
        told = member.candidate
        candidate = Candidate(family=told["family"], choices=told["choices"])
        problem, seed = self.asked.task.problem, self.asked.seed
        own, epochs = (
            SearchSpace.of((candidate.family,), len(rows), 1, problem, reads).recipe(candidate),
            self.pace.epochs,
        )
        network = copy.deepcopy(member.module)
        torch.manual_seed(seed)
        loop = Loop(network, self._rows(member, rows), _recipe(own, len(rows), epochs), problem, seed)
        finite = all(loop.epoch()[1] for _ in range(epochs))
        finite = finite and all(bool(value.isfinite().all()) for value in network.parameters())
        return replace(member, module=network.eval()) if finite else member

    def _rows(self, member: Member, rows: Places) -> Rows:
        labels, scale = self.material.labels[rows], self.material.scale
        targets = labels if scale is None else scale.standardise(labels).astype(np.float32)
        return rows_of(member.preparation.apply(self.material.conformed.iloc[rows]), torch.from_numpy(targets))

    def _tell(self, stage: str, message: str) -> None:
        self.asked.progress(Progress(stage, 0, None, None, self.asked.task.metric, 0.0, message))


def pace_of(bundle: ModelBundle) -> Pace:
    """The pace of the chain that a bundle comes from."""
    return Pace(*bundle.candidates.get("heritage", {}).get(PACE, (PACES[0].windows, PACES[0].epochs)))


def _recipe(own: Recipe, rows: int, epochs: int) -> Recipe:
    """A network's own recipe for so many epochs at its full rate."""
    batch = min(own.batch_size, max(LEAST_BATCH, rows // BATCHES))
    return replace(own, epochs=epochs, patience=epochs, batch_size=batch, schedule="constant")
