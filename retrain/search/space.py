"""The search space: which candidates there are, free of how they are chosen.

A space is made for a task: its families, its number of training rows (from which batch sizes follow) and its longest
training. Optuna sees the dimensions under labels: those of training by their name, those of a family as `mlp.depth`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import optuna

from registry.task import Problem
from retrain.augmentation import FOR_IMAGES, FOR_TABLES, Augmentation
from retrain.families.base import Candidate, Family, Reads
from retrain.families.catalogue import family_named
from retrain.families.parameters import Choice, Option, Parameter, Real, When, Whole
from retrain.training import Recipe

SCALINGS = ("robust", "quantile")
Chooser = Callable[[str, Parameter], Choice | None]


@dataclass(frozen=True)
class SearchSpace:
    """All candidates of a task. `rows` is the number of training rows."""

    families: tuple[Family, ...]
    rows: int
    max_epochs: int
    problem: Problem
    reads: Reads = "table"

    @classmethod
    def of(
        cls, families: Sequence[str], rows: int, max_epochs: int, problem: Problem, reads: Reads = "table"
    ) -> SearchSpace:
        """The space over families by name. Raises `TaskError` for an unknown one."""
        return cls(tuple(family_named(name) for name in families), rows, max_epochs, problem, reads)

    @cached_property
    def training(self) -> tuple[Parameter, ...]:
        """The dimensions of training, alike for all families."""
        classes: tuple[Parameter, ...] = (
            Option("label_smoothing", (0.0, 0.02, 0.05, 0.1)),
            Option("class_weights", ("none", "balanced")),
        )
        return (
            Option("scaling", SCALINGS),
            Option("optimizer", ("adamw", "sgd")),
            Real("adamw_rate", 3e-4, 2e-2, log=True, when=When("optimizer", ("adamw",))),
            Real("sgd_rate", 1e-2, 0.5, log=True, when=When("optimizer", ("sgd",))),
            Option("momentum", (0.8, 0.9, 0.95), when=When("optimizer", ("sgd",))),
            Option("schedule", ("cosine", "flat-cosine", "constant")),
            Real("weight_decay", 1e-6, 0.3, log=True),
            Option("batch_size", batch_sizes(self.rows)),
            Option("epochs", lengths(self.max_epochs)),
            *(() if self.problem == "regression" else classes),
            *(FOR_IMAGES if self.reads == "image" else FOR_TABLES),
        )

    def parameters(self, family: Family) -> tuple[tuple[str, Parameter], ...]:
        """(label, dimension) of training and of a family."""
        own = ((f"{family.name}.{one.name}", one) for one in family.parameters())
        return (*((one.name, one) for one in self.training), *own)

    def suggest(self, trial: optuna.Trial) -> Candidate:
        """The candidate that Optuna's sampler chooses."""
        candidate = self._walk(lambda label, parameter: _suggest(trial, label, parameter))
        assert candidate is not None  # a suggestion lies inside its dimension
        return candidate

    def sample(self, rng: np.random.Generator) -> Candidate:
        """A candidate at random."""
        candidate = self._walk(lambda label, parameter: parameter.sample(rng))
        assert candidate is not None
        return candidate

    def fit(self, candidate: Candidate, defaults: dict[str, Choice]) -> Candidate | None:
        """The nearest candidate of this space: numbers clipped and rounded, dimensions it lacks taken from `defaults`.
        None when its family or one of its options no longer exists."""
        given: dict[str, Choice] = {**defaults, **candidate.choices, "family": candidate.family}
        return self._walk(lambda label, parameter: given.get(parameter.name))

    def params(self, candidate: Candidate) -> dict[str, Choice]:
        """A candidate of this space as Optuna's parameters, by label."""
        family = family_named(candidate.family)
        named = [(label, one.name) for label, one in self.parameters(family)]
        chosen = {label: candidate.choices[name] for label, name in named if name in candidate.choices}
        return {"family": candidate.family, **chosen}

    def recipe(self, candidate: Candidate) -> Recipe:
        """How a candidate is trained."""
        sgd = candidate.text("optimizer") == "sgd"
        epochs = candidate.count("epochs")
        classes = self.problem != "regression"
        return Recipe(
            epochs=epochs,
            batch_size=candidate.count("batch_size"),
            optimizer=candidate.text("optimizer"),
            rate=candidate.number("sgd_rate" if sgd else "adamw_rate"),
            momentum=candidate.number("momentum") if sgd else 0.0,
            weight_decay=candidate.number("weight_decay"),
            schedule=candidate.text("schedule"),
            label_smoothing=candidate.number("label_smoothing") if classes else 0.0,
            balanced=classes and candidate.text("class_weights") == "balanced",
            patience=max(3, epochs // 5),
            augmentation=Augmentation.of(candidate.choices),
        )

    def _walk(self, choose: Chooser) -> Candidate | None:
        names = Option("family", tuple(family.name for family in self.families))
        name = _snapped(names, choose("family", names))
        if name is None:
            return None
        choices: dict[str, Choice] = {}
        for label, parameter in self.parameters(family_named(str(name))):
            if parameter.when is not None and not parameter.when.holds(choices):
                continue
            value = _snapped(parameter, choose(label, parameter))
            if value is None:
                return None
            choices[parameter.name] = value
        return Candidate(family=str(name), choices=choices)


def batch_sizes(rows: int) -> tuple[int, ...]:
    """Three powers of two around a 32nd of the rows, so that an epoch has 15 to 60 steps; 16 to 4096.

    >>> batch_sizes(1_000), batch_sizes(31_000), batch_sizes(10_000_000)
    ((16, 32, 64), (512, 1024, 2048), (1024, 2048, 4096))
    """
    middle = 2 ** round(math.log2(max(rows, 32) / 32))
    middle = min(max(middle, 32), 2048)
    return (middle // 2, middle, middle * 2)


def lengths(max_epochs: int) -> tuple[int, ...]:
    """Trainings as long as allowed, and a third of it: a short one lets its learning rate fall sooner.

    >>> lengths(27), lengths(1)
    ((9, 27), (1,))
    """
    return tuple(sorted({max(1, round(max_epochs / 3)), max_epochs}))


def _snapped(parameter: Parameter, value: Choice | None) -> Choice | None:
    return None if value is None else parameter.snap(value)


def _suggest(trial: optuna.Trial, label: str, parameter: Parameter) -> Choice:
    if isinstance(parameter, Option):
        chosen = trial.suggest_categorical(label, list(parameter.values))
        assert chosen is not None
        return chosen
    if isinstance(parameter, Whole):
        return trial.suggest_int(label, parameter.low, parameter.high, step=parameter.step)
    return trial.suggest_float(label, parameter.low, parameter.high, log=parameter.log)
