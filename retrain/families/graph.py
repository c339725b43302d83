"""Graphs with skip connections: an operation on each of five nodes, and any of the ten connections that lead forward
(as in NAS-Bench-101, Ying et al. 2019, arXiv 1902.09635: an upper triangular matrix and a label for each node)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import ClassVar

from retrain.families.drawing import Drawing
from retrain.families.modality import Modality
from retrain.families.parameters import Choice, Option
from retrain.families.spaces import CellSpace, operations_of, template_caption
from retrain.families.wiring import NONE, SKIP, WIRE, Edge, Wiring, pairs

NODES = ("1", "2", "3", "4", "5")
FIRST, LAST = NODES[0], NODES[-1]
UNUSED = "narrow"
"""The operation of a node that is on no path, in the one way it is written."""

Links = frozenset[tuple[str, str]]


class Graphs(CellSpace):
    """A graph of five operations with skip connections, from the first to the last."""

    name: ClassVar[str] = "graph"
    paper: ClassVar[str] = "Ying et al. 2019"
    longest: ClassVar[int] = len(NODES)

    def graph_dimensions(self, modality: Modality) -> tuple[Option, ...]:
        """Whether a node is connected with a later one, and the operations. A skip is a connection here, and none its
        absence."""
        return (
            *(Option(f"link_{source}_{target}", (False, True)) for source, target in pairs(NODES)),
            *(Option(f"node_{node}", operations_of(modality, skip=False)) for node in NODES),
        )

    def alphabet(self, modality: Modality) -> tuple[str, ...]:
        """All but skip connections."""
        return operations_of(modality, skip=False)

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Nodes on no path left out, the others in the first of the orders that their connections allow."""
        links = _links(choices)
        used = {node for link in links for node in link}
        operations = {node: str(choices[f"node_{node}"]) if node in used else UNUSED for node in NODES}
        written = min(_orders(links, operations))
        names = [f"link_{source}_{target}" for source, target in pairs(NODES)] + [f"node_{node}" for node in NODES]
        return {**super().canonical(choices), **dict(zip(names, (*written[0], *written[1]), strict=True))}

    def cell(self, choices: Mapping[str, Choice]) -> Wiring:
        """A node is two here, before and behind its operation: "2" and "2o"."""
        edges = [Edge(node, f"{node}o", str(choices[f"node_{node}"])) for node in NODES]
        edges += [Edge(f"{source}o", target, WIRE) for source, target in sorted(_links(choices))]
        return Wiring.between([name for node in NODES for name in (node, f"{node}o")], edges).live()

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """A node for each operation; connections past others that lead to the same node are told as skips."""
        links = _links(choices)
        past = _past_others(links)
        used = {node for link in links for node in link}
        operations = {node: str(choices[f"node_{node}"]) for node in NODES if node in used}
        names = {node: f"{node} {one}" for node, one in operations.items()}
        edges = ((names[one], names[other], SKIP * ((one, other) in past)) for one, other in sorted(links))
        return Drawing.named(
            tuple(names.values()), edges, template_caption(choices), operations=tuple(operations.values())
        )


def _past_others(links: Links) -> Links:
    """The connections between nodes that others join, too."""
    joined = set(links)
    for node in NODES:
        joined |= {(one, other) for one, here in joined if here == node for there, other in joined if there == node}
    return frozenset(
        (one, other) for one, other in links if any({(one, node), (node, other)} <= joined for node in NODES)
    )


def _links(choices: Mapping[str, Choice]) -> Links:
    """The connections on a path from the first node to the last; one from the first to the last where there is none."""
    chosen = [Edge(*pair, SKIP if choices[f"link_{pair[0]}_{pair[1]}"] else NONE) for pair in pairs(NODES)]
    return frozenset((edge.source, edge.target) for edge in Wiring.between(NODES, chosen).joined().edges)


def _orders(links: Links, operations: Mapping[str, str]) -> list[tuple[tuple[bool, ...], tuple[str, ...]]]:
    """The graph under every order of its inner nodes in which all connections lead forward."""
    found = []
    for inner in permutations(NODES[1:-1]):
        order = (FIRST, *inner, LAST)
        if all(order.index(source) < order.index(target) for source, target in links):
            matrix = tuple(pair in links for pair in pairs(order))
            found.append((matrix, tuple(operations[node] for node in order)))
    return found
