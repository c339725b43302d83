"""The estimate without labels: unbiased when the answers are calibrated, its interval true, and blind to concept drift.

The interval is for the realised metric of the very rows that were estimated, once their labels are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from monitor import weighted
from monitor.estimated import LEAST_LABELS, Estimated, binary_auc, expected, experience
from monitor.measurements import Measurement
from monitor.views import Side, View, reference_side, window_side
from registry.bundle import Estimate, ModelBundle
from registry.inference_log import InferenceLog
from registry.metrics import METRICS, Metric, Problem, metrics_for
from registry.scoring import Scores
from tests.handmade import make_frame, make_task
from tests.monitor.logged import write_rows

PROBLEMS: tuple[Problem, ...] = ("binary", "multiclass", "regression")
CASES = [(problem, metric) for problem in PROBLEMS for metric in METRICS if problem in metric.problems]
DRAWS, WINDOW, REFERENCE = 120, 1_000, 1_500


@pytest.fixture(autouse=True)
def one_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """These references tell of one bias; what tells kinds of rows apart has tests of its own, in `test_weighted.py`."""
    monkeypatch.setattr(weighted, "LEAST_ROWS", 10**9)


BundleOf = Callable[[Problem], ModelBundle]
ViewOf = Callable[..., View]

over_all = pytest.mark.parametrize(("problem", "metric"), CASES, ids=lambda one: getattr(one, "name", one))
over_problems = pytest.mark.parametrize("problem", PROBLEMS)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(n, k) logits as probabilities."""
    powers: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def side_of(scores: np.ndarray, labels: np.ndarray, spread: np.ndarray | None = None, days: int = 0) -> Side:
    """Rows of which only answers and labels matter: (n, k) probabilities, or (n,) numbers with their spread. With
    `days`, consecutive rows are of one day each."""
    n, hole = len(scores), np.zeros(len(scores))
    if scores.ndim == 2:
        outputs = Scores(scores.argmax(axis=1).astype(object), hole, hole, probabilities=scores)
    else:
        outputs = Scores(scores, hole if spread is None else spread, hole)
    inputs = pd.DataFrame(index=pd.RangeIndex(n))
    if days:
        inputs["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n) * days // max(n, 1), unit="D")
    return Side(inputs, np.ones(n, dtype=bool), outputs, labels, np.ones(n, dtype=bool))


def draw(
    problem: Problem,
    rows: int,
    rng: np.random.Generator,
    *,
    sure: float = 1.5,
    served: float = 1.0,
    luck: float = 0.0,
    days: int = 0,
) -> Side:
    """Rows whose labels come from the answers' own distribution.

    The larger `sure`, the easier the rows. The answers served are `served` times as sure as is right: 1 is calibrated.
    `luck` is the standard deviation of what all rows of a day have in common and no answer knows.
    """
    day = np.arange(rows) * days // max(rows, 1)
    common = luck * rng.normal(size=max(days, 1))[day]
    if problem == "regression":
        spread = rng.gamma(4, 0.25, rows) / sure
        answers = 2 * rng.normal(size=rows)
        labels = answers + spread * (common + rng.normal(size=rows))
        return side_of(answers, labels, spread / served, days)
    k = 2 if problem == "binary" else 3
    logits = sure * rng.normal(size=(rows, k)) - 0.4 * np.arange(k)
    lucky = logits + common[:, None] * np.linspace(-1, 1, k)
    labels = (softmax(lucky).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return side_of(softmax(served * logits), labels, days=days)


def unlabelled(side: Side) -> Side:
    """The same rows before any label has come."""
    nothing = np.zeros(len(side.scores), dtype=bool)
    return dataclasses.replace(side, labels=np.full_like(side.labels, -1), labelled=nothing)


def realised(metric: Metric, side: Side) -> float:
    return metric.value(side.labels, side.scores.scores)


@pytest.fixture
def view_of(bundle_of: BundleOf) -> ViewOf:
    """A view of two sides, the window's labels withheld."""

    def make(problem: Problem, metric: Metric, window: Side, reference: Side, *, served: int = 0) -> View:
        known = Estimate(value=0.0, error=0.0, rows=max(served, len(reference)))
        changes = {"task": make_task(problem, metric=metric.name), "reference": known}
        return View(unlabelled(window), reference, bundle_of(problem).manifest.model_copy(update=changes))

    return make


def estimated(view: View) -> Measurement:
    (found,) = Estimated().measure(view)
    assert found.name == "estimated"
    return found


def number(value: float | None) -> float:
    """A number that must be there."""
    assert value is not None
    return value


@dataclasses.dataclass(frozen=True)
class Repeated:
    """The measure on many windows, each with a reference of its own: the gap between estimate and truth, (n,), and
    whether the truth was inside the interval, (n,)."""

    gaps: np.ndarray
    inside: np.ndarray

    @property
    def bias(self) -> float:
        """Mean gap in standard errors."""
        return float(self.gaps.mean() / (self.gaps.std(ddof=1) / np.sqrt(len(self.gaps))))


def repeat(metric: Metric, one: Callable[[np.random.Generator], tuple[View, Side]]) -> Repeated:
    """`one` makes a view, and its window with the labels."""
    rng, gaps, inside = np.random.default_rng(0), [], []
    for _ in range(DRAWS):
        view, window = one(rng)
        found, true = estimated(view), realised(metric, window)
        gaps.append(number(found.value) - true)
        inside.append(number(found.low) <= true <= number(found.high))
    return Repeated(np.array(gaps), np.array(inside))


@over_all
def test_calibrated_answers_give_an_unbiased_estimate_and_a_true_interval(
    view_of: ViewOf, problem: Problem, metric: Metric
) -> None:
    def one(rng: np.random.Generator) -> tuple[View, Side]:
        window, reference = draw(problem, WINDOW, rng), draw(problem, REFERENCE, rng)
        return view_of(problem, metric, window, reference), window

    found = repeat(metric, one)
    assert abs(found.bias) < 3
    assert 0.9 <= found.inside.mean() <= 0.99


@over_all
def test_without_reference_labels_it_is_the_plain_expectation(
    view_of: ViewOf, problem: Problem, metric: Metric
) -> None:
    nothing = draw(problem, 0, np.random.default_rng(0))

    def one(rng: np.random.Generator) -> tuple[View, Side]:
        window = draw(problem, WINDOW, rng)
        return view_of(problem, metric, window, nothing), window

    found = repeat(metric, one)
    assert abs(found.bias) < 3
    assert 0.9 <= found.inside.mean() <= 0.99
    view, window = one(np.random.default_rng(1))
    plain = estimated(view)
    assert plain.value == pytest.approx(expected(metric, window.scores).value)
    assert "no bias is taken off" in plain.note
    assert plain.reference is None


def pairwise_auc(p: np.ndarray) -> float:
    """The definition, pair by pair."""
    above, below = 0.0, 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                weight = p[i] * (1 - p[j])
                above += weight * ((p[i] > p[j]) + 0.5 * (p[i] == p[j]))
                below += weight
    return above / below


@pytest.mark.parametrize("digits", [1, 2, 15], ids="{} digits".format)
def test_expected_auc_is_its_definition(digits: int) -> None:
    p = np.random.default_rng(digits).random(50).round(digits)
    assert (len(np.unique(p)) < 50) == (digits < 15)
    value, pulls = binary_auc(p)
    assert value == pytest.approx(pairwise_auc(p), abs=1e-12)
    assert (p * pulls[:, 1] + (1 - p) * pulls[:, 0]).mean() == pytest.approx(0, abs=1e-12)


def test_expected_auc_of_several_classes_is_the_mean_of_one_against_the_rest() -> None:
    side = draw("multiclass", 50, np.random.default_rng(0))
    p = side.scores.scores
    assert expected(metrics_for("multiclass")["auc"], side.scores).value == pytest.approx(
        np.mean([pairwise_auc(p[:, k]) for k in range(3)])
    )


@over_all
def test_noise_and_influence_are_those_of_simulation(problem: Problem, metric: Metric) -> None:
    """`noise`: labels drawn again and again for the same rows. `influence`: one row counted twice."""
    rng = np.random.default_rng(0)
    side = draw(problem, 400, rng)
    found = expected(metric, side.scores)
    p, values = side.scores.scores, []
    for _ in range(400):
        if problem == "regression":
            labels = p + side.scores.uncertainty * rng.normal(size=400)
        else:
            labels = (p.cumsum(axis=1) < rng.random((400, 1))).sum(axis=1)
        values.append(metric.value(labels, p))
    assert found.noise == pytest.approx(np.std(values), rel=0.15)
    assert found.influence.mean() == pytest.approx(0, abs=1e-9)
    for row in range(0, 400, 100):
        twice = expected(metric, side.scores.take(np.r_[np.arange(400), row])).value
        assert 401 * (twice - found.value) == pytest.approx(
            found.influence[row], rel=0.05, abs=0.02 * found.influence.std()
        )


@over_all
@pytest.mark.parametrize("sure", [0.7, 3.0], ids=["harder", "easier"])
def test_it_follows_rows_that_became_harder_or_easier(
    view_of: ViewOf, problem: Problem, metric: Metric, sure: float
) -> None:
    def one(rng: np.random.Generator) -> tuple[View, Side]:
        window, reference = draw(problem, WINDOW, rng, sure=sure), draw(problem, REFERENCE, rng)
        return view_of(problem, metric, window, reference), window

    found = repeat(metric, one)
    assert abs(found.bias) < 3
    assert found.inside.mean() >= 0.9
    view, window = one(np.random.default_rng(1))
    moved = estimated(view)
    before, now = number(moved.reference), realised(metric, window)
    assert abs(now - before) > 4 * number(moved.error)
    assert abs(number(moved.value) - now) < 0.2 * abs(now - before)


@over_all
@pytest.mark.parametrize("served", [0.5, 2.0], ids=["too unsure", "too sure"])
def test_a_model_that_was_never_calibrated_is_corrected(
    view_of: ViewOf, problem: Problem, metric: Metric, served: float
) -> None:
    def one(rng: np.random.Generator) -> tuple[View, Side]:
        window, reference = (draw(problem, rows, rng, served=served) for rows in (WINDOW, REFERENCE))
        return view_of(problem, metric, window, reference), window

    found = repeat(metric, one)
    assert abs(found.bias) < 3
    assert found.inside.mean() >= 0.9
    view, window = one(np.random.default_rng(1))
    corrected, plain = estimated(view), expected(metric, window.scores).value
    assert abs(plain - realised(metric, window)) > 4 * number(corrected.error)
    assert f"{plain - number(corrected.value):+.3g}" in corrected.note


def thinned(side: Side, thin: int, rng: np.random.Generator) -> Side:
    """One row of so many, drawn at random, in time order as `reference_side` gives them."""
    rows = np.sort(rng.permutation(len(side))[: len(side) // thin])
    kept = side.own[rows]
    return Side(side.inputs.iloc[rows], kept, side.scores.take(rows), side.labels[rows], kept)


@over_problems
def test_a_thinned_reference_shows_the_same_dispersion(problem: Problem) -> None:
    metric, rng = metrics_for(problem)["mae" if problem == "regression" else "log_loss"], np.random.default_rng(0)
    made = []
    for _ in range(60):
        past = draw(problem, 5_000, rng, luck=0.7, days=100)
        sides = past, thinned(past, 5, rng)
        made.append([experience(metric, side, served=5_000).dispersion for side in sides])
    whole, part = np.mean(made, axis=0)
    assert whole > 1.3
    assert part == pytest.approx(whole, rel=0.1)


@over_problems
@pytest.mark.parametrize("thin", [1, 5], ids=["whole reference", "one row of five"])
def test_the_luck_that_rows_of_a_day_share_is_in_the_interval(view_of: ViewOf, problem: Problem, thin: int) -> None:
    """The reference is a random sample, as a bundle's is."""
    metric = metrics_for(problem)["mae" if problem == "regression" else "log_loss"]

    def one(rng: np.random.Generator) -> tuple[View, Side]:
        window, past = (draw(problem, 5_000, rng, luck=0.7, days=100) for _ in range(2))
        return view_of(problem, metric, window, thinned(past, thin, rng), served=len(past)), window

    found = repeat(metric, one)
    view, _ = one(np.random.default_rng(1))
    alone = expected(metric, view.window.scores).noise
    assert number(estimated(view).error) > 1.5 * alone
    assert found.inside.mean() >= 0.9


@over_problems
def test_concept_drift_is_not_seen(bundle_of: BundleOf, log: InferenceLog, problem: Problem) -> None:
    """The labels turn round, the answers stay what they were: this is what only labels show."""
    bundle = bundle_of(problem)
    frame = make_frame(1_000, seed=5, problem=problem, flip=1.0)
    write_rows(log, bundle, frame)
    window = window_side(log.frame(), "1", bundle.manifest)
    found = estimated(View(window, reference_side(bundle), bundle.manifest))
    metric = metrics_for(problem)[bundle.manifest.task.metric]
    before, error = number(found.reference), number(found.error)
    assert metric.gain(before, realised(metric, window)) > 10 * error
    assert abs(number(found.value) - before) < 4 * error


@over_problems
def test_the_labels_of_the_window_are_not_used(bundle_of: BundleOf, log: InferenceLog, problem: Problem) -> None:
    bundle = bundle_of(problem)
    write_rows(log, bundle, make_frame(500, problem=problem))
    window = window_side(log.frame(), "1", bundle.manifest)
    view = View(window, reference_side(bundle), bundle.manifest)
    assert estimated(view) == estimated(dataclasses.replace(view, window=unlabelled(window)))
    assert window.labelled.all()


def test_rows_of_another_version_do_not_count(bundle: ModelBundle, log: InferenceLog) -> None:
    write_rows(log, bundle, make_frame(200, seed=1), version="1", tag="a")
    write_rows(log, bundle, make_frame(300, seed=2, shift=3.0, start="2024-01-03"), version="2", tag="b")
    reference = reference_side(bundle)
    sides = [window_side(log.frame(), version, bundle.manifest) for version in ("1", "2", "3")]
    found = [estimated(View(side, reference, bundle.manifest)) for side in sides]
    assert [one.rows for one in found] == [200, 300, 0]
    assert found[0].value != found[1].value
    assert found[2].value is None


@over_all
@pytest.mark.parametrize("rows", [0, 1, 2, 3])
@pytest.mark.parametrize("labels", [0, 1, 2, LEAST_LABELS - 1, LEAST_LABELS])
def test_few_rows_are_no_accident(view_of: ViewOf, problem: Problem, metric: Metric, rows: int, labels: int) -> None:
    rng = np.random.default_rng(rows)
    window, reference = draw(problem, rows, rng), draw(problem, labels, rng)
    found = estimated(view_of(problem, metric, window, reference))
    assert found.rows == rows
    assert (found.value is not None) == (rows > 1 or (rows == 1 and metric.name not in ("auc", "r2")))
    if found.value is not None:
        least, most = metric.bounds
        assert least <= number(found.low) <= found.value <= number(found.high) <= most
        assert ("no bias" in found.note) == (labels < LEAST_LABELS)


@over_all
@pytest.mark.parametrize("right", [1.0, 0.9, 0.0], ids="{} right".format)
def test_answers_that_admit_no_doubt_are_no_accident(
    view_of: ViewOf, problem: Problem, metric: Metric, right: float
) -> None:
    """Probabilities of exactly 0 and 1, spreads of exactly 0; and answers that are all the same."""
    sides = []
    for seed in (0, 1):
        side, rng = draw(problem, 500, np.random.default_rng(seed)), np.random.default_rng(seed)
        kept = rng.random(500) < right
        if problem == "regression":
            sides.append(side_of(np.where(kept, side.labels, side.labels + 1), side.labels))
        else:
            k = side.scores.scores.shape[1]
            sides.append(side_of(np.eye(k)[np.where(kept, side.labels, (side.labels + 1) % k)], side.labels))
    found = estimated(view_of(problem, metric, *sides))
    assert found.value == pytest.approx(realised(metric, sides[1]), abs=1e-6)
    assert found.error is not None
    same = side_of(np.repeat(sides[0].scores.scores[:1], 500, axis=0), sides[0].labels)
    constant = estimated(view_of(problem, metric, same, sides[1]))
    assert (constant.value is None) == (metric.name in ("auc", "r2"))


def test_labels_of_one_class_show_no_bias(view_of: ViewOf) -> None:
    window, reference = (draw("binary", 500, np.random.default_rng(seed)) for seed in (0, 1))
    reference = dataclasses.replace(reference, labels=np.zeros(500, dtype=np.int64))
    found = estimated(view_of("binary", metrics_for("binary")["auc"], window, reference))
    assert found.value == pytest.approx(expected(metrics_for("binary")["auc"], window.scores).value)
    assert "no bias is taken off" in found.note
    assert found.reference is None


def test_golden_numbers_by_hand(view_of: ViewOf) -> None:
    """Three rows, worked out on paper."""
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    scores = side_of(p, np.array([0, 1, 1])).scores
    found = {name: expected(metric, scores).value for name, metric in metrics_for("binary").items()}
    assert found["accuracy"] == pytest.approx((0.9 + 0.5 + 0.8) / 3)
    assert found["brier"] == pytest.approx(2 * (0.09 + 0.25 + 0.16) / 3)
    assert found["log_loss"] == pytest.approx((0.325083 + 0.693147 + 0.500402) / 3, abs=1e-6)
    right, pairs = 0.8 * (0.5 + 0.9) + 0.5 * 0.9, 0.8 * (0.5 + 0.9) + 0.5 * (0.9 + 0.2) + 0.1 * (0.5 + 0.2)
    assert found["auc"] == pytest.approx(right / pairs)
    numbers = Scores(np.array([0.0, 3.0]), np.array([1.0, 2.0]), np.zeros(2))
    found = {name: expected(metric, numbers).value for name, metric in metrics_for("regression").items()}
    assert found["rmse"] == pytest.approx(np.sqrt(2.5))
    assert found["mae"] == pytest.approx(1.5 * np.sqrt(2 / np.pi))
    assert found["r2"] == pytest.approx(1 - 2.5 / (2.25 + 1.25))
