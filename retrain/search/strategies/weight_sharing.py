"""What the strategies that train a supernet have in common: rows to train it on, a time for it, and what is done with
the cells it ranks."""

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
from retrain.families.cell import EDGES, OPERATIONS, canonical_cell
from retrain.families.parameters import Choice
from retrain.families.supernet import PLACES, Mixture
from retrain.families.wiring import NONE
from retrain.losses import make_loss
from retrain.search.geometry import Space, levels
from retrain.search.portfolio import DEFAULTS
from retrain.search.space import SearchSpace
from retrain.search.strategies.base import AskTell, Proposal, Seen
from retrain.search.workshop import Workshop
from retrain.training import Recipe, make_optimizer

FAMILY = "cell"
SHARE = 0.3
"""The share of the time left that the supernet may take."""
RATE, DECAY = 2e-3, 1e-3
TRAINING = 0.7
"""The share of that time in which weights are trained; in the rest of it cells are ranked by them."""
RANKED, FEWEST = 64, 8
"""Cells that are looked at with shared weights once these are trained, and how many are however late it is."""
JUDGING = 256
"""Rows that rank cells."""

SMALL: dict[str, Choice] = {"width": 0, "cells": 1, "batch_size": 1_000_000}
"""The template of the supernet, each as near as the space has it: cells are chosen narrow and used wide, as the papers
do, since a supernet costs as much as all operations together."""

Cell = tuple[str, ...]
"""An operation for each edge, in the order of `cell.EDGES`."""


class WeightSharing(AskTell):
    """Trains one network that holds all cells, and proposes those that do best in it, from the best on."""

    needs: ClassVar[str] = FAMILY
    held: ClassVar[float]
    """The share of the training rows that judge cells, and that no shared weight learns from."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        super().__init__(space, rng)
        self.require(space.names)
        if not isinstance(space, SearchSpace) or space.workshop is None:
            raise TaskError(f"strategy {self.name!r} trains a network of its own, and there are no rows for it")
        self.workshop: Workshop = space.workshop
        self.template, self.small = (_fitted(space, own) for own in ({}, SMALL))
        self._ranked: list[Cell] | None = None
        self._best: Seen | None = None

    def prepare(self) -> None:
        """Train the supernet, for its share of the time left, and rank cells in it."""
        now, seconds = time.monotonic(), SHARE * self.workshop.seconds()
        shared = Shared(self.workshop, self.small, self.held, self.rng, now + seconds)
        cells = self.search(shared, now + TRAINING * seconds)
        self._ranked = list(dict.fromkeys(canonical_cell(one) for one in cells))

    def tell(self, seen: Seen) -> None:
        """The best trained cell is where it goes on from once the ranking is used up."""
        if seen.candidate.family == FAMILY and (self._best is None or seen.value > self._best.value):
            self._best = seen

    def ask(self) -> Proposal:
        """The next cell of the ranking, trained on its own: first as the defaults have it, then in other ways."""
        if self._ranked is None:
            self.prepare()
        while self._ranked:
            dressed = self._dressed(self._ranked.pop(0), self.template if self._best is None else self._drawn())
            if dressed is not None:
                return Proposal(dressed)
        if self._best is None:
            return Proposal(self.space.sample(self.rng))
        return Proposal(self.space.mutate(self._best.candidate, self.rng), self._best.number)

    @abstractmethod
    def search(self, shared: Shared, until: float) -> Sequence[Cell]:
        """Cells, best first, found by `until`, a reading of `time.monotonic`."""

    def random_cell(self) -> Cell:
        """A cell at random in which some path leads from input to output."""
        while True:
            cell = tuple(OPERATIONS[int(place)] for place in self.rng.integers(len(OPERATIONS), size=len(EDGES)))
            if set(canonical_cell(cell)) != {NONE}:
                return cell

    def _drawn(self) -> Candidate:
        """A candidate of the family, at random."""
        while True:
            drawn = self.space.sample(self.rng)
            if drawn.family == FAMILY:
                return drawn

    def _dressed(self, cell: Cell, candidate: Candidate) -> Candidate | None:
        """The cell under a candidate's template; None where a user ruled one of its operations out."""
        choices = {**candidate.choices, **dict(zip(EDGES, cell, strict=True))}
        return self.space.fit(candidate.model_copy(update={"choices": choices}), DEFAULTS)


class Shared:
    """A supernet with its rows: some that shared weights learn from, and `held` ones that judge cells. Both are from
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
        self.network.train()  # and so it stays: cells have no statistics of their own but a batch's
        self.recipe = recipe_of(template)
        self.loss = make_loss(workshop.problem, self.recipe, rows.labels)
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
        """The loss of the cell that is on, as a scalar."""
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
    def loss_of(self, cell: Cell, batch: Rows) -> float:
        """The loss of one cell with shared weights, normalised by this batch: the running statistics are a mean over
        all cells and fit none."""
        self.mixture.one(cell)
        return float(self.outcome(batch))

    def ranked(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells by their losses on one large batch of held rows, the least first; those that time is not left for are
        left out."""
        batch = self.judging.take(torch.arange(min(len(self.judging), JUDGING)))
        losses: dict[Cell, float] = {}
        for cell in dict.fromkeys(cells):
            if time.monotonic() > self.end and len(losses) >= FEWEST:
                break
            losses[cell] = self.loss_of(cell, batch)
        return sorted(losses, key=lambda cell: losses[cell])


def _fitted(space: Space, own: dict[str, Choice]) -> Candidate:
    """The defaults, or where a user ruled one of them out, what comes first in their place."""
    possible = {one.name: levels(one)[0] for _, one in space.parameters(FAMILY)}
    known = {name: value for name, value in DEFAULTS.items() if name in possible}
    fitted = space.fit(Candidate(family=FAMILY, choices=own), known) or space.fit(
        Candidate(family=FAMILY, choices=own), possible
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


def steered(weights: Tensor, mixture: Mixture, *, least: float = 1e-4) -> None:
    """Put weights (edges, operations) into a mixture; those that are not greater than `least` are off."""
    shown = weights.detach()
    mixture.weights = {
        place: {one: weights[row, column] for column, one in enumerate(OPERATIONS) if shown[row, column] > least}
        for row, place in enumerate(PLACES)
    }
