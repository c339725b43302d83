"""The gap between expected and realised performance: concept drift opens it, moved inputs do not, and a prior shift
closes it once the answers are adjusted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from monitor.estimated import Estimated, experience_of
from monitor.gap import MOST_ROWS, Gap, LogGap, Missed, PriorGap, adjust, class_shares, gap
from monitor.measurements import Measurement
from monitor.views import Side, View, reference_side
from registry.bundle import ModelBundle
from registry.metrics import METRICS
from registry.schema import Schema
from registry.scoring import Scores


def side_of(like: Side, p: np.ndarray, labels: np.ndarray) -> Side:
    """Binary rows with these probabilities and labels, in the form of another side's first rows."""
    both = np.column_stack([1 - p, p])
    n = len(p)
    scores = Scores(np.array(["no", "yes"], dtype=object)[(p > 0.5).astype(int)], p, 0 * p, probabilities=both)
    known = np.ones(n, dtype=bool)
    return dataclasses.replace(like, own=known, scores=scores, labels=labels.astype(np.int64), labelled=known)


def view_of(bundle: ModelBundle, p: np.ndarray, labels: np.ndarray, seed: int) -> View:
    """A window beside 4,000 calibrated reference rows."""
    rng, like = np.random.default_rng([seed, 1]), reference_side(bundle)
    known = rng.beta(2, 3, 4_000)
    reference = side_of(like, known, rng.random(4_000) < known)
    manifest = bundle.manifest
    estimate = manifest.reference.model_copy(update={"rows": len(like)})
    return View(side_of(like, p, labels), reference, manifest.model_copy(update={"reference": estimate}))


def only(made: list[Measurement]) -> Measurement:
    (one,) = made
    return one


def gaps(bundle: ModelBundle, kind: str) -> np.ndarray:
    """Gap, prior gap and gap of the log loss, each over its error, of 40 windows of 800 rows, (40, 3)."""
    out = []
    for seed in range(40):
        rng = np.random.default_rng([seed, 2])
        p = rng.beta(2, 3, 800) if kind != "covariate" else rng.beta(1, 1, 800)
        labels = rng.random(len(p)) < p
        if kind == "concept":
            labels = np.where(rng.random(800) < 0.4, ~labels, labels)
        if kind == "prior":  # positives three times as frequent, each class as it was
            kept = rng.random(800) < np.where(labels, 1.0, 1 / 3)
            p, labels = p[kept], labels[kept]
        view = view_of(bundle, p, labels, seed)
        made = [only(measure.measure(view)) for measure in (Gap(), PriorGap(), LogGap())]
        out.append([(one.value or 0.0) / (one.error or 1.0) for one in made])
    return np.array(out)


@pytest.mark.parametrize("kind", ["none", "covariate"])
def test_calibrated_answers_leave_no_gap(bundle: ModelBundle, kind: str) -> None:
    found = gaps(bundle, kind)[:, [0, 2]]
    assert np.abs(found.mean(axis=0)).max() < 0.5
    assert found.std(axis=0).max() < 1.3


def test_concept_drift_opens_all(bundle: ModelBundle) -> None:
    assert gaps(bundle, "concept").mean(axis=0).min() > 4


def test_a_prior_shift_opens_the_log_loss_and_adjusted_answers_close_it(bundle: ModelBundle) -> None:
    assert abs(gaps(bundle, "prior")[:, 1].mean()) < 1.0


def test_a_gap_counts_as_unlikely_only_when_it_is_worse(bundle: ModelBundle) -> None:
    p = np.random.default_rng(0).beta(2, 3, 800)
    sure = only(Gap().measure(view_of(bundle, p, p > 0.5, 0)))  # better than the answers promise
    assert sure.value is not None
    assert sure.value < 0
    assert (sure.p_value or 0) > 0.99


