"""Graphs of operations: what a cell is made of, before there is any module.

An operation sits on an edge; a node is the sum of what its edges bring. Where a space has its operations on nodes, a
node is two with an edge between them, and the others are plain wires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

NONE, SKIP, WIRE = "none", "skip", ""
"""No connection; what is there, as an operation that was chosen; what is there, as a plain connection."""

Path = tuple[str, ...]
Node = TypeVar("Node")


@dataclass(frozen=True)
class Edge:
    """An operation on its way from one node to another."""

    source: str
    target: str
    operation: str

    @property
    def name(self) -> str:
        """How its module is called, whatever its operation."""
        return f"{self.source}_{self.target}"

    @property
    def passes(self) -> bool:
        """Whether it gives what it gets."""
        return self.operation in (SKIP, WIRE)


@dataclass(frozen=True)
class Wiring:
    """A graph without circles: nodes in topological order, of which some are inputs and some outputs; its edges, of
    which those of operation "none" are not there."""

    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    sources: tuple[str, ...]
    sinks: tuple[str, ...]

    @classmethod
    def between(cls, nodes: Sequence[str], edges: Sequence[Edge]) -> Wiring:
        """From the first node to the last."""
        there = tuple(edge for edge in edges if edge.operation != NONE)
        return cls(tuple(nodes), there, (nodes[0],), (nodes[-1],))

    def live(self) -> Wiring:
        """Without what lies on no path from an input to an output: such an operation would never learn."""
        fed, read = set(self.sources), set(self.sinks)
        for node in self.nodes:
            fed |= {edge.target for edge in self.edges if edge.source == node and node in fed}
        for node in reversed(self.nodes):
            read |= {edge.source for edge in self.edges if edge.target == node and node in read}
        kept = (fed & read) | set(self.sources) | set(self.sinks)
        edges = tuple(edge for edge in self.edges if edge.source in fed and edge.target in read)
        return Wiring(tuple(node for node in self.nodes if node in kept), edges, self.sources, self.sinks)

    def joined(self) -> Wiring:
        """Its live part; a skip connection where no path joins input and output, so that a network still learns."""
        live = self.live()
        if live.edges:
            return live
        return Wiring(live.nodes, (Edge(self.sources[0], self.sinks[0], SKIP),), self.sources, self.sinks)

    def into(self, node: str) -> tuple[Edge, ...]:
        """The edges that end in a node."""
        return tuple(edge for edge in self.edges if edge.target == node)

    def paths(self, source: str) -> Iterator[Path]:
        """The operations along every path from an input to an output, wires left out."""
        found: dict[str, list[Path]] = {node: [] for node in self.nodes}
        found[source] = [()]
        for node in self.nodes:
            for edge in self.into(node):
                step = () if edge.operation == WIRE else (edge.operation,)
                found[node] += [(*before, *step) for before in found[edge.source]]
        for sink in self.sinks:
            yield from found[sink]


def pairs(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Every node with every earlier one, by the later node.

    >>> pairs("012")
    [('0', '1'), ('0', '2'), ('1', '2')]
    """
    return [(source, target) for place, target in enumerate(nodes) for source in nodes[:place]]
