"""Networks made of cells: graphs of operations, stacked under a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from torch import Tensor, nn

from retrain.families.base import TabularNet
from retrain.families.embeddings import InputEncoder
from retrain.families.modality import Modality, Style
from retrain.families.wiring import Wiring

Make: TypeAlias = Callable[[str], nn.Module]
MakeCell: TypeAlias = Callable[[Make], nn.Module]


class Wired(nn.Module):
    """A wiring with a module for each operation: all inputs and outputs of one shape.

    The module of an operation is called `edges.FROM_TO.OPERATION`, whatever else the cell has: that is how weights find
    their place in another cell, and how cells may come to share them.
    """

    def __init__(self, wiring: Wiring, make: Make) -> None:
        super().__init__()
        self.wiring = wiring
        self.edges = nn.ModuleDict(
            {
                edge.name: nn.ModuleDict({edge.operation: make(edge.operation)})
                for edge in wiring.edges
                if not edge.passes
            }
        )

    def run(self, *inputs: Tensor) -> list[Tensor]:
        """The sinks' values, given the sources'. A node is the sum of its edges."""
        values: dict[str, Tensor] = dict(zip(self.wiring.sources, inputs, strict=True))
        for node in self.wiring.nodes:
            for edge in self.wiring.into(node):
                given = values[edge.source]
                brought = given if edge.passes else self._module(edge.name, edge.operation)(given)
                values[node] = values[node] + brought if node in values else brought
        return [values[sink] for sink in self.wiring.sinks]

    def _module(self, edge: str, operation: str) -> nn.Module:
        operations = self.edges[edge]
        assert isinstance(operations, nn.ModuleDict)
        return operations[operation]


class Cell(Wired):
    """A wiring of one input and one output."""

    def forward(self, x: Tensor) -> Tensor:
        """The output, in the input's shape."""
        (out,) = self.run(x)
        return out


class Body(nn.Module):
    """What lies between raw or embedded input and the linear head: (n, d_in) or (n, d_in, h, w) -> (n, d_out)."""

    d_in: int
    d_out: int


class Stack(Body):
    """The same cell `cells` times in each of a modality's stages, a reduction between two stages. `cell` makes one of
    the modules of its operations, given by name."""

    def __init__(
        self, cell: MakeCell, modality: Modality, style: Style, *, cells: int, width: int, d_in: int, side: int
    ) -> None:
        super().__init__()
        self.d_in = d_in
        self.stem = modality.stem(d_in, width, side, style)
        self.cells = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        for place in range(cells * modality.stages):
            if place and place % cells == 0:
                self.reductions[str(place)] = modality.reduce(width, modality.reduced(width), style)
                width = modality.reduced(width)
            self.cells.append(cell(_maker(modality, width, style)))
        self.finish = modality.finish(width, style)
        self.d_out = width

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d_out)."""
        x = self.stem(x)
        for place, cell in enumerate(self.cells):
            if str(place) in self.reductions:
                x = self.reductions[str(place)](x)
            x = cell(x)
        out: Tensor = self.finish(x)
        return out


def _maker(modality: Modality, width: int, style: Style) -> Make:
    return lambda operation: modality.operations[operation](width, style)


class BodyNet(TabularNet):
    """A network for tables: the encoder, one linear layer, a body, a linear head."""

    def __init__(self, inputs: InputEncoder, body: Body, d_out: int) -> None:
        super().__init__(inputs, body.d_in)
        self.body = body
        self.head = nn.Linear(body.d_out, d_out)

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """(n, d_numeric), (n, c) -> (n, d_out)."""
        out: Tensor = self.head(self.body(self.embed(numeric, categories)))
        return out

    def in_turn(self) -> Iterable[nn.Module]:
        """All of it, behind the encoder."""
        return self.first, self.body, self.head

    def is_part(self, name: str) -> bool:
        """All of the body."""
        return name.startswith("body.")

    @property
    def last(self) -> nn.Linear:
        """The head."""
        return self.head