def test_what_the_estimate_missed_is_known_exactly_once_all_labels_are_there(bundle: ModelBundle) -> None:
    """With moved inputs and answers that are too sure: what is taken off for such rows is in it, and no test."""
    rng, made = np.random.default_rng(0), []
    for p in (rng.beta(4, 2, 800), rng.beta(2, 3, 4_000)):
        side = side_of(reference_side(bundle), p, rng.random(len(p)) < 0.3 + 0.4 * p)
        made.append(dataclasses.replace(side, columns=pd.DataFrame(index=range(len(p)))))
    window, reference = made
    manifest = bundle.manifest.model_copy(update={"data_schema": Schema(columns=())})
    view = View(window, reference, manifest)
    found, alone, gap = (only(measure.measure(view)) for measure in (Missed(), Estimated(), Gap()))
    metric = next(one for one in METRICS if one.name == manifest.task.metric)
    realised = metric.value(window.labels, window.scores.scores)
    assert found.value == pytest.approx(metric.gain(alone.value or 0.0, realised))
    assert abs((found.value or 0.0) - (gap.value or 0.0)) > 0.005
    assert (found.error, found.p_value) == (gap.error, None)


def test_of_a_large_window_some_rows_tell_the_gaps_of_the_log_loss(bundle: ModelBundle) -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(2, 3, 50_000)
    view = view_of(bundle, p, rng.random(len(p)) < p, 0)
    for measure in (LogGap(), PriorGap()):
        found = only(measure.measure(view))
        assert found.rows == MOST_ROWS
        assert abs(found.value or 1.0) < 4 * (found.error or 0.0)


def test_luck_that_lasts_leaves_the_bias_as_unsure_as_it_is(bundle: ModelBundle) -> None:
    """What a gap's error has beyond its noise is how unsure the bias is, however large that noise is."""
    rng = np.random.default_rng(0)
    like, metric = reference_side(bundle), next(one for one in METRICS if one.name == "log_loss")
    sides = []
    for n in (800, 4_000):
        odds = rng.normal(size=n)
        luck = np.repeat(rng.normal(size=n // 200), 200)
        sides.append(side_of(like, 1 / (1 + np.exp(-odds)), rng.random(n) < 1 / (1 + np.exp(-odds - luck))))
    estimate = bundle.manifest.reference.model_copy(update={"rows": 4_000})
    view = View(*sides, bundle.manifest.model_copy(update={"reference": estimate}))
    found, usual, known = only(LogGap().measure(view)), gap("gap", view, metric, sides[0]), experience_of(view, metric)
    assert (found.null_error or 0.0) > (usual.null_error or 0.0)
    beyond = (found.error or 0.0) ** 2 - (found.null_error or 0.0) ** 2
    assert beyond == pytest.approx(known.bias_error**2)


def test_without_labels_there_is_none(bundle: ModelBundle) -> None:
    view = view_of(bundle, np.full(50, 0.3), np.zeros(50), 0)
    bare = dataclasses.replace(view.window, labelled=np.zeros(50, dtype=bool))
    for measure in (Gap(), LogGap(), PriorGap()):
        assert only(measure.measure(dataclasses.replace(view, window=bare))).value is None


def test_adjusted_answers_sum_to_one_and_follow_the_shares(bundle: ModelBundle) -> None:
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    scores = Scores(np.array(["no", "no"], dtype=object), p[:, 0], p[:, 0], probabilities=p)
    assert adjust(scores, np.array([0.5, 1.5])).scores.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert adjust(scores, np.array([0.0, 2.0])).scores.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    side = side_of(reference_side(bundle), np.array([0.2, 0.8, 0.8, 0.9]), np.array([0, 1, 1, 1]))
    assert class_shares(side) == pytest.approx([0.25, 0.75])


def test_a_reference_too_small_to_tell_the_law_makes_nothing_unlikely(bundle: ModelBundle) -> None:
    p = np.random.default_rng(0).beta(2, 3, 800)
    view = view_of(bundle, p, np.random.default_rng(1).random(800) < p, 0)
    few = view.reference.labelled & (np.arange(4_000) < 60)
    found = only(Gap().measure(dataclasses.replace(view, reference=dataclasses.replace(view.reference, labelled=few))))
    assert found.value is not None
    assert found.p_value is None
