"""All columns at once say what each of them says alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from monitor.binned import FEW, bins_of
from monitor.views import Side, View, reference_side
from registry.bundle import ModelBundle


def some(side: Side, rows: np.ndarray) -> Side:
    """Rows of a side of which all are its own, a third of their weights missing."""
    columns = side.inputs.iloc[rows].reset_index(drop=True)
    columns.loc[columns.index % 3 == 0, "weight"] = np.nan
    own, labels, labelled = side.own[rows], side.labels[rows], side.labelled[rows]
    return dataclasses.replace(
        side, columns=columns, own=own, scores=side.scores.take(rows), labels=labels, labelled=labelled
    )


@pytest.mark.parametrize("rows", [0, 1, 300, FEW + 1])
@pytest.mark.parametrize("gone", [False, True])
def test_columns_at_once_are_those_alone(bundle: ModelBundle, rows: int, gone: bool) -> None:
    reference = reference_side(bundle)
    window = some(reference, np.random.default_rng(rows).integers(0, len(reference), rows))
    if gone:
        window = dataclasses.replace(window, columns=window.inputs.assign(weight=np.nan))
    bins = bins_of(View(window, reference, bundle.manifest))
    counts = bins.count(window)
    assert {name: one.tolist() for name, one in counts.items()} == {
        name: known.count(window.column(name)).tolist() for name, known in bins.known.items()
    }
    alone = {name: known.distance(counts[name], doubt=0.001, stride=1.5) for name, known in bins.known.items()}
    assert bins.distances(counts, 0.001, 1.5) == alone
    assert (alone["weight"] is None) == (gone or rows < 2)
