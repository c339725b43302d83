"""A supernet: all cells of NAS-Bench-201's space in one network, every operation with one set of weights that all cells
with it share (Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from retrain.families.base import Candidate, Network
from retrain.families.cell import NODES, OPERATIONS
from retrain.families.embeddings import InputEncoder
from retrain.families.image_operations import IMAGE
from retrain.families.picture import Features, PictureNet, beside
from retrain.families.spaces import stacked
from retrain.families.stack import BodyNet, Make, Stack
from retrain.families.table_operations import TABLE
from retrain.families.wiring import NONE, SKIP, pairs
from retrain.image_source import ImageInput

PLACES = tuple(f"{source}_{target}" for source, target in pairs(NODES))
"""The edges, in the order of `cell.EDGES`."""
Weight: TypeAlias = Tensor | float


@dataclass
class Mixture:
    """How much of each operation is on at each edge; those that are not named are off, and cost nothing."""

    weights: Mapping[str, Mapping[str, Weight]] = field(default_factory=dict)

    def one(self, operations: Sequence[str]) -> None:
        """One operation an edge, in the order of `PLACES`: an ordinary cell."""
        self.weights = {place: {operation: 1.0} for place, operation in zip(PLACES, operations, strict=True)}


class SharedCell(nn.Module):
    """A cell with every operation at every edge. The modules are called as those of an ordinary cell are."""

    def __init__(self, mixture: Mixture, make: Make) -> None:
        super().__init__()
        self.mixture = mixture
        learnt = [one for one in OPERATIONS if one not in (NONE, SKIP)]
        self.edges = nn.ModuleDict(
            {place: nn.ModuleDict({operation: make(operation) for operation in learnt}) for place in PLACES}
        )

    def forward(self, x: Tensor) -> Tensor:
        """The output, in the input's shape; zeros where nothing leads to it."""
        values = {NODES[0]: x}
        for source, target in pairs(NODES):
            for operation, weight in self.mixture.weights.get(f"{source}_{target}", {}).items():
                if operation == NONE or source not in values:
                    continue
                brought = weight * self._run(f"{source}_{target}", operation, values[source])
                values[target] = values[target] + brought if target in values else brought
        return values[NODES[-1]] if NODES[-1] in values else torch.zeros_like(x)

    def _run(self, place: str, operation: str, x: Tensor) -> Tensor:
        if operation == SKIP:
            return x
        operations = self.edges[place]
        assert isinstance(operations, nn.ModuleDict)
        out: Tensor = operations[operation](x)
        return out


def supernet(
    candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int, image: ImageInput | None = None
) -> tuple[Network, Mixture]:
    """The untrained supernet under the template of a candidate of family "cell", and the mixture that steers it. No
    operation has dropout: cells that are trained for moments need none."""
    mixture = Mixture()
    without = candidate.model_copy(update={"choices": {**candidate.choices, "dropout": 0.0}})
    cell = partial(SharedCell, mixture)
    if image is None:
        body = stacked(Stack, cell, without, TABLE)
        return BodyNet(InputEncoder.of(candidate.choices, d_numeric, cardinalities), body, d_out), mixture
    body = stacked(Stack, cell, without, IMAGE, d_in=image.channels, side=image.size)
    return PictureNet(image, Features(body, body.d_out), beside(d_numeric, cardinalities), d_out), mixture
