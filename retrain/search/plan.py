"""What the workers of a study share, as files in its folder.

    plan.json                     the `Plan`
    arrays/*.npy                  prepared rows of training and validation, mapped into memory
    prior.safetensors             weights a warm start hands down, and prior.json, how their columns are laid out
    journal.log                   Optuna's journal
    trials/NUMBER/                a finished trial: result.json, weights.safetensors, outputs.npy (on validation)

A trial's folder is written before the trial is told to the journal, under another name until it is complete.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import Field

from registry.choices import Preference
from registry.metrics import Array, Labels, Problem, metrics_for
from registry.schema import Frozen
from registry.task import Objective
from retrain.families.base import Candidate, Reads
from retrain.search.experience import Experience
from retrain.search.inputs import Layout
from retrain.search.limits import Limits
from retrain.search.space import SearchSpace, batch_sizes
from retrain.search.stopping.base import Allowance, first_rung

PLAN = "plan.json"
ENOUGH = "enough"
"""Where this file is, no trial is begun any more."""

ARRAYS = "arrays"
TRIALS = "trials"
RESULT, WEIGHTS, OUTPUTS = "result.json", "weights.safetensors", "outputs.npy"

Origin = Literal["portfolio", "prior", "fresh", "sampled", "finish"]
State = Literal["complete", "pruned"]


class Plan(Frozen):
    """One study: the task as workers need it, its space and its budget; `deadline` is a reading of `time.monotonic`,
    `seconds` is what all trials together may take, those of former sessions included; None: no end."""

    problem: Problem
    metric: str
    strategy: str
    families: tuple[str, ...]
    rows: int
    max_epochs: int
    trials: int
    workers: int
    deadline: float
    seed: int
    stopping: str = "asha"
    seconds: float | None = None
    layout: Layout
    d_out: int
    centre: float = 0.0
    spread: float = 1.0
    choices: dict[str, Preference] = Field(default_factory=dict)
    objectives: tuple[Objective, ...] = ("quality",)
    ensemble: int = 4
    limits: Limits = Limits()
    experience: Experience | None = None
    ready: datetime | None = None

    @property
    def space(self) -> SearchSpace:
        """The space the study searches."""
        space = SearchSpace.of(self.families, self.rows, self.max_epochs, self.problem, self.reads, self.choices)
        return space if self.experience is None else replace(space, experience=self.experience)

    @property
    def reads(self) -> Reads:
        """What the task's networks read."""
        return "table" if self.layout.image is None else "image"

    @property
    def allowance(self) -> Allowance:
        """What early stopping knows of the budget."""
        first = first_rung(self.rows // max(batch_sizes(self.rows)), self.max_epochs)
        return Allowance(
            first, self.max_epochs, trials=self.trials, seconds=math.inf if self.seconds is None else self.seconds
        )

    @property
    def greater_is_better(self) -> bool:
        """The direction of the metric."""
        return metrics_for(self.problem)[self.metric].greater_is_better

    def score(self, labels: Labels, outputs: npt.NDArray[np.float32]) -> float:
        """The task's metric of a network's outputs (n, d_out) for labels in the target's unit."""
        return metrics_for(self.problem)[self.metric].value(labels, self.answers(outputs))

    def answers(self, outputs: npt.NDArray[np.float32]) -> Array:
        """Outputs (n, d_out) as metrics take them: probabilities (n, k), or values (n,) in the target's unit."""
        wide = np.asarray(outputs, dtype=np.float64)
        if self.problem == "regression":
            return wide[:, 0] * self.spread + self.centre
        each = np.exp(wide - wide.max(axis=1, keepdims=True))
        return np.asarray(each / each.sum(axis=1, keepdims=True), dtype=np.float64)


class Result(Frozen):
    """A finished trial. `history` is the score after each epoch; `inherited`: it began from the weights of a prior or
    of its parent; `cpu` are CPU-seconds; `parameters` and `latency_ms` (one row, by torch on one thread) are what its
    network costs.
    `served_ms` is that in the serving runtime, measured only where torch is above the task's limit.
    `values` are what a study of several objectives is told; empty: the score alone."""

    number: int
    candidate: Candidate
    origin: Origin
    state: State
    score: float
    best_epoch: int
    history: tuple[float, ...]
    seed: int
    seconds: float
    ending: str
    inherited: bool = False
    cpu: float = 0.0
    parameters: int = 0
    latency_ms: float | None = None
    served_ms: float | None = None
    values: tuple[float, ...] = ()

    @property
    def row_ms(self) -> float | None:
        """Milliseconds for one row, in the serving runtime where that was measured."""
        return self.latency_ms if self.served_ms is None else self.served_ms


def write_json(path: Path, value: pydantic.BaseModel) -> None:
    """Write a model so that the file is never seen half-written."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(value.model_dump_json(), encoding="utf-8")
    partial.replace(path)


def read_plan(folder: Path) -> Plan:
    """The plan of a study's folder."""
    return Plan.model_validate_json((folder / PLAN).read_bytes())


def trial_folder(folder: Path, number: int) -> Path:
    """Where a finished trial is kept."""
    return folder / TRIALS / str(number)


def keep_trial(folder: Path, result: Result, weights: bytes, outputs: npt.NDArray[np.float32]) -> None:
    """Put a finished trial on disk, complete or not at all."""
    home = trial_folder(folder, result.number)
    partial = home.with_name(f"{result.number}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    (partial / WEIGHTS).write_bytes(weights)
    np.save(partial / OUTPUTS, outputs)
    write_json(partial / RESULT, result)
    shutil.rmtree(home, ignore_errors=True)
    partial.replace(home)


def read_result(folder: Path, number: int) -> Result | None:
    """A finished trial, or None when its folder is not there."""
    path = trial_folder(folder, number) / RESULT
    return Result.model_validate_json(path.read_bytes()) if path.is_file() else None


def read_results(folder: Path) -> list[Result]:
    """All finished trials by number."""
    numbers = sorted(int(path.name) for path in (folder / TRIALS).glob("*") if path.name.isdigit())
    found = (read_result(folder, number) for number in numbers)
    return [result for result in found if result is not None]


def trained_cpu(folder: Path) -> float:
    """CPU-seconds of all finished trials."""
    return sum(one.cpu for one in read_results(folder))


def read_outputs(folder: Path, number: int) -> npt.NDArray[np.float32]:
    """A finished trial's outputs (n, d_out) on the validation rows, at its best epoch."""
    outputs: npt.NDArray[np.float32] = np.load(trial_folder(folder, number) / OUTPUTS, allow_pickle=False)
    return outputs
