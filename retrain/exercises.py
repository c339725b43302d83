"""A network that is to be trained on, as one process asks another: all of it as tensors and JSON."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import safetensors.torch
import torch
from torch import nn

from registry.metrics import Problem
from registry.schema import Frozen
from retrain.batches import Rows
from retrain.families.base import Candidate, Reads
from retrain.families.catalogue import build
from retrain.image_source import ImageInput
from retrain.pausing import State
from retrain.search.space import SearchSpace
from retrain.training import Loop, Recipe, load_state

BATCHES, LEAST_BATCH = 16, 16
"""Fewest batches of an epoch, if rows allow, and the smallest batch."""
TERMS = "terms"
"""Key of what is told beside the weights."""


class Terms(Frozen):
    """Which network is trained on, of `d_numeric` numbers, categories of these cardinalities and perhaps an image, and
    how: for so many epochs, from a seed."""

    candidate: Candidate
    d_numeric: int
    cardinalities: tuple[int, ...]
    image: ImageInput | None
    d_out: int
    problem: Problem
    epochs: int
    seed: int

    def untrained(self) -> nn.Module:
        """A network of this kind, whatever its weights."""
        return build(self.candidate, self.d_numeric, self.cardinalities, self.d_out, self.image)

    def recipe(self, rows: int) -> Recipe:
        """The network's own for so many epochs of `rows`, at its full rate."""
        reads: Reads = "table" if self.image is None else "image"
        own = SearchSpace.of((self.candidate.family,), rows, 1, self.problem, reads).recipe(self.candidate)
        batch = min(own.batch_size, max(LEAST_BATCH, rows // BATCHES))
        return replace(own, epochs=self.epochs, patience=self.epochs, batch_size=batch, schedule="constant")


@dataclass(frozen=True)
class Exercise:
    """A network and the rows that it is to learn; it stays as it is."""

    terms: Terms
    network: nn.Module
    rows: Rows

    @property
    def work(self) -> float:
        """How much that is, in multiplications by weights, roughly."""
        return sum(value.numel() for value in self.network.parameters()) * len(self.rows) * self.terms.epochs

    def done(self) -> nn.Module | None:
        """The network after it, in evaluation mode; None where it has diverged. Seeds the process's generator."""
        terms, network = self.terms, copy.deepcopy(self.network)
        torch.manual_seed(terms.seed)
        recipe = terms.recipe(len(self.rows))
        loop = Loop(network, self.rows, recipe, terms.problem, terms.seed, averaged=False)
        finite = all(loop.epoch()[1] for _ in range(terms.epochs))
        finite = finite and all(bool(value.isfinite().all()) for value in network.parameters())
        return network.eval() if finite else None

    def bytes(self) -> bytes:
        """All but the rows, as a safetensors file."""
        return safetensors.torch.save(_state(self.network), {TERMS: self.terms.model_dump_json()})

    @classmethod
    def read(cls, path: str, rows: Rows) -> Exercise:
        """From such a file."""
        with safetensors.safe_open(path, "pt") as file:
            terms = Terms.model_validate_json(file.metadata()[TERMS])
        network = load_state(terms.untrained(), safetensors.torch.load_file(path))
        return cls(terms, network, rows)

    def after(self, path: str) -> nn.Module:
        """The network with the weights of such a file."""
        return load_state(copy.deepcopy(self.network), safetensors.torch.load_file(path))


def one_by_one(exercises: Sequence[Exercise]) -> list[nn.Module | None]:
    """What `Exercise.done` gives of each."""
    return [one.done() for one in exercises]


def weights_of(network: nn.Module) -> bytes:
    """Its weights as a safetensors file."""
    return safetensors.torch.save(_state(network))


def rows_as_bytes(rows: Rows) -> bytes:
    """Rows as a safetensors file."""
    return safetensors.torch.save({name: one.contiguous() for name, one in vars(rows).items() if one is not None})


def rows_of_file(path: str) -> Rows:
    """Rows of such a file, which stay there: it is mapped into memory."""
    return Rows(**safetensors.torch.load_file(path))


def _state(network: nn.Module) -> State:
    return {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
