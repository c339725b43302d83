"""The correction follows the kind of rows a window has, as far as the reference has met it, or is constant."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from monitor.estimated import Estimated
from monitor.measurements import Measurement
from monitor.ratio import MOST_WEIGHT, SAMPLE, Known, importance
from monitor.values import spaced
from monitor.views import Side, View
from monitor.weighted import LEAST_ROWS, correct, learn
from registry.bundle import Estimate, ModelBundle
from tests.handmade import make_task
from tests.monitor.test_estimated import side_of

ROWS = 3_000


def rows_of(shift: float, rows: int, seed: int, twist: float = 1.5) -> Side:
    """Binary rows whose answers are unsure by far too much where `amount` is high, and sure by too much where it is
    low; `shift` moves `amount`, and nothing else. `twist` is by how much."""
    rng = np.random.default_rng(seed)
    amount, logit = rng.normal(shift, 1.0, rows), rng.normal(size=rows)
    p = 1 / (1 + np.exp(-logit))
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit * np.exp(twist * np.tanh(amount))))).astype(np.int64)
    side = side_of(np.column_stack([1 - p, p]), labels)
    return dataclasses.replace(side, columns=pd.DataFrame({"amount": amount}))


def view_of(bundle: ModelBundle, window: Side, reference: Side) -> View:
    known = Estimate(value=0.0, error=0.0, rows=len(reference))
    changes = {"task": make_task("binary", metric="accuracy"), "reference": known}
    return View(window, reference, bundle.manifest.model_copy(update=changes))


def accuracy(side: Side) -> float:
    return float((side.scores.scores.argmax(axis=1) == side.labels).mean())


def estimate(view: View) -> Measurement:
    (found,) = Estimated().measure(view)
    return found


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_a_bias_that_differs_by_kind_of_row_follows_a_shift(bundle: ModelBundle, shift: float) -> None:
    window, reference = rows_of(shift, ROWS, 1), rows_of(0.0, ROWS, 2)
    found, true = estimate(view_of(bundle, window, reference)), accuracy(window)
    constant = float(window.scores.scores.max(axis=1).mean() - reference.scores.scores.max(axis=1).mean())
    off = abs(accuracy(reference) + constant - true)
    assert off > 0.03
    assert abs((found.value or 0.0) - true) < 0.4 * off


@pytest.mark.parametrize("twist", [0.0, 1.5])
def test_without_a_shift_it_is_the_constant(bundle: ModelBundle, twist: float) -> None:
    window, reference = rows_of(0.0, ROWS, 1, twist), rows_of(0.0, ROWS, 2, twist)
    found = estimate(view_of(bundle, window, reference))
    constant = float(window.scores.scores.max(axis=1).mean() - reference.scores.scores.max(axis=1).mean())
    assert found.value == pytest.approx(accuracy(reference) + constant, abs=0.5 * (found.error or 0.0))


def test_trees_are_kept_only_if_they_foretell(bundle: ModelBundle) -> None:
    side, rng = rows_of(0.0, ROWS, 1), np.random.default_rng(0)
    view, rows, amount = view_of(bundle, side, side), np.arange(ROWS), side.inputs["amount"].to_numpy()
    assert learn(view, rows, rng.normal(size=ROWS)).model is None
    foretold = learn(view, rows, np.sin(amount) + rng.normal(size=ROWS))
    assert foretold.model is not None
    assert foretold.left.std() < 1.1 < np.std(np.sin(amount) + rng.normal(size=ROWS))


def test_few_rows_have_one_constant(bundle: ModelBundle) -> None:
    side = rows_of(0.0, LEAST_ROWS - 1, 1)
    view, corrections = view_of(bundle, rows_of(1.0, 50, 2), side), np.linspace(0, 1, LEAST_ROWS - 1)
    found = correct(view, learn(view, np.arange(LEAST_ROWS - 1), corrections))
    assert (found.value, found.effective) == (pytest.approx(0.5), 1.0)


def test_weights_that_lean_on_a_few_rows_count_little() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(1, 2_000))
    near, share_near = importance(Known(before), rng.normal(size=(1, SAMPLE)))
    far, share_far = importance(Known(before), rng.normal(4.0, size=(1, SAMPLE)))
    assert share_near > 0.98
    assert share_far < 0.4
    assert near.std() < 0.15
    assert far.max() <= MOST_WEIGHT * 3
    assert far.mean() == pytest.approx(1.0)
    assert far.min() >= 1 - share_far - 1e-9


@pytest.mark.parametrize("shift", [0.0, 2.0, 8.0])
@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_scores_are_added_up_as_if_each_was_cut(shift: float, spread: float) -> None:
    """Missing values in the middle, none far out: as the rows that the weights are learnt from have it."""
    rng = np.random.default_rng(0)
    columns = np.array([rng.normal(size=3_000), rng.standard_t(2, 3_000), np.ones(3_000), np.full(3_000, np.nan)])
    columns[:2, ::7] = np.nan
    place, spreads, weights = (
        np.array([shift, -shift, shift, 0.0]),
        np.array([spread, spread, 0.0, 0.0]),
        np.arange(1.0, 5.0),
    )
    known, unit = Known(columns), np.where(spreads > 0, spreads, 1.0)
    scores = np.nan_to_num(np.clip((columns - place[:, None]) / unit[:, None], -4.0, 4.0))
    scale = known.scale(place, spreads)
    assert known.weighed(scale, weights) == pytest.approx(weights @ scores, abs=1e-12)
    known.sample(scale, out := np.empty((4, SAMPLE)))
    assert out == pytest.approx(scores[:, spaced(3_000, SAMPLE)], abs=1e-12)


def test_missing_values_and_constant_columns_are_no_accident() -> None:
    before = np.array([np.full(900, np.nan), np.ones(900), np.r_[np.nan, np.arange(899.0)]])
    weights, share = importance(Known(before), before[:, :1])
    assert np.isfinite(weights).all()
    assert 0 < share <= 1


@pytest.mark.parametrize("rows", [1, 2, 10])
def test_a_window_of_few_rows_is_no_accident(bundle: ModelBundle, rows: int) -> None:
    found = estimate(view_of(bundle, rows_of(0.0, rows, 1), rows_of(0.0, ROWS, 2)))
    assert found.value is not None


def test_a_column_without_any_value_in_the_reference_is_no_accident(bundle: ModelBundle) -> None:
    """It vanished before the rows that the model was tested on."""
    window, reference = rows_of(1.0, ROWS, 1), rows_of(0.0, ROWS, 2)
    plain = estimate(view_of(bundle, window, reference))
    emptied = [dataclasses.replace(one, columns=one.inputs.assign(weight=np.nan)) for one in (window, reference)]
    assert estimate(view_of(bundle, *emptied)).value == pytest.approx(plain.value, abs=0.01)
