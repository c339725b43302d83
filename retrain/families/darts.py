"""Normal and reduction cells as in DARTS (Liu, Simonyan & Yang 2018, arXiv 1806.09055): nodes that sum two operations
on earlier nodes, and cells that read the two cells before them.

Three intermediate nodes, where the paper has four: with four, and the dimensions of template, encoder and training, a
search over tables would have 43 dimensions and some 10^17 pairs of cells for its few dozen trials; three leave 37 and
10^12. The operations of reduction cells have no stride: a cell's inputs are reduced before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations, permutations
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from retrain.families.base import Candidate
from retrain.families.modality import Modality, Style
from retrain.families.parameters import Choice, Option, Parameter
from retrain.families.sharing import Brought, Mixture, SharedGraph, SharedWired, Weight
from retrain.families.spaces import WiredSpace, operations_of, stacked, template_dimensions
from retrain.families.stack import Body, Wired
from retrain.families.wiring import Edge, Wiring

KINDS = ("normal", "reduction")
INPUTS, NODES = ("0", "1"), ("2", "3", "4")
"""The outputs of the cell before the last and of the last; the nodes whose values together are the output."""
Node = tuple[tuple[str, str], ...]
"""Two earlier nodes, each with an operation."""


class MakeDartsCell(Protocol):
    """What makes a cell between the two before it."""

    def __call__(
        self, modality: Modality, style: Style, /, *, widths: tuple[int, int], width: int, coarser: tuple[bool, bool]
    ) -> nn.Module:
        """The untrained cell. `coarser` says which of its inputs are reduced."""


class DartsInputs(nn.Module):
    """The outputs of the two cells before one, brought to one shape."""

    def __init__(
        self, modality: Modality, style: Style, *, widths: tuple[int, int], width: int, coarser: tuple[bool, bool]
    ) -> None:
        super().__init__()
        makers = [modality.reduce if one else modality.project for one in coarser]
        for place, (make, d_in) in enumerate(zip(makers, widths, strict=True)):
            self.add_module(str(place), make(d_in, width, style))

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Two of (n, width) or (n, width, h, w)."""
        return [make(x) for make, x in zip(self.children(), inputs, strict=True)]


class DartsCell(Wired):
    """Two inputs brought to one shape, the graph, and its nodes side by side: (n, 3 width) or (n, 3 width, h, w)."""

    def __init__(
        self,
        wiring: Wiring,
        modality: Modality,
        style: Style,
        *,
        widths: tuple[int, int],
        width: int,
        coarser: tuple[bool, bool],
    ) -> None:
        super().__init__(wiring, lambda operation: modality.operations[operation](width, style))
        self.inputs = DartsInputs(modality, style, widths=widths, width=width, coarser=coarser)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """The outputs of the two cells before this one."""
        return torch.cat(self.run(*self.inputs(before, last)), dim=1)


class SharedDartsCell(SharedWired):
    """A cell with every operation between any two nodes; `kind` is whose decisions it follows."""

    def __init__(
        self,
        kind: str,
        mixture: Mixture,
        modality: Modality,
        style: Style,
        *,
        widths: tuple[int, int],
        width: int,
        coarser: tuple[bool, bool],
    ) -> None:
        into = {node: _earlier(node) for node in NODES}
        graph = SharedGraph(INPUTS, NODES, into, operations_of(modality, skip=True), partial(_brought, kind))
        super().__init__(graph, mixture, lambda operation: modality.operations[operation](width, style))
        self.inputs = DartsInputs(modality, style, widths=widths, width=width, coarser=coarser)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """As an ordinary cell."""
        return torch.cat(self.run(*self.inputs(before, last)), dim=1)


class DartsStack(Body):
    """Normal cells, `cells` in a stage, and a reduction cell between two stages; two stages at least."""

    def __init__(
        self,
        makers: Mapping[str, MakeDartsCell],
        modality: Modality,
        style: Style,
        *,
        cells: int,
        width: int,
        d_in: int,
        side: int,
    ) -> None:
        super().__init__()
        self.d_in = d_in
        self.stem = modality.stem(d_in, width, side, style)
        self.cells = nn.ModuleList()
        widths, after = (width, width), False
        for kind in _kinds(cells, max(2, modality.stages)):
            reduces = kind == "reduction"
            width = modality.reduced(width) if reduces else width
            coarser = (reduces or after, reduces)
            self.cells.append(makers[kind](modality, style, widths=widths, width=width, coarser=coarser))
            widths, after = (widths[1], len(NODES) * width), reduces
        self.d_out = widths[1]
        self.finish = modality.finish(self.d_out, style)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d_out)."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        out: Tensor = self.finish(last)
        return out


