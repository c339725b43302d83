"""Training of one network: a loop on Lightning Fabric over tensors in memory, cheap enough for hundreds of trials.

Deterministic by seed on one thread. It stops early on the validation score, keeps the best epoch's weights, and ends in
good order at a deadline. It knows nothing of studies: a `report` callback may stop it, and a training that was stopped
may go on later, in another process, as if it never had been.

What is judged and kept is a running average of the weights (Polyak & Juditsky 1992), which is steadier than the last
step's, the more so on rows from another time than the training's. Of a network that is served as int8 it is that
average on the grid, after each epoch: what is chosen, told and stopped early by is what would serve.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from registry.metrics import Problem
from retrain.augmentation import Augmentation
from retrain.batches import Rows as Rows
from retrain.batches import batches as batches
from retrain.batches import count_batches
from retrain.fabric import make_fabric
from retrain.families.grid import snapped
from retrain.losses import make_loss
from retrain.pausing import Facts, Paused, State, named, optimizer_state, restore_optimizer

Outputs: TypeAlias = npt.NDArray[np.float32]
Ending: TypeAlias = Literal["finished", "patience", "deadline", "stopped", "diverged"]

AVERAGE = 0.998
"""Decay of the running average of weights, a step."""

WARMUP = 0.05
FLAT = 0.6

PACED = 16
"""Steps after which the pace is looked at again."""


class DivergedError(ArithmeticError):
    """The loss or the outputs became infinite or NaN before any epoch was finished."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; see `SearchSpace` for the ranges."""

    epochs: int
    batch_size: int
    optimizer: str = "adamw"
    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    balanced: bool = False
    patience: int = 6
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Trained:
    """The best epoch of a training: its weights, its validation outputs (n, d_out) and its score; the score of every
    epoch; and what ended it. `paused` is what a stopped one needs to go on, if that was asked for."""

    state: State
    outputs: Outputs
    score: float
    best_epoch: int
    history: tuple[float, ...]
    ending: Ending
    paused: Paused | None = None


def train(
    network: nn.Module,
    training: Rows,
    validation: Rows,
    recipe: Recipe,
    *,
    problem: Problem,
    score: Callable[[Outputs], float],
    greater_is_better: bool,
    seed: int,
    deadline: float = math.inf,
    report: Callable[[int, float], bool] = lambda epoch, score: False,
    pausing: bool = False,
    paused: Paused | None = None,
) -> Trained:
    """Train, and give back the best epoch. Seeds the process's generator.

    `report(epoch, best score so far)` is called after every epoch, counted from 1; true stops the training. `deadline`
    is a reading of `time.monotonic`; a training that meets it before its first epoch ends is judged on what it has
    learnt by then. With `pausing`, what a stopped training needs to go on is given back too; `paused`, a former one's
    of the same network, rows, recipe and seed, is gone on with: what comes is what would have come without the pause.

    Raises `DivergedError` when there is no epoch with finite loss and score.
    """
    torch.manual_seed(seed)
    loop = Loop(network, training, recipe, problem, seed)
    best = _Best(greater_is_better)
    ending: Ending = "finished"
    if paused is not None:
        loop.restore(paused)
        best.restore(paused, loop.kept)
    for epoch in range(best.epochs + 1, recipe.epochs + 1):
        complete, finite = loop.epoch(deadline)
        if not finite:
            ending = "diverged"
            break
        if not complete and epoch > 1:
            ending = "deadline"
            break
        kept = loop.kept
        outputs = evaluate(kept, validation)
        if not best.offer(epoch, score(outputs), outputs, kept):
            ending = "diverged"
            break
        stopped, ending = report(epoch, best.score), best.ending(epoch, recipe, deadline)
        if stopped and ending != "patience":  # which has ended it anyway
            ending = "stopped"
        if ending != "finished":
            break
    pause = loop.paused(best) if pausing and ending == "stopped" else None
    return replace(best.trained(ending), paused=pause)


