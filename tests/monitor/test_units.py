"""A column in another unit is a fault of the data; a column that moved is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from monitor.measurements import Measurement
from monitor.units import CONVERSIONS, Conversion, Rescaled
from monitor.views import View, reference_side
from registry.bundle import ModelBundle
from registry.schema import NumericColumn, Schema


@pytest.mark.parametrize("one", CONVERSIONS, ids=lambda one: one.name)
def test_undoing_brings_the_numbers_back(one: Conversion) -> None:
    values = np.array([-3.0, 0.0, 1.0, 1e4])
    assert one.undo(one.factor * values + one.offset) == pytest.approx(values)


def test_conversions_are_all_different() -> None:
    assert len({(one.factor, one.offset) for one in CONVERSIONS}) == len(CONVERSIONS)


def rescaled(view: View, change: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    """What the measure says of `amount` once it is changed: normal, about 0 in the reference."""
    side = view.reference
    inputs = side.inputs.assign(amount=change(side.inputs["amount"].to_numpy() + 4))
    known = dataclasses.replace(side, columns=side.inputs.assign(amount=side.inputs["amount"] + 4))
    made = Rescaled().measure(View(dataclasses.replace(side, columns=inputs), known, view.manifest))
    return next(one for one in made if one.subject == "amount")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda x: 1.609344 * x, "miles as kilometres"),
        (lambda x: x / 1.609344, "miles as kilometres, undone"),
        (lambda x: 1.8 * x + 32, "degrees Celsius as Fahrenheit"),
        (lambda x: 100 * x, "times 100"),
    ],
)
def test_a_converted_column_is_named(bundle: ModelBundle, change: Callable, note: str) -> None:
    side = reference_side(bundle)
    found = rescaled(View(side, side, bundle.manifest), change)
    assert found.note == note
    assert (found.value or 0) > 0.25
    assert (found.p_value if found.p_value is not None else 1) < 1e-6


@pytest.mark.parametrize("moved", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_column_that_moved_is_not_taken_for_a_converted_one(bundle: ModelBundle, moved: float) -> None:
    side = reference_side(bundle)
    found = rescaled(View(side, side, bundle.manifest), lambda x: x + moved)
    assert (found.value, found.p_value) == (0.0, 1.0)


def test_one_of_many_columns_that_moved_looks_converted_by_chance(bundle: ModelBundle) -> None:
    side, names = reference_side(bundle), [f"sensor {number}" for number in range(20)]
    columns = tuple(NumericColumn(name=name, low=0.0, high=9.0, missing=0.0) for name in names)
    manifest = bundle.manifest.model_copy(update={"data_schema": Schema(columns=columns)})
    values = 4 + np.random.default_rng(0).normal(size=(len(side), 20))
    known = dataclasses.replace(side, columns=pd.DataFrame(values, columns=names))
    for moved, believed in ((1.0, True), (1.35, False)):
        now = pd.DataFrame(values * [1.609344, *[moved] * 19], columns=names)
        made = Rescaled().measure(View(dataclasses.replace(side, columns=now), known, manifest))
        assert [one.subject for one in made if (one.value or 0) > 0] == names[:believed]


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_a_column_that_stood_still_tells_no_unit(bundle: ModelBundle, share: float) -> None:
    """Whatever it becomes, some conversion brings that into the bin of its one value."""
    side = reference_side(bundle)
    still = np.arange(len(side)) < share * len(side)
    inputs = side.inputs.assign(amount=np.where(still, -3.9, side.inputs["amount"]))
    view = View(dataclasses.replace(side, columns=inputs), dataclasses.replace(side, columns=inputs), bundle.manifest)
    found = rescaled(view, lambda x: np.where(still, 1.7 * x, x))
    assert (found.value, found.p_value) == (0.0, 1.0)
