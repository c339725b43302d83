"""Motifs of motifs (Liu et al. 2017, arXiv 1711.00436): small graphs of operations, and a graph whose edges are such
graphs. Three motifs of three nodes and a cell of four, where the paper has six of four and a cell of five: its
evolution took days on 200 GPUs, and a search here takes some dozens of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar

from retrain.families.isomorphism import WEIGHTLESS, Operations, normal_form, pruned
from retrain.families.modality import Modality
from retrain.families.parameters import Choice, Option
from retrain.families.spaces import CellSpace, operations_of
from retrain.families.wiring import NONE, SKIP, Edge, Wiring, pairs

MOTIFS = ("a", "b", "c")
INNER, OUTER = ("0", "1", "2"), ("0", "1", "2", "3")
JOINS = tuple(f"join_{source}_{target}" for source, target in pairs(OUTER))
EMPTY: Operations = (NONE, NONE, NONE)
PASSING: Operations = (NONE, SKIP, NONE)

Motifs = tuple[Operations, ...]


class Hierarchies(CellSpace):
    """A cell whose edges are motifs, small graphs of operations that recur in it."""

    name: ClassVar[str] = "hierarchical"
    paper: ClassVar[str] = "Liu et al. 2017"
    longest: ClassVar[int] = (len(INNER) - 1) * (len(OUTER) - 1)

    def graph_dimensions(self, modality: Modality) -> tuple[Option, ...]:
        """The operations of each motif, then the motif on each edge of the cell."""
        operations = (NONE, *operations_of(modality, skip=True))
        return (
            *(Option(name, operations) for motif in MOTIFS for name in _names(motif)),
            *(Option(join, (NONE, SKIP, *MOTIFS)) for join in JOINS),
        )

    def alphabet(self, modality: Modality) -> tuple[str, ...]:
        """All operations."""
        return operations_of(modality, skip=True)

    def canonical(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Motifs, and the cell of them, as `isomorphism.py` writes cells; motifs that are the same are one, those that
        do not occur are empty, and the order is the one that comes first. Cells that are one only when operations cross
        the border of a motif, as from behind a skip connection into it, stay apart."""
        motifs, joins = min(_orders(*_simplified(*_read(choices))))
        written: dict[str, Choice] = dict(zip(JOINS, joins, strict=True))
        for letter, motif in zip(MOTIFS, motifs, strict=True):
            written |= dict(zip(_names(letter), motif, strict=True))
        return {**super().canonical(choices), **written}

    def cell(self, choices: Mapping[str, Choice]) -> Wiring:
        """All operations in one graph: the inner node of the motif on edge 0-2, say, is called "0-2"."""
        motifs, joins = _read(choices)
        edges = [
            edge
            for (source, target), join in zip(pairs(OUTER), joins, strict=True)
            for edge in _unfolded(source, target, join, motifs)
        ]
        return Wiring.between(_nodes(), edges).joined()


def _names(motif: str) -> tuple[str, ...]:
    return tuple(f"motif_{motif}_{source}_{target}" for source, target in pairs(INNER))


def _nodes() -> list[str]:
    inner = {target: [f"{source}-{target}" for source in OUTER if source < target] for target in OUTER}
    return [name for target in OUTER for name in (*inner[target], target)]


def _read(choices: Mapping[str, Choice]) -> tuple[Motifs, Operations]:
    motifs = tuple(tuple(str(choices[name]) for name in _names(motif)) for motif in MOTIFS)
    return motifs, tuple(str(choices[join]) for join in JOINS)


def _unfolded(source: str, target: str, join: str, motifs: Motifs) -> list[Edge]:
    """The operations that an edge of the cell stands for."""
    if join not in MOTIFS:
        return [Edge(source, target, join)]
    names = dict(zip(INNER, (source, f"{source}-{target}", target), strict=True))
    motif = motifs[MOTIFS.index(join)]
    return [Edge(names[one], names[other], op) for (one, other), op in zip(pairs(INNER), motif, strict=True)]


def _simplified(motifs: Motifs, joins: Operations) -> tuple[Motifs, Operations]:
    """The motifs that occur, each once, in their normal form; and the cell, whose letters are their places."""
    forms = [normal_form(len(INNER), motif, WEIGHTLESS) for motif in motifs]
    meant: dict[str, str] = {NONE: NONE, SKIP: SKIP}
    for letter, form in zip(MOTIFS, forms, strict=True):
        meant[letter] = {EMPTY: NONE, PASSING: SKIP}.get(form, MOTIFS[forms.index(form)])
    cell = pruned(len(OUTER), [meant[join] for join in joins])
    used = [letter for letter in MOTIFS if letter in cell]
    return tuple(forms[MOTIFS.index(letter)] for letter in used), _renamed(cell, used)


def _renamed(cell: Operations, letters: Sequence[str]) -> Operations:
    """With the first of the motifs for the first of these letters, and so on."""
    new = dict(zip(letters, MOTIFS, strict=False))
    return tuple(new.get(one, one) for one in cell)


def _orders(motifs: Motifs, cell: Operations) -> list[tuple[Motifs, Operations]]:
    """The same under every order of its motifs, with empty ones behind them."""
    rest = (EMPTY,) * (len(MOTIFS) - len(motifs))
    return [
        (
            (*(motifs[place] for place in order), *rest),
            normal_form(len(OUTER), _renamed(cell, [MOTIFS[place] for place in order]), frozenset()),
        )
        for order in permutations(range(len(motifs)))
    ]
