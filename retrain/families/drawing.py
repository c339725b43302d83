"""What a network looks like as a graph, free of torch and of how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SUM = "+"
"""What a node is that only sums what it gets."""


@dataclass(frozen=True)
class Drawing:
    """A directed graph without circles: what each node is, and edges as (from, to, operation). Nodes stand in
    topological order; an operation may be empty. `caption` says what the graph does not show. `operations` say what
    each node does, alike for nodes that do the same: empty where the network begins and ends, and for one that only
    sums what it gets; where none are given, all nodes are such.

    Raises `ValueError` for an edge of an unknown node, for one that runs against the order, and for operations that are
    not one a node.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]
    caption: str = ""
    operations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.operations and len(self.operations) != len(self.nodes):
            raise ValueError(f"expected an operation for each of {len(self.nodes)} nodes, got {self.operations}")
        for source, target, _ in self.edges:
            if not 0 <= source < target < len(self.nodes):
                raise ValueError(f"expected edges forward between {len(self.nodes)} nodes, got {source} to {target}")

    @classmethod
    def chain(cls, *nodes: str, caption: str = "") -> Drawing:
        """Nodes one after the other; those between the first and the last are operations."""
        edges = tuple((place, place + 1, "") for place in range(len(nodes) - 1))
        return cls(nodes, edges, caption, ("", *nodes[1:-1], ""))

    @classmethod
    def residual(
        cls, before: Sequence[str], blocks: Sequence[tuple[str, str]], behind: Sequence[str], caption: str = ""
    ) -> Drawing:
        """Nodes one after the other, blocks (branch, operation on the way around it), each with a sum, and the rest.

        >>> Drawing.residual(["inputs"], [("linear", "")], ["output"]).edges
        ((0, 1, ''), (1, 2, ''), (2, 3, ''), (0, 2, ''))
        """
        nodes = (*before, *(node for branch, _ in blocks for node in (branch, SUM)), *behind)
        plain = cls.chain(*nodes)
        starts = range(len(before) - 1, len(nodes), 2)
        around = tuple((start, start + 2, shortcut) for start, (_, shortcut) in zip(starts, blocks, strict=False))
        operations = tuple("" if node == SUM else one for node, one in zip(nodes, plain.operations, strict=True))
        return cls(nodes, (*plain.edges, *around), caption, operations)

    @classmethod
    def named(
        cls,
        nodes: tuple[str, ...],
        edges: Iterable[tuple[str, str, str]],
        caption: str = "",
        operations: tuple[str, ...] = (),
    ) -> Drawing:
        """The graph of edges between nodes of different names.

        >>> Drawing.named(("input", "output"), [("input", "output", "linear")]).edges
        ((0, 1, 'linear'),)
        """
        places = {name: place for place, name in enumerate(nodes)}
        if len(places) < len(nodes):
            raise ValueError(f"expected nodes of different names, got {nodes}")
        placed = tuple((places[source], places[target], label) for source, target, label in edges)
        return cls(nodes, placed, caption, operations)
