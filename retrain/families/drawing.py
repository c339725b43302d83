"""What a network looks like as a graph, free of how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """A directed graph without circles: what each node is, and edges as (from, to, operation). Nodes stand in
    topological order; an operation may be empty."""

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]

    @classmethod
    def chain(cls, *nodes: str) -> Drawing:
        """Nodes one after the other."""
        return cls(nodes, tuple((place, place + 1, "") for place in range(len(nodes) - 1)))
