"""An architecture as a graph to be drawn, free of torch and of any picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """Nodes in topological order, and edges (from, to, label) between them, at most one for each pair.

    >>> Drawing(("input", "output"), (("input", "output", "linear"),)).caption
    ''

    Raises `ValueError` for a node named twice, an edge of an unknown node, two edges of one pair, and one that runs
    against the order.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str, str], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        places = {name: place for place, name in enumerate(self.nodes)}
        if len(places) < len(self.nodes):
            raise ValueError(f"expected nodes of different names, got {self.nodes}")
        for source, target, _ in self.edges:
            if not {source, target} <= places.keys():
                raise ValueError(f"expected an edge between two of {self.nodes}, got {source!r} to {target!r}")
            if places[source] >= places[target]:
                raise ValueError(f"expected edges that follow the order {self.nodes}, got {source!r} to {target!r}")
        if len({edge[:2] for edge in self.edges}) < len(self.edges):
            raise ValueError(f"expected at most one edge between two nodes, got {self.edges}")


def in_line(labels: Sequence[str], caption: str = "") -> Drawing:
    """One node after the other, an edge of each label between them.

    >>> in_line(["linear 64", "linear"]).nodes
    ('input', '1', 'output')
    """
    nodes = ("input", *(str(place) for place in range(1, len(labels))), "output")
    return Drawing(nodes, tuple(zip(nodes[:-1], nodes[1:], labels, strict=True)), caption)
