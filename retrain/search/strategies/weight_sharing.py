"""What the strategies that train a supernet have in common: rows to train it on, a time for it, and what is done with
the architectures it ranks. They search the first of a task's families that has a supernet; other families have only the
trials that the portfolio gives them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from registry.errors import TaskError
from retrain.batches import Rows
from retrain.families.base import Candidate
from retrain.families.parameters import Choice
from retrain.families.sharing import Decision, Path
from retrain.families.spaces import MODALITIES
from retrain.families.supernet import SHARED, shared_space
from retrain.families.wiring import NONE
from retrain.losses import make_loss
from retrain.search.defaults import DEFAULTS
from retrain.search.geometry import Space, levels
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import AskTell, Proposal, Seen
from retrain.search.workshop import Workshop
from retrain.training import Recipe, make_optimizer

SHARE = 0.3
"""The share of the time left that the supernet may take."""
RATE, DECAY = 2e-3, 1e-3
TRAINING = 0.7
"""The share of that time in which weights are trained; in the rest of it paths are ranked by them."""
RANKED, FEWEST = 64, 8
"""Paths that are looked at with shared weights once these are trained, and how many are however late it is."""
JUDGING = 256
"""Rows that rank paths."""

SMALL: dict[str, Choice] = {"width": 0, "width_1": 0, "cells": 1, "batch_size": 1_000_000}
"""The template of the supernet, each as near as the space has it: architectures are chosen narrow and used wide, as the
papers do, since a supernet costs as much as all operations together."""


class WeightSharing(AskTell):
    """Trains one network that holds all architectures of a space, and proposes those that do best in it, from the best
    on."""

    needs: ClassVar[tuple[str, ...]] = SHARED
    held: ClassVar[float]
    """The share of the training rows that judge architectures, and that no shared weight learns from."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.require(space.names)
        if not isinstance(space, SearchSpace) or space.workshop is None:
            raise TaskError(f"strategy {self.name!r} trains a network of its own, and there are no rows for it")
        self.workshop: Workshop = space.workshop
        self.family = next(name for name in space.names if name in SHARED)
        known = shared_space(self.family).decisions(MODALITIES[space.reads])
        self.decisions = tuple(map(Decision.of, known))
        self.template, self.small = (_fitted(space, self.family, own) for own in ({}, SMALL))
        self._ranked: list[Path] | None = None
        self._best: Seen | None = None
        self._dressed_at_random = False

    def prepare(self) -> None:
        """Train the supernet, for its share of the time left, and rank architectures in it."""
        now, seconds = time.monotonic(), SHARE * self.workshop.seconds()
        shared = Shared(self.workshop, self.small, self.held, self.rng, now + seconds)
        paths = self.search(shared, now + TRAINING * seconds)
        self._ranked = list(dict.fromkeys(map(self.written, paths)))

    def tell(self, seen: Seen) -> None:
        """The best trained architecture is where it goes on from once the ranking is used up."""
        if seen.candidate.family == self.family and (self._best is None or seen.value > self._best.value):
            self._best = seen

    def ask(self) -> Proposal:
        """The next one of the ranking, trained on its own: as the best so far was, or the defaults have it, and every
        other one in ways at random: of these alone a first epoch tells more than of the architecture."""
        if self._ranked is None:
            self.prepare()
        while self._ranked:
            best = self.template if self._best is None else self._best.candidate
            dressed = self._dressed(self._ranked.pop(0), self._drawn() if self._dressed_at_random else best)
            self._dressed_at_random = not self._dressed_at_random
            if dressed is not None:
                return Proposal(dressed)
        if self._best is None:
            return Proposal(self.space.sample(self.rng))
        return Proposal(self.space.mutate(self._best.candidate, self.rng), self._best.number)

    @abstractmethod
    def search(self, shared: Shared, until: float) -> Sequence[Path]:
        """Architectures, best first, found by `until`, a reading of `time.monotonic`."""

    def random_path(self) -> Path:
        """An architecture at random, in which something leads from input to output."""
        while True:
            path = tuple(one.values[int(self.rng.integers(len(one.values)))] for one in self.decisions)
            if set(self.written(path)) != {NONE}:
                return path

    def written(self, path: Path) -> Path:
        """The one way to write a path that is the same architecture; of a decision that does not matter in it, the
        first value."""
        chosen = {**self.template.choices, **self._named(path)}
        known = shared_space(self.family).canonical(chosen)
        return tuple(known.get(one.name, one.values[0]) for one in self.decisions)

    def _named(self, path: Path) -> dict[str, Choice]:
        return {one.name: value for one, value in zip(self.decisions, path, strict=True)}

    def _drawn(self) -> Candidate:
        """A candidate of the family, at random."""
        while True:
            drawn = self.space.sample(self.rng)
            if drawn.family == self.family:
                return drawn

    def _dressed(self, path: Path, candidate: Candidate) -> Candidate | None:
        """The architecture under a candidate's template; None where a user ruled one of its values out."""
        choices = {**candidate.choices, **self._named(path)}
        return self.space.fit(candidate.model_copy(update={"choices": choices}), DEFAULTS)


