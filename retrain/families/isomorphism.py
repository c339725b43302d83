"""Which cells of operations on edges compute the same, and the one way to write each.

Two cells are the same when they are one graph of modules: what lies on no path from input to output is left out, a skip
connection is no operation, the order of nodes does not count, and an operation without weights gives the same wherever
it gets the same. A module that two paths share is not two modules: unlike the strings of NAS-Bench-201 (Dong & Yang
2020), which write a cell as a tree, cells with different numbers of weights stay apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby, permutations, product

from retrain.families.wiring import NONE, SKIP, pairs

WEIGHTLESS = frozenset({"pool", "max"})
"""Operations without weights."""
Operations = tuple[str, ...]
"""An operation for each pair of nodes, by the later node: 0-1, 0-2, 1-2, 0-3, ..."""
Term = tuple[str, tuple[int, ...]]
"""An operation and what it is applied to: the sum of the terms of these numbers, of which 0 is the cell's input."""


def signature(nodes: int, operations: Sequence[str], weightless: frozenset[str]) -> tuple[object, ...]:
    """Equal for two cells of so many nodes if and only if they are the same. Cells whose input and output no path joins
    are."""
    terms, output = _terms(nodes, pruned(nodes, operations), weightless)
    unfolded = ["0"]
    for operation, inputs in terms:
        unfolded.append(f"({'+'.join(sorted([unfolded[one] for one in inputs]))}){operation}")
    order = sorted(range(1, len(unfolded)), key=unfolded.__getitem__)
    if len(set(unfolded)) == len(unfolded):
        return _written(terms, output, order)
    ties = [list(permutations(group)) for _, group in groupby(order, key=unfolded.__getitem__)]
    return min(_written(terms, output, [one for group in tie for one in group]) for tie in product(*ties))


def pruned(nodes: int, operations: Sequence[str]) -> Operations:
    """With "none" for what lies on no path from the first node to the last.

    >>> pruned(3, ("wide", "skip", "none"))
    ('none', 'skip', 'none')
    """
    edges = [(*pair, one) for pair, one in zip(pairs(range(nodes)), operations, strict=True)]
    fed, read = {0}, {nodes - 1}
    for source, target, one in edges:  # by target: a source is known before it is asked for
        if one != NONE and source in fed:
            fed.add(target)
    for source, target, one in reversed(edges):
        if one != NONE and target in read:
            read.add(source)
    return tuple(one if source in fed and target in read else NONE for source, target, one in edges)


def _terms(nodes: int, operations: Operations, weightless: frozenset[str]) -> tuple[list[Term], tuple[int, ...]]:
    """The terms of a pruned cell, each after those it is applied to, and the numbers of those that its output sums."""
    terms: list[Term] = []
    values: list[list[int]] = [[0], *([] for _ in range(nodes - 1))]
    for (source, target), one in zip(pairs(range(nodes)), operations, strict=True):
        if one == SKIP:
            values[target] += values[source]
        elif one != NONE:
            values[target].append(_number((one, tuple(sorted(values[source]))), terms, weightless))
    return terms, tuple(values[-1])


def _number(term: Term, terms: list[Term], weightless: frozenset[str]) -> int:
    if term[0] in weightless and term in terms:
        return terms.index(term) + 1
    terms.append(term)
    return len(terms)


def _written(terms: list[Term], output: tuple[int, ...], order: Sequence[int]) -> tuple[object, ...]:
    places = {0: 0, **{number: place for place, number in enumerate(order, start=1)}}
    lines = [(terms[number - 1][0], *sorted(places[one] for one in terms[number - 1][1])) for number in order]
    return (*lines, ("output", *sorted(places[one] for one in output)))


@cache
def normal_forms(nodes: int, alphabet: Operations, weightless: frozenset[str]) -> Mapping[Operations, Operations]:
    """Every cell of so many nodes over an alphabet, with the first cell that is the same, in the alphabet's order.
    Making it takes a second for four nodes and five letters, once in a process."""
    first: dict[tuple[object, ...], Operations] = {}
    forms: dict[Operations, Operations] = {}
    for operations in product(alphabet, repeat=len(pairs(range(nodes)))):
        forms[operations] = first.setdefault(signature(nodes, operations, weightless), operations)
    return forms


def normal_form(nodes: int, operations: Operations, weightless: frozenset[str]) -> Operations:
    """The one way to write a cell, over no operations but its own."""
    operations = pruned(nodes, operations)
    alphabet = (NONE, SKIP, *sorted(set(operations) - {NONE, SKIP}))
    return normal_forms(nodes, alphabet, weightless)[operations]