class Darts(WiredSpace):
    """Normal and reduction cells whose nodes sum two operations."""

    name: ClassVar[str] = "darts"
    paper: ClassVar[str] = "Liu, Simonyan & Yang 2018"
    longest: ClassVar[int] = len(NODES)

    def graph_dimensions(self, modality: Modality) -> tuple[Option, ...]:
        """Of each node in each kind of cell: its two inputs, where there is a choice, and an operation on each."""
        operations = operations_of(modality, skip=True)
        return tuple(one for kind in KINDS for node in NODES for one in _node_dimensions(kind, node, operations))

    def dimensions(self, modality: Modality) -> tuple[Parameter, ...]:
        """With at most two cells in a stage: there are two stages or more, and reduction cells."""
        return (*self.graph_dimensions(modality), *template_dimensions(modality, most_cells=2))

    def alphabet(self, modality: Modality) -> tuple[str, ...]:
        """All operations."""
        return operations_of(modality, skip=True)

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """The nodes of each cell in the first of the orders that their inputs allow."""
        written: dict[str, Choice] = {}
        for kind in KINDS:
            for name, node in zip(NODES, min(_orders(_read(choices, kind))), strict=True):
                written |= _told(kind, name, node)
        return {**super().canonical(choices), **written}

    def wirings(self, choices: Mapping[str, Choice]) -> dict[str, Wiring]:
        """Both cells; all their operations are on a path."""
        return {kind: _wiring(_read(choices, kind)) for kind in KINDS}

    def body(self, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1) -> DartsStack:
        """Both cells of a candidate, stacked."""
        makers = {kind: partial(DartsCell, one) for kind, one in self.wirings(candidate.choices).items()}
        return stacked(DartsStack, makers, candidate, modality, d_in=d_in, side=side)

    def decisions(self, modality: Modality) -> tuple[Option, ...]:
        """Inputs and operations of the nodes of both cells."""
        return self.graph_dimensions(modality)

    def shared_body(
        self, mixture: Mixture, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1
    ) -> DartsStack:
        """All pairs of cells under a candidate's template."""
        makers = {kind: partial(SharedDartsCell, kind, mixture) for kind in KINDS}
        return stacked(DartsStack, makers, candidate, modality, d_in=d_in, side=side)


def _kinds(cells: int, stages: int) -> list[str]:
    """
    >>> _kinds(1, 2)
    ['normal', 'reduction', 'normal']
    """
    return [kind for stage in range(stages) for kind in ["reduction"][: stage > 0] + ["normal"] * cells]


def _earlier(node: str) -> tuple[str, ...]:
    return (*INPUTS, *NODES[: NODES.index(node)])


def _node_dimensions(kind: str, node: str, operations: tuple[str, ...]) -> tuple[Option, ...]:
    found = tuple(",".join(pair) for pair in combinations(_earlier(node), 2))
    inputs = () if len(found) == 1 else (Option(f"{kind}_{node}_inputs", found),)
    return (*inputs, Option(f"{kind}_{node}_first", operations), Option(f"{kind}_{node}_second", operations))


def _brought(kind: str, mixture: Mixture, node: str) -> Brought:
    """Of each pair of inputs its share of both operations: the same operation on the same input is one."""
    pairs = mixture.on(f"{kind}_{node}_inputs") or {",".join(INPUTS): 1.0}
    found: dict[tuple[str, str], Weight] = {}
    for pair, share in pairs.items():
        for source, place in zip(str(pair).split(","), ("first", "second"), strict=True):
            for operation, weight in mixture.on(f"{kind}_{node}_{place}").items():
                key = (source, str(operation))
                found[key] = found.get(key, 0.0) + share * weight
    return found


def _read(choices: Mapping[str, Choice], kind: str) -> tuple[Node, ...]:
    return tuple(
        tuple(
            zip(
                str(choices.get(f"{kind}_{node}_inputs", ",".join(INPUTS))).split(","),
                (str(choices[f"{kind}_{node}_first"]), str(choices[f"{kind}_{node}_second"])),
                strict=True,
            )
        )
        for node in NODES
    )


def _told(kind: str, name: str, node: Node) -> dict[str, Choice]:
    (one, first), (other, second) = node
    inputs: dict[str, Choice] = {f"{kind}_{name}_inputs": f"{one},{other}"} if name != NODES[0] else {}
    return {**inputs, f"{kind}_{name}_first": first, f"{kind}_{name}_second": second}


def _wiring(nodes: tuple[Node, ...]) -> Wiring:
    edges = [Edge(source, name, one) for name, node in zip(NODES, nodes, strict=True) for source, one in node]
    return Wiring((*INPUTS, *NODES), tuple(edges), INPUTS, NODES)


def _orders(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """The cell under every order of its nodes in which each comes behind its inputs."""
    found = []
    for order in permutations(range(len(NODES))):
        new = {
            **dict(zip(INPUTS, INPUTS, strict=True)),
            **{NODES[old]: name for name, old in zip(NODES, order, strict=True)},
        }
        moved = tuple(tuple(sorted((new[source], one) for source, one in nodes[old])) for old in order)
        if all(source < name for name, node in zip(NODES, moved, strict=True) for source, _ in node):
            found.append(moved)
    return found