class Shared:
    """A supernet with its rows: some that shared weights learn from, and `held` ones that judge paths. Both are from
    the study's training rows: its validation rows are for networks that are trained on their own."""

    def __init__(
        self, workshop: Workshop, template: Candidate, held: float, rng: np.random.Generator, end: float
    ) -> None:
        self.end = end
        rows = workshop.rows(template.text("scaling"))
        order = torch.from_numpy(rng.permutation(len(rows)))
        cut = max(1, round(len(rows) * held))
        self.judging, self.training = rows.take(order[:cut]), rows.take(order[cut:])
        self.network, self.mixture = workshop.supernet(template)
        self.network.train()  # and so it stays: paths have no statistics of their own but a batch's
        self.recipe = recipe_of(template)
        self.loss = make_loss(
            workshop.problem, rows.labels, label_smoothing=self.recipe.label_smoothing, balanced=self.recipe.balanced
        )
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def batches(self, rows: Rows) -> Iterator[Rows]:
        """Shuffled batches of these rows, without end."""
        size = min(self.recipe.batch_size, len(rows))
        while True:
            order = torch.randperm(len(rows), generator=self.generator)
            for start in range(0, len(rows) - size + 1, size):
                yield rows.take(order[start : start + size])

    def outcome(self, batch: Rows) -> Tensor:
        """The loss of what is on, as a scalar."""
        return self.loss(self.network(*batch.inputs), batch.labels)

    def learn(self, batch: Rows) -> None:
        """One step of the shared weights that are on."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.outcome(batch)
        if loss.requires_grad and bool(torch.isfinite(loss)):
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()

    @torch.no_grad()
    def loss_of(self, path: Path, batch: Rows) -> float:
        """The loss of one path with shared weights, normalised by this batch: the running statistics are a mean over
        all paths and fit none."""
        self.mixture.one(path)
        return float(self.outcome(batch))

    def ranked(self, paths: Sequence[Path]) -> list[Path]:
        """Paths by their losses on one large batch of held rows, the least first; those that time is not left for are
        left out."""
        batch = self.judging.take(torch.arange(min(len(self.judging), JUDGING)))
        losses: dict[Path, float] = {}
        for path in dict.fromkeys(paths):
            if time.monotonic() > self.end and len(losses) >= FEWEST:
                break
            losses[path] = self.loss_of(path, batch)
        return sorted(losses, key=lambda path: losses[path])


def _fitted(space: Space, family: str, own: dict[str, Choice]) -> Candidate:
    """The defaults, or where a user ruled one of them out, what comes first in their place."""
    possible = {one.name: levels(one)[0] for _, one in space.parameters(family)}
    known = {name: value for name, value in DEFAULTS.items() if name in possible}
    fitted = space.fit(Candidate(family=family, choices=own), known) or space.fit(
        Candidate(family=family, choices=own), possible
    )
    assert fitted is not None  # the first value of every dimension is in it
    return fitted


def recipe_of(template: Candidate) -> Recipe:
    """How shared weights are trained: as the template is, at a rate that suits what changes all the time."""
    return Recipe(
        epochs=1,
        batch_size=template.count("batch_size"),
        optimizer="adamw",
        rate=RATE,
        momentum=0.0,
        weight_decay=DECAY,
        schedule="constant",
        label_smoothing=0.0,
        balanced=False,
        patience=1,
    )
