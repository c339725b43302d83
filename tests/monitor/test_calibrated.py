"""The error of calibration over a window, beside what calibrated answers show by chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from monitor.calibrated import Calibration, binned, gap_of
from monitor.measurements import Measurement
from monitor.views import Side, View, reference_side
from registry.bundle import ModelBundle
from registry.metrics import calibration_error
from tests.handmade import make_frame
from tests.monitor.sides import side_of


def drawn(side: Side, rng: np.random.Generator, *, sharpened: float = 1.0) -> Side:
    """The same rows, their labels drawn from the answers; which are then brought away from even odds."""
    p = side.scores.scores
    labels = (rng.random(len(p)) < p[:, 1]).astype(np.int64)
    odds = np.log(p[:, 1] / p[:, 0]) * sharpened
    positive = 1 / (1 + np.exp(-odds))
    scores = dataclasses.replace(side.scores, probabilities=np.column_stack([1 - positive, positive]))
    return dataclasses.replace(side, labels=labels, scores=scores)


def measured(bundle: ModelBundle, window: Side, reference: Side) -> Measurement:
    return Calibration().measure(View(window, reference, bundle.manifest))[0]


@pytest.mark.parametrize("rows", [60, 600, 6_000])
def test_what_calibrated_answers_show_is_told_for_any_number_of_labels(bundle: ModelBundle, rows: int) -> None:
    rng, reference = np.random.default_rng(rows), reference_side(bundle)
    window = side_of(bundle, make_frame(rows, seed=1))
    found = [measured(bundle, drawn(window, rng), reference) for _ in range(40)]
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(np.mean([one.reference for one in found]), rel=0.15)
    assert 0.9 < np.mean([one.error for one in found]) / values.std(ddof=1) < 2.5  # of what cannot be less: too large


def test_overconfident_answers_stand_out(bundle: ModelBundle) -> None:
    rng, reference = np.random.default_rng(0), reference_side(bundle)
    plain = side_of(bundle, make_frame(2_000, seed=1))
    found = [measured(bundle, drawn(plain, rng, sharpened=4.0), reference) for _ in range(40)]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.35)
    one = measured(bundle, window := drawn(plain, rng, sharpened=4.0), reference)
    assert one.value == pytest.approx(calibration_error(window.labels, window.scores.scores), rel=0.1)  # other bins
    assert one.low > 2 * one.reference
    assert one.rows == 2_000
    known = calibration_error(reference.labels, reference.scores.scores)
    assert one.note == f"{known:.3f} on {len(reference):,} reference labels"


def test_rows_that_depend_on_one_another_show_more_by_chance(bundle: ModelBundle) -> None:
    """Labels of the reference that come in runs: a window of as many rows says less."""
    reference, window = reference_side(bundle), side_of(bundle, make_frame(400, seed=1))
    together = dataclasses.replace(reference, labels=np.resize(np.repeat([0, 1], 100), len(reference)))
    alone = binned(
        *gap_of(window.labels, window.scores.scores), np.zeros(len(window.labels), dtype=np.int64)
    ).by_chance()
    assert measured(bundle, window, reference).reference > alone  # in more bins
    assert measured(bundle, window, together).reference > 1.5 * measured(bundle, window, reference).reference


def test_few_labels_show_nothing(bundle: ModelBundle) -> None:
    window = side_of(bundle, make_frame(19, seed=1))
    one = measured(bundle, window, reference_side(bundle))
    assert (one.value, one.rows, one.note) == (None, 19, "fewer than 20 labels")
