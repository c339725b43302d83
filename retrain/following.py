"""The remedy `follow`: the champion's networks are trained on window by window (`learners.py`), and every model answers
the window after it before its labels are there. Several paces are raced: each window is answered by the one that has
been the best until then, by the labels that had come (`race.py`), and the race goes on for as long as the champion
follows, so that what serves is what was proven.

What is proven is the procedure: its answers, each given by a model that had not seen the label (prequential, or
test-then-train: Dawid 1984; Gama, Sebastião & Rodrigues 2013), are compared with the champion's on the same rows. The
newest model of the pace that leads, which has learnt all labels, is what is sealed; its reference rows, by which its
windows are judged, bear the answers that they were given before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.metrics import Array
from registry.plurals import counted
from registry.scoring import Scores
from retrain.calibration import Calibration
from retrain.learners import DEEPEST, PACES, Ground, Lesson, Pace
from retrain.members import read_members
from retrain.race import RACE, Race, Standing, recorded
from retrain.renewal import Request
from retrain.search.material import hash_frame
from retrain.search.progress import Progress
from retrain.search.sealing import Finish, one_thread, seal
from retrain.splits import Parts
from retrain.splits import Rows as Places

FOLLOWED, BEGUN = "followed", "begun"
"""Keys of a bundle's `heritage`: the version that a chain began with, and the newest moment that this one knew."""
LEAST = 5
"""Fewer answered rows with labels are no reference."""
_LEARNT = "trail.learnt"


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


def catch_up(
    arrived: npt.NDArray[np.datetime64], ends: Sequence[np.datetime64], waited: int, answered: Places
) -> list[Lesson]:
    """One step for the labels of all `waited` windows up to the last end: who learns of the newest three does so of the
    two before them too. Before it, who takes it has answered the rows `answered`.

    >>> day = np.datetime64("2024-01-01")
    >>> first, then = catch_up(day + np.arange(1, 9), day + np.arange(9), 3, np.arange(5, 8))
    >>> then.learn.tolist(), then.ago.tolist(), first.answer.tolist()
    ([1, 2, 3, 4, 5, 6, 7], [4, 3, 2, 1, 0, 0, 0], [5, 6, 7])
    """
    late, none = max(0, waited - 1), np.empty(0, dtype=np.int64)
    ago = len(ends) - 1 - np.searchsorted(np.array(ends), arrived)
    learn = np.flatnonzero((arrived <= ends[-1]) & (ago < DEEPEST + late))
    return [Lesson(none, none, answered), Lesson(learn, np.maximum(0, ago[learn] - late), none, windows=max(1, waited))]


def follow(
    asked: Request,
    steps: Sequence[Lesson],
    *,
    paces: Sequence[Pace] = PACES,
    standing: Standing | None = None,
    before: Trail | None = None,
    keys: npt.NDArray[np.int64] | None = None,
    calibration: Calibration | None = None,
) -> Followed:
    """Take all steps from the champion on, at these paces side by side, or from where its race stands, or from `before`
    on, where former steps have led. `asked.frame` holds rows in time order, none of which the champion has seen, `keys`
    (n,) what the record of the race knows them by (their places, where it is not to go on); `steps` are positions in
    it. Without a `calibration` it is learnt from what the models answered.

    Raises `DataError` when the task has no times, or no network of the champion can be read.
    """
    with one_thread():
        began, ground = time.monotonic(), Ground(asked)
        keys = np.arange(len(asked.frame)) if keys is None else keys
        standing = before.standing if before is not None else standing
        race = Race(ground, paces, keys) if standing is None else Race.going_on(ground, standing, keys)
        learnt = np.zeros(len(keys), dtype=bool) if before is None else np.isin(keys, before.learnt)
        for step in steps:
            learnt[step.learn] = True
            race.hear(step.learn)
            race.learn(step)
            race.answer(step.answer)
        rows, said = race.record.among(keys)
        answers = (calibration or ground.inherited).scores(said, ground.weights, ground.material.target)
        calibration = calibration or ground.calibrated(said, rows)
        return Followed(race, np.flatnonzero(learnt), rows, said, answers, calibration, began)


@dataclass(frozen=True)
class Followed:
    """A race after its steps: positions of the rows it has learnt, and of those that its models answered, with their
    outputs (m, n, d_out), and what they answered; and the calibration of the newest model."""

    race: Race
    learnt: Places
    answered: Places
    outputs: Array
    answers: Scores
    calibration: Calibration
    began: float

    def seal(self, *, pictures: bool = True) -> ModelBundle:
        """The newest model of the pace that leads as a bundle, in `Request.out`, with the race beside it; the answered
        rows are its test part, with what was answered to them. Raises `DataError` where they are too few."""
        ground, nothing, train = self.race.ground, np.empty(0, dtype=np.int64), self.learnt
        asked, begun = ground.asked, ground.asked.bundle.manifest.lineage.known_until
        told = ground.known[self.answered]
        if told.sum() < LEAST:
            rows = counted(int(told.sum()), "row")
            raise DataError(f"only {rows} with labels had been answered before, {LEAST} are needed for reference")
        material = replace(ground.material, parts=Parts(train, nothing, nothing, self.answered[told]))
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
                **self.race.heritage(),
            },
            study=asked.bundle.candidates.get("study", []),
            parent=asked.bundle.manifest,
            pictures=pictures,
            beside=self.race.save,
            said=self.calibration.scores(self.outputs[:, told], ground.weights, ground.material.target),
        )
        shutil.rmtree(asked.out, ignore_errors=True)
        with one_thread():
            return seal(material, self.race.first.members, self.calibration, asked.out, finish)

    def keep(self, path: Path, bundle: ModelBundle, moment: datetime) -> None:
        """Write down where it has led from a bundle until a moment, for `Trail.load`."""
        race = self.race
        tensors = race.tensors(range(len(race.learners))) | {_LEARNT: torch.from_numpy(race.keys[self.learnt])}
        paces = [[one.pace.windows, one.pace.epochs] for one in race.learners]
        told = {"of": _of(bundle), "moment": moment.isoformat(), "leader": race.leader, "paces": paces}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        safetensors.torch.save_file(tensors, partial, metadata={"trail": json.dumps(told)})
        partial.replace(path)

    def _tell(self, stage: str, message: str) -> None:
        asked = self.race.ground.asked
        asked.progress(Progress(stage, 0, None, None, asked.task.metric, 0.0, message))


@dataclass(frozen=True)
class Trail:
    """Where a race from a bundle's networks has led by a moment, and the keys of the rows that it has learnt."""

    moment: datetime
    standing: Standing
    learnt: npt.NDArray[np.int64]

    @classmethod
    def load(cls, path: Path, bundle: ModelBundle) -> Trail | None:
        """What was kept of this bundle, if it was and can be read, at the paces of now."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                told, whole = json.loads(file.metadata()["trail"]), recorded(file.keys())
        except (OSError, safetensors.SafetensorError):
            return None
        paces = tuple(Pace(*one) for one in told["paces"])
        if (
            not whole
            or told["of"] != _of(bundle)
            or paces != (Standing.of(bundle).paces if RACE in bundle.manifest.files else PACES)
        ):
            return None
        tensors = safetensors.torch.load_file(path)
        standing = Standing.read(tensors, tuple(read_members(bundle)), paces, told["leader"])
        return cls(datetime.fromisoformat(told["moment"]), standing, tensors[_LEARNT].numpy())


def _of(bundle: ModelBundle) -> str:
    """What tells a bundle from all others."""
    return hashlib.sha256(json.dumps(bundle.manifest.files, sort_keys=True).encode()).hexdigest()
