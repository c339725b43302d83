"""The search space: which candidates there are, free of how they are chosen.

A space is made for a task: its families, its number of training rows (from which batch sizes follow) and its longest
training. Optuna sees the dimensions under labels: those of training by their name, those of a family as `mlp.depth`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from registry.choices import Preference
from registry.metrics import Problem
from retrain.augmentation import FOR_IMAGES, FOR_TABLES, Augmentation, on_demand
from retrain.families.base import Candidate, Family, Reads
from retrain.families.catalogue import family_named
from retrain.families.parameters import Choice, Option, Parameter, Real, When
from retrain.search.experience import Experience
from retrain.search.geometry import FAMILY, Encoding, Space, levels
from retrain.search.narrowing import narrow, narrow_families
from retrain.search.taught import Taught
from retrain.search.workshop import Workshop
from retrain.training import Recipe

SCALINGS = ("robust", "quantile")
BATCH = "batch_size"
SCREEN_SHARE = 0.1
SHRUNK = (0.0, 0.25, 0.5, 0.75)
"""By how much of the way to their least the sizes of what takes too long are brought down, before all of it."""
SIZES = tuple(2**power for power in range(4, 13))
"""Batch sizes that a user may ask for."""


@dataclass(frozen=True)
class SearchSpace(Space):
    """All candidates of a task. `rows` is the number of training rows, `choices` what the user knows beforehand."""

    families: tuple[Family, ...]
    rows: int
    max_epochs: int
    problem: Problem
    reads: Reads = "table"
    choices: Mapping[str, Preference] = field(default_factory=dict, hash=False)
    workshop: Workshop | None = field(default=None, compare=False)
    experience: Experience | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        families: Sequence[str],
        rows: int,
        max_epochs: int,
        problem: Problem,
        reads: Reads = "table",
        choices: Mapping[str, Preference] | None = None,
    ) -> SearchSpace:
        """The space over families by name. Raises `TaskError` for an unknown one, and for choices that do not fit."""
        space = cls(tuple(family_named(name) for name in families), rows, max_epochs, problem, reads, choices or {})
        _ = space._dimensions  # finds out what does not fit
        return space

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
            Option(BATCH, batch_sizes(self.rows)),
            Option("epochs", lengths(self.max_epochs)),
            *(() if self.problem == "regression" else classes),
            *(FOR_IMAGES if self.reads == "image" else FOR_TABLES),
            *(one for one in on_demand(self.reads) if one.name in self.choices),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The families' names."""
        return tuple(str(one) for one in self._families.values)

    def adapt(self, candidate: Candidate, defaults: Mapping[str, Choice]) -> Candidate | None:
        """As `fit`, and an option that the user's choices rule out is replaced by the likeliest of those left."""
        given: dict[str, Choice] = {**defaults, **candidate.choices, FAMILY: candidate.family}
        wide = dict(self._wide.get(candidate.family, ()))

        def choose(label: str, parameter: Parameter) -> Choice | None:
            value = given.get(parameter.name)
            if value is None or label not in wide or not isinstance(parameter, Option):
                return value
            ruled_out = parameter.snap(value) is None and wide[label].snap(value) is not None
            return parameter.likeliest if ruled_out else value

        return self._walk(choose)

    def parameters(self, family: str) -> tuple[tuple[str, Parameter], ...]:
        """(label, dimension) of training and of a family."""
        return self._dimensions[family]

    @cached_property
    def _families(self) -> Option:
        known = Option(FAMILY, tuple(family.name for family in self.families))
        return narrow_families(known, self.choices[FAMILY]) if FAMILY in self.choices else known

    @cached_property
    def _dimensions(self) -> dict[str, tuple[tuple[str, Parameter], ...]]:
        own = {name: self._wide[name] for name in self.names}
        if not self.choices:
            return own
        found = narrow(own, {key: one for key, one in self.choices.items() if key != FAMILY})
        return {name: tuple((label, self._sized(one)) for label, one in each) for name, each in found.items()}

    @cached_property
    def _wide(self) -> dict[str, tuple[tuple[str, Parameter], ...]]:
        """The dimensions before the user's choices; of batch sizes, all that a user may ask for if one does."""
        sizes = Option(BATCH, SIZES)
        training = tuple(
            (one.name, sizes if one.name == BATCH and BATCH in self.choices else one) for one in self.training
        )
        return {
            family.name: (*training, *((f"{family.name}.{one.name}", one) for one in self._own(family)))
            for family in self.families
        }

    def _own(self, family: Family) -> tuple[Parameter, ...]:
        """A family's dimensions, with those on demand that the user's choices name, of all families or of this one."""
        asked = [one for one in family.on_demand() if {one.name, f"{family.name}.{one.name}"} & self.choices.keys()]
        return (*family.parameters_for(self.reads), *asked)

    def _sized(self, parameter: Parameter) -> Parameter:
        """Of the batch sizes that the user leaves, those that suit the rows, or the nearest: a choice that was possible
        once must stay possible when the rows have grown. Named ones are taken as they are."""
        if parameter.name != BATCH or not isinstance(parameter, Option) or BATCH not in self.choices:
            return parameter
        wish = self.choices[BATCH]
        if wish.fixed is not None or wish.only:
            return parameter
        low, middle, high = batch_sizes(self.rows)
        kept = [one for one in parameter.values if low <= float(one) <= high]
        kept = kept or [min(parameter.values, key=lambda one: abs(math.log(float(one) / middle)))]
        weights = tuple(wish.weight(one) for one in kept) if wish.weights else ()
        return replace(parameter, values=tuple(kept), weights=weights)

    def canonical(self, candidate: Candidate) -> str:
        """The candidate's key, its architecture written in the one way of its family."""
        family = next(one for one in self.families if one.name == candidate.family)
        return candidate.model_copy(update={"choices": family.canonical(candidate.choices)}).key

    def paths(self, candidate: Candidate) -> Encoding:
        """Those of each family in a place of its own."""
        encoded = [
            family.path_encoding(candidate.choices, self.reads) if family.name == candidate.family else [0] * width
            for family, width in self._path_widths
        ]
        return np.asarray([bit for one in encoded for bit in one or ()], dtype=np.float64)

    @cached_property
    def _path_widths(self) -> list[tuple[Family, int]]:
        """The families with graphs, and how many paths there are."""
        out = []
        for family in (one for one in self.families if one.name in self.names):
            first = {one.name: levels(one)[0] for _, one in self.parameters(family.name)}
            out.append((family, len(family.path_encoding(first, self.reads) or ())))
        return [(family, width) for family, width in out if width]

    @property
    def screened(self) -> int:
        """Networks are built and run for it, in some hundredths of a second each."""
        return 48

    @property
    def seconds_to_screen(self) -> float:
        """A share of what is left: networks of tables take a second together, those of large images a minute."""
        return math.inf if self.workshop is None else SCREEN_SHARE * self.workshop.seconds()

    def proxies(self, candidate: Candidate) -> Encoding:
        """What its untrained network tells, where there are rows to show it."""
        return np.empty(0) if self.workshop is None else self.workshop.proxies(candidate)

    def affordable(self, candidate: Candidate) -> Candidate:
        """Of networks for images, some of which take dozens of times as long as others: the largest of a few sizes of
        which the short training takes no more than a trial may, or the smallest."""
        at_most = math.inf if self.workshop is None else self.workshop.at_most
        if self.reads != "image" or math.isinf(at_most):
            return candidate
        made = (candidate if not share else self.smaller(candidate, share) for share in SHRUNK)
        return next((one for one in made if self.short_seconds(one) <= at_most), self.smaller(candidate, 1.0))

    def short_seconds(self, candidate: Candidate) -> float:
        """About how many CPU-seconds the short training of a network for images takes; 0 where that is not known."""
        if self.reads != "image" or self.workshop is None:
            return 0.0
        return lengths(self.max_epochs)[0] * self.workshop.epoch_seconds(candidate)

    @cached_property
    def taught(self) -> Taught | None:
        """By the studies that the task's search was given."""
        return None if self.experience is None else self.experience.taught(self)

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
