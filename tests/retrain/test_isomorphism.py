"""Which architectures are the same: known pairs, and all of NAS-Bench-201 where its table is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrain.families.base import Candidate
from retrain.families.catalogue import family_named
from retrain.families.cell import OPERATIONS, canonical_cell
from retrain.families.parameters import Choice
from retrain.search.defaults import DEFAULTS
from retrain.search.space import SearchSpace


def cell(digits: str) -> tuple[str, ...]:
    """A cell of NAS-Bench-201 by its digits, of the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3."""
    return tuple(OPERATIONS[int(digit)] for digit in digits)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("300000", "000000"),  # a node that nobody reads
        ("303400", "000400"),  # a chain that ends before the output
        ("300010", "030001"),  # nodes 1 and 2 change places
        ("230014", "320041"),  # so they do with two operations each
        ("100030", "000300"),  # a skip connection before an operation
        ("300010", "000300"),  # and behind it
        ("101001", "000100"),  # three skip connections in a row
        ("100110", "010101"),  # the input twice
        ("101322", "110322"),  # both nodes are the input
        ("210310", "120301"),
        ("300310", "330011"),  # two operations beside one another
        ("401011", "440011"),  # pooling has no weights: once or twice gives the same
        ("040002", "400020"),
    ],
)
def test_equal_cells_are_written_alike(one: str, other: str) -> None:
    assert canonical_cell(cell(one)) == canonical_cell(cell(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("000000", "000100"),  # no path, and a skip connection
        ("000100", "100110"),  # the input once, and twice
        ("000200", "000300"),
        ("301011", "330011"),  # one operation read twice has half of the weights of two
        ("204204", "204014"),  # as here, which NAS-Bench-201 calls one: 89.99 and 87.85 per cent on CIFAR-10
        ("302003", "203003"),  # the order of two operations
        ("302013", "302310"),
    ],
)
def test_other_cells_are_not(one: str, other: str) -> None:
    assert canonical_cell(cell(one)) != canonical_cell(cell(other))


def unfolded(text: str) -> str:
    """A cell as NAS-Bench-201 writes it, a sum of terms such as `((0)@skip+0)@conv`, without the terms that are applied
    to nothing ("#"), and with sums of sums in order. Both say the same: a sum does not depend on zeros and brackets."""
    terms, depth, begin = [], 0, 0
    for place, letter in enumerate([*text, "+"]):
        if letter == "+" and depth == 0:
            terms.append(text[begin:place])
            begin = place + 1
        depth += (letter == "(") - (letter == ")")
    kept = []
    for term in terms:
        inside, at, operation = term.rpartition("@")
        inner = unfolded(inside[1:-1]) if at else term
        if inner and inner != "#":
            kept.append(f"({inner})@{operation}" if at else term)
    return "+".join(sorted(kept))


def test_all_cells_of_the_benchmark_agree_with_its_classes() -> None:
    """Its 6,466 classes are strings of a cell unfolded to a tree. Some differ by terms that are zero, without which
    4,930 are left; some are one where a module is shared in one cell and there twice in the other. Cells that are
    written alike here are the same tree, and no others are told apart than those with shared modules."""
    folder = os.environ.get("EVERFIT_DATA")
    if folder is None:
        pytest.skip("EVERFIT_DATA names no folder with search/nasbench201.parquet")
    columns = ["arch", "canonical", "cifar10_test"]
    table = pd.read_parquet(Path(folder) / "search" / "nasbench201.parquet", columns=columns)
    table["written"] = ["".join(map(str, map(OPERATIONS.index, canonical_cell(cell(one))))) for one in table["arch"]]
    table["tree"] = table["canonical"].map(unfolded)
    counts = [table[name].nunique() for name in ("canonical", "tree", "written")]
    assert counts == [6_466, 4_930, 5_260]
    assert (table.groupby("written")["tree"].nunique() == 1).all()
    apart = table[table.groupby("tree")["written"].transform("nunique") > 1]
    shared = apart["written"].str.match("..[^0].[^0].")  # node 1 is read twice, the only one that can be
    assert shared.groupby(apart["tree"]).any().all()
    assert noise(table, "written") < noise(table, "canonical")


def noise(table: pd.DataFrame, by: str) -> float:
    """The standard deviation of the accuracy within classes."""
    groups = table.groupby(by)["cifar10_test"]
    left = table["cifar10_test"] - groups.transform("mean")
    return float(np.sqrt(left.pow(2).sum() / (len(table) - groups.ngroups)))


def canonical(family: str, **own: Choice) -> dict[str, Choice]:
    candidate = SearchSpace.of((family,), 420, 9, "binary").fit(Candidate(family=family, choices=own), DEFAULTS)
    assert candidate is not None
    return family_named(family).canonical(candidate.choices)


def graph(links: str, operations: str) -> dict[str, Choice]:
    """A graph by its connections, as in "12 25", and the operations of its nodes by their first letters."""
    names = {"n": "narrow", "w": "wide", "g": "gated", "a": "attention", "p": "pool"}
    chosen = {f"link_{i}_{j}": f"{i}{j}" in links for j in range(2, 6) for i in range(1, j)}
    return canonical("graph", **chosen, **{f"node_{k}": names[one] for k, one in enumerate(operations, start=1)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("12 25", "wgnnw"), ("14 45", "wnngw")),  # another number for the node between
        (("12 25", "wgapw"), ("12 25 13 45", "wgwww")),  # nodes on no path
        (("12 13 25 35", "wganw"), ("13 14 35 45", "wnagw")),
        (("12 23", "wgann"), ("15", "wpppn")),  # no path: from the first to the last
    ],
)
def test_equal_graphs_are_written_alike(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert graph(*one) == graph(*other)


def test_other_graphs_are_not() -> None:
    assert graph("12 25", "wgnnw") != graph("12 25", "wannw")
    assert graph("12 23 35", "wganw") != graph("12 23 35", "wagnw")
    assert graph("12 25", "wgnnw") != graph("12 25 15", "wgnnw")


def test_nodes_of_a_normal_cell_change_places() -> None:
    one: dict[str, Choice] = {"normal_3_inputs": "0,1", "normal_3_first": "wide", "normal_3_second": "pool"}
    other: dict[str, Choice] = {
        "normal_2_first": "wide",
        "normal_2_second": "pool",
        "normal_3_inputs": "0,1",
        "normal_3_first": "skip",
        "normal_3_second": "wide",
        "normal_4_inputs": "1,3",
    }
    assert canonical("darts", **one) == canonical("darts", **other)
    assert canonical("darts", **one) != canonical("darts", **{**other, "normal_4_inputs": "0,3"})
    assert canonical("darts", normal_4_inputs="1,2") != canonical("darts", normal_4_inputs="0,2")


def motif(letter: str, *operations: str) -> dict[str, Choice]:
    """A motif by its operations on 0-1, 0-2 and 1-2."""
    return {f"motif_{letter}_{edge}": one for edge, one in zip(("0_1", "0_2", "1_2"), operations, strict=True)}


A, B = ("wide", "narrow", "skip"), ("wide", "skip", "narrow")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (motif("c", "wide", "pool", "gated"), {}),  # it does not occur
        ({**motif("a", *B), **motif("b", *A), "join_0_1": "b", "join_1_2": "a"}, {}),  # other letters
        ({**motif("c", *A), "join_0_1": "c"}, {}),  # the same twice
        ({**motif("c", "skip", "none", "skip"), "join_1_3": "c"}, {"join_1_3": "skip"}),
        ({**motif("c", "wide", "none", "none"), "join_1_3": "c"}, {}),  # of no path
        (
            {**motif("c", "skip", "none", "wide"), "join_1_3": "c"},
            {**motif("c", "wide", "none", "skip"), "join_1_3": "c"},
        ),
        (
            {"join_1_2": "none", "join_1_3": "b"},
            {"join_0_1": "none", "join_0_2": "a", "join_1_2": "none", "join_2_3": "b"},
        ),
    ],
)
def test_equal_hierarchies_are_written_alike(one: dict[str, Choice], other: dict[str, Choice]) -> None:
    assert canonical("hierarchical", **one) == canonical("hierarchical", **other)


def test_other_hierarchies_are_not() -> None:
    plain = canonical("hierarchical")
    assert canonical("hierarchical", **motif("a", *B)) != plain
    assert canonical("hierarchical", join_1_3="a") != plain
    assert canonical("hierarchical", join_0_1="b", join_1_2="a") != plain
