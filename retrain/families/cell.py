"""The cells of NAS-Bench-201 (Dong & Yang 2020, arXiv 2001.00326): four nodes, an operation on each of six edges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from torch import Tensor

from retrain.families.base import Candidate
from retrain.families.isomorphism import WEIGHTLESS, normal_form
from retrain.families.modality import Modality
from retrain.families.parameters import Choice, Option
from retrain.families.sharing import Brought, Mixture, SharedGraph, SharedWired
from retrain.families.spaces import CellSpace, stacked
from retrain.families.stack import Stack
from retrain.families.wiring import NONE, Edge, Wiring, pairs

NODES = ("0", "1", "2", "3")
OPERATIONS = ("none", "skip", "narrow", "wide", "pool")
"""In the benchmark's order: none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3."""
EDGES = tuple(f"edge_{source}_{target}" for source, target in pairs(NODES))
"""In the benchmark's order: 0-1, 0-2, 1-2, 0-3, 1-3, 2-3."""


class SharedCell(SharedWired):
    """A cell with every operation on every edge."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, in the input's shape."""
        (out,) = self.run(x)
        return out


class Cells(CellSpace):
    """Stacked copies of one cell of four nodes with an operation on each edge."""

    name: ClassVar[str] = "cell"
    paper: ClassVar[str] = "Dong & Yang 2020"
    longest: ClassVar[int] = len(NODES) - 1

    def graph_dimensions(self, modality: Modality) -> tuple[Option, ...]:
        """An operation for each edge: five that every modality has."""
        return tuple(Option(edge, OPERATIONS) for edge in EDGES)

    def alphabet(self, modality: Modality) -> tuple[str, ...]:
        """All but none."""
        return OPERATIONS[1:]

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """The first of all cells that compute the same (see `isomorphism.py`): 5,260 of the 15,625 are left. Cells that
        join input and output by no path are written as the empty one, whose network has a skip connection."""
        return {**super().canonical(choices), **dict(zip(EDGES, canonical_cell(_operations(choices)), strict=True))}

    def decisions(self, modality: Modality) -> tuple[Option, ...]:
        """The operation of each edge."""
        return self.graph_dimensions(modality)

    def shared_body(
        self, mixture: Mixture, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1
    ) -> Stack:
        """All cells under a candidate's template."""
        cell = partial(SharedCell, SHARED_GRAPH, mixture)
        return stacked(Stack, cell, candidate, modality, d_in=d_in, side=side)

    def cell(self, choices: Mapping[str, Choice]) -> Wiring:
        """Node 0 is the input, node 3 the output."""
        edges = [Edge(*pair, one) for pair, one in zip(pairs(NODES), _operations(choices), strict=True)]
        return Wiring.between(NODES, edges).joined()


def canonical_cell(operations: tuple[str, ...]) -> tuple[str, ...]:
    """Six operations in the order of EDGES, in the one way they are written.

    >>> canonical_cell(("none", "wide", "pool", "skip", "narrow", "none"))
    ('none', 'none', 'none', 'skip', 'none', 'none')
    """
    return normal_form(len(NODES), operations, WEIGHTLESS)


def _operations(choices: Mapping[str, Choice]) -> tuple[str, ...]:
    return tuple(str(choices.get(edge, NONE)) for edge in EDGES)


def _brought(mixture: Mixture, node: str) -> Brought:
    return {
        (source, str(operation)): weight
        for source in _earlier(node)
        for operation, weight in mixture.on(f"edge_{source}_{node}").items()
    }


def _earlier(node: str) -> tuple[str, ...]:
    return NODES[: NODES.index(node)]


SHARED_GRAPH = SharedGraph(NODES[:1], NODES[-1:], {node: _earlier(node) for node in NODES[1:]}, OPERATIONS, _brought)