class Loop:
    """One network, its optimizer and its shuffled batches; every `epoch` is one pass over the training rows. Unless
    `averaged`, there is no running average of the weights."""

    def __init__(
        self,
        network: nn.Module,
        training: Rows,
        recipe: Recipe,
        problem: Problem,
        seed: int,
        *,
        averaged: bool = True,
    ) -> None:
        self.fabric = make_fabric()
        self.optimizer = make_optimizer(network, recipe)
        self.plain = network
        self.network, self.stepper = self.fabric.setup(network, self.optimizer)
        self.loss = make_loss(
            problem, training.labels, label_smoothing=recipe.label_smoothing, balanced=recipe.balanced
        )
        self.averaged = averaged
        self.average = copy.deepcopy(network).eval() if averaged else network
        self._pairs = _tensors(self.average), _tensors(network)
        self.training, self.recipe = training, recipe
        self.generator = torch.Generator().manual_seed(seed)
        self.planned = self.steps = count_batches(len(training), recipe.batch_size) * recipe.epochs
        self.step = 0
        self.begin = time.monotonic()

    @property
    def kept(self) -> nn.Module:
        """The network as it is judged, kept and served: the average, on the grid where that is int8."""
        return snapped(self.average)

    def paused(self, best: _Best) -> Paused:
        """All that going on after the last epoch takes."""
        facts = Facts(
            step=self.step,
            steps=self.steps,
            seconds=time.monotonic() - self.begin,
            best_epoch=best.epoch,
            best_score=best.score,
            history=tuple(best.history),
        )
        tensors = {
            **named("network", self.plain.state_dict()),
            **named("average", self.average.state_dict()),
            **named("optimizer", optimizer_state(self.optimizer)),
            **({} if best.epoch == best.epochs else named("best", best.state)),  # else what the average gives
            **named("random", {"process": torch.get_rng_state(), "batches": self.generator.get_state()}),
            **named("validation", {"outputs": torch.from_numpy(best.outputs)}),
        }
        return Paused(facts, tensors)

    def restore(self, paused: Paused) -> None:
        """Stand where a paused training stood; the process's generator, too."""
        load_state(self.average, paused.part("average"))
        self.plain.load_state_dict(paused.part("network"))
        restore_optimizer(self.optimizer, paused.part("optimizer"))
        random = paused.part("random")
        torch.set_rng_state(random["process"])
        self.generator.set_state(random["batches"])
        self.step, self.steps = paused.facts.step, paused.facts.steps
        self.begin = time.monotonic() - paused.facts.seconds

    def _fit_into(self, deadline: float) -> None:
        """Let the learning rate fall as if only the steps were to come that the pace so far leaves time for, if those
        are fewer than planned: a training that a deadline cuts short should have settled by then."""
        now = time.monotonic()
        left = (deadline - now) / (now - self.begin) * self.step
        self.steps = max(1, math.floor(min(self.planned, self.step + left)))

    def epoch(self, deadline: float = math.inf) -> tuple[bool, bool]:
        """(whether the epoch was completed before the deadline, whether its loss stayed finite)."""
        self.network.train()
        total = torch.zeros(())
        for index in batches(len(self.training), self.recipe.batch_size, self.generator):
            total += self._batch(self.training.take(index))
            if self.step % PACED == 0:
                self._fit_into(deadline)
            if time.monotonic() >= deadline:
                return False, bool(total.isfinite())
        return True, bool(total.isfinite())

    def _batch(self, rows: Rows) -> Tensor:
        rate = self.recipe.rate * rate_factor(self.recipe.schedule, self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.step += 1
        loss = self._loss(rows)
        self.fabric.backward(loss)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.averaged:
            self._follow()
        return loss.detach()

    def _loss(self, rows: Rows) -> Tensor:
        """The loss on a batch, after the recipe's augmentation of it."""
        batch = self.recipe.augmentation.apply(rows, self.generator)
        outputs = self.network(*batch.rows.inputs)
        loss = self.loss(outputs, batch.rows.labels)
        return (
            loss if batch.others is None else batch.share * loss + (1 - batch.share) * self.loss(outputs, batch.others)
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the network; over few steps at first, so that the beginning is forgotten."""
        decay = min(AVERAGE, self.step / (self.step + 10))
        torch._foreach_lerp_(self._pairs[0], self._pairs[1], 1 - decay)


def _tensors(network: nn.Module) -> list[Tensor]:
    """Weights and running statistics; counters are left out."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]


def rate_factor(schedule: str, progress: float) -> float:
    """The learning rate's factor at a share of all steps: a linear warm-up, then constant, a half cosine, or flat and
    then a half cosine.

    >>> rate_factor("constant", 0.5), round(rate_factor("cosine", 0.525), 3), rate_factor("flat-cosine", 0.5)
    (1.0, 0.5, 1.0)
    """
    if progress < WARMUP:
        return max(progress / WARMUP, 0.05)
    if schedule == "constant" or progress >= 1:
        return 1.0 if schedule == "constant" else 0.0
    begin = FLAT if schedule == "flat-cosine" else WARMUP
    return 0.5 * (1 + math.cos(math.pi * max(0.0, progress - begin) / (1 - begin)))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum. Weight decay spares biases, normalisation and embeddings (all but the
    matrices of linear layers and convolutions)."""
    decayed = {id(layer.weight) for layer in network.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    groups = [
        {"params": [p for p in network.parameters() if id(p) in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for p in network.parameters() if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)


@torch.inference_mode()
def evaluate(network: nn.Module, rows: Rows) -> Outputs:
    """The network's outputs (n, d_out), in evaluation mode."""
    network.eval()
    size = rows.at_once
    parts = [network(*(one[start : start + size] for one in rows.inputs)) for start in range(0, len(rows), size)]
    return torch.cat(parts).numpy()


class _Best:
    """The best epoch so far."""

    def __init__(self, greater_is_better: bool) -> None:
        self.sign = 1.0 if greater_is_better else -1.0
        self.score = math.nan
        self.epoch = 0
        self.history: list[float] = []
        self.state: State = {}
        self.outputs: Outputs = np.empty((0, 0), dtype=np.float32)

    @property
    def epochs(self) -> int:
        """How many were offered."""
        return len(self.history)

    def restore(self, paused: Paused, kept: nn.Module) -> None:
        """The best of a paused training; `kept` is what its last epoch gave."""
        facts = paused.facts
        self.score, self.epoch, self.history = facts.best_score, facts.best_epoch, list(facts.history)
        self.state = paused.part("best") or copied(kept)
        self.outputs = paused.part("validation")["outputs"].numpy()

    def offer(self, epoch: int, score: float, outputs: Outputs, network: nn.Module) -> bool:
        """Keep an epoch when it is better than all before; false when it is not finite."""
        if not (math.isfinite(score) and np.isfinite(outputs).all()):
            return False
        self.history.append(score)
        if not self.state or self.sign * (score - self.score) > 0:
            self.score, self.epoch, self.outputs = score, epoch, outputs
            self.state = copied(network)
        return True

    def ending(self, epoch: int, recipe: Recipe, deadline: float) -> Ending:
        if time.monotonic() >= deadline:
            return "deadline"
        return "patience" if epoch - self.epoch >= recipe.patience else "finished"

    def trained(self, ending: Ending) -> Trained:
        if not self.state:
            raise DivergedError("no epoch with finite loss and score")
        return Trained(self.state, self.outputs, self.score, self.epoch, tuple(self.history), ending)


def copied(network: nn.Module) -> State:
    """A network's weights and buffers as they are now."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def load_state(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights, in evaluation mode."""
    network.load_state_dict(dict(state))
    return network.eval()
