"""One contract for all measures: JSON, no crash on nothing, and p-values that keep their word when nothing changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitor.measurements import Measurement, Window, WindowRecord
from monitor.measures import MEASURES, NAMES, OF_OUTPUTS, measure_all
from monitor.quality import _resting
from monitor.values import Numbers, repeats
from monitor.views import Measure, Side, View, reference_side, window_side
from registry.bundle import Manifest, ModelBundle
from registry.conforming import conform
from registry.inference_log import InferenceLog
from registry.metrics import Problem
from registry.novelty import Novelty
from registry.scoring import Scorer, feed
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

PROBLEMS: tuple[Problem, ...] = ("binary", "multiclass", "regression")
BundleOf = Callable[[Problem], ModelBundle]


def part(side: Side, rows: np.ndarray) -> Side:
    """Some rows of a side of which all are its own."""
    return dataclasses.replace(
        side,
        columns=side.inputs.iloc[rows].reset_index(drop=True),
        own=side.own[rows],
        scores=side.scores.take(rows),
        labels=side.labels[rows],
        labelled=side.labelled[rows],
    )


def view_of(bundle: ModelBundle, window: Side, reference: Side | None = None) -> View:
    return View(window, reference or reference_side(bundle), bundle.manifest)


def logged_side(bundle: ModelBundle, log: InferenceLog, frame: pd.DataFrame, **options: object) -> Side:
    write_rows(log, bundle, frame, **options)
    return window_side(log.frame(), "1", bundle.manifest)


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("n", [1, 2, 500, 20_000])
def test_rows_that_repeat_are_counted_to_the_last_one(n: int) -> None:
    rng = np.random.default_rng(n)
    for rows in (rng.integers(0, 3 * n, n), rng.integers(0, 3, n), np.r_[np.arange(n - n // 2), np.zeros(n // 2)]):
        first, second = np.divmod(rows, 7)
        columns = [Numbers(first.astype(np.float64)), Numbers(second.astype(np.float64))]
        assert repeats(columns) == n - len(np.unique(rows))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_record_survives_json(bundle_of: BundleOf, log: InferenceLog, problem: Problem) -> None:
    bundle = bundle_of(problem)
    frame = make_frame(300, problem=problem)
    made = measure_all(view_of(bundle, logged_side(bundle, log, frame)))
    window = Window(index=0, start=frame["when"].min(), end=frame["when"].max(), rows=300)
    record = WindowRecord(window=window, version="1", metric=bundle.manifest.task.metric, measurements=made)
    text = json.dumps(record.model_dump(mode="json", exclude_defaults=True), allow_nan=False)
    assert WindowRecord.model_validate_json(text) == record
    absent = {"novel_labels", "prior_gap", "log_gap", "calibration", "unwatched"}
    absent |= {name for name in NAMES if name.startswith("segment_")}
    assert {one.name for one in made} >= set(NAMES) - absent


@pytest.mark.parametrize("measure", MEASURES, ids=NAMES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_empty_window_is_no_accident(
    bundle_of: BundleOf, log: InferenceLog, measure: Measure, problem: Problem
) -> None:
    bundle = bundle_of(problem)
    empty = window_side(log.frame(), "1", bundle.manifest)
    for one in measure.measure(view_of(bundle, empty)):
        assert one.name == measure.name
        assert one.rows == 0
        assert one.value in (None, 0)
        assert one.p_value is None or one.p_value > 0.05


@pytest.mark.parametrize("measure", MEASURES, ids=NAMES)
def test_a_column_missing_throughout_and_one_class_are_no_accident(
    bundle: ModelBundle, log: InferenceLog, measure: Measure
) -> None:
    frame = make_frame(200).assign(late="yes", weight=np.nan, carrier=None)
    found = measure.measure(view_of(bundle, logged_side(bundle, log, frame)))
    by_subject = {one.subject: one for one in found}
    if measure.name == "missing":
        assert by_subject["weight"].value == by_subject["carrier"].value == 1
        assert by_subject["weight"].p_value < 1e-9
    if measure.name == "shift":
        assert by_subject["weight"].value is None
        assert by_subject["weight"].note
    if measure.name == "performance":
        assert found[0].value is None
        assert "undefined on 200 labels" in found[0].note


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("before", "now"), [(400, 60), (600, 300)])
def test_p_values_keep_their_word_when_nothing_changed(
    bundle_of: BundleOf, problem: Problem, before: int, now: int
) -> None:
    """Reference and window are drawn from the same rows: a p-value below a comes with probability a at most."""
    bundle, rng = bundle_of(problem), np.random.default_rng(1)
    everything = reference_side(bundle)
    drawn: dict[tuple[str, str | None], list[float]] = {}
    for _ in range(40):
        rows = rng.integers(0, len(everything), before + now)
        reference, window = part(everything, rows[:before]), part(everything, rows[before:])
        for one in measure_all(view_of(bundle, window, reference)):
            if one.p_value is not None and one.name not in ("duplicates", "coverage", "constant"):
                drawn.setdefault((one.name, one.subject), []).append(one.p_value)
    for name, p_values in drawn.items():
        below = np.mean(np.array(p_values) < 0.2)
        assert below <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / len(p_values)), name


def test_coverage_keeps_its_word(bundle: ModelBundle) -> None:
    side, rng = reference_side(bundle), np.random.default_rng(0)
    coverage = next(measure for measure in MEASURES if measure.name == "coverage")
    assert side.scores.sets is not None
    inside = np.asarray(side.scores.sets).copy()
    inside[np.arange(len(side)), side.labels] = True
    low, view = [], view_of(bundle, side)
    for _ in range(300):
        kept = rng.random(len(side)) < 0.9
        sets = inside.copy()
        sets[~kept, side.labels[~kept]] = False
        window = dataclasses.replace(side, scores=dataclasses.replace(side.scores, sets=sets))
        low.append(coverage.measure(dataclasses.replace(view, window=window))[0].p_value)
    assert np.mean(np.array(low) < 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 300)


def test_the_reference_is_in_time_order_with_its_answers(bundle: ModelBundle) -> None:
    """However its rows were drawn: errors over blocks of neighbours would mean nothing otherwise."""
    drawn = bundle.reference().sample(frac=1, random_state=0, ignore_index=True)
    mixed = reference_side(_Drawn(bundle.folder, bundle.manifest, drawn))
    assert mixed.inputs["when"].is_monotonic_increasing
    straight = reference_side(bundle)
    assert mixed.labels.tolist() == straight.labels.tolist()
    assert np.array_equal(mixed.scores.scores, straight.scores.scores)


class _Drawn(ModelBundle):
    """A bundle whose reference is given."""

    def __init__(self, folder: Path, manifest: Manifest, reference: pd.DataFrame) -> None:
        super().__init__(folder, manifest)
        self._rows = reference

    def reference(self) -> pd.DataFrame:
        return self._rows


def test_the_time_column_is_left_out_and_says_why(bundle: ModelBundle, log: InferenceLog) -> None:
    side = logged_side(bundle, log, make_frame(300, start="2030-01-01"))
    when = [one for one in measure_all(view_of(bundle, side)) if one.name == "shift" and one.subject == "when"]
    assert [(one.value, one.p_value) for one in when] == [(None, None)]
    assert "time always moves on" in when[0].note


def found(made: tuple[Measurement, ...], name: str, subject: str | None = None) -> Measurement:
    return next(one for one in made if (one.name, one.subject) == (name, subject))


def test_answers_of_networks_that_have_learnt_the_reference_are_told_and_not_judged(
    bundle: ModelBundle, log: InferenceLog
) -> None:
    """They are surer of such rows than those that the reference was measured with, though nothing has moved."""
    rows = logged_side(bundle, log, make_frame(500, seed=9))
    learnt = bundle.manifest.model_copy(update={"refitted": 3})
    before, now = (measure_all(View(rows, reference_side(bundle), one)) for one in (bundle.manifest, learnt))
    judged = [{one.name for one in found if one.p_value is not None} for found in (before, now)]
    assert judged[0] - judged[1] == OF_OUTPUTS
    for one, other in zip(before, now, strict=True):
        if one.name in OF_OUTPUTS:
            assert (other.value, other.rows, other.reference) == (one.value, one.rows, None)
            assert "have learnt the reference's rows since" in other.note
        else:
            assert other == one


def test_rows_are_out_of_distribution_as_the_endpoint_says_of_each(bundle: ModelBundle, log: InferenceLog) -> None:
    """By range, by category and by disagreement; of the rows that the version answered alone."""
    frame = make_frame(500)
    frame.loc[:99, "carrier"] = "ZZ"
    frame.loc[50:149, "weight"] = 99.0
    side, reference = logged_side(bundle, log, frame), reference_side(bundle)
    scorer, schema = Scorer.load(bundle), bundle.manifest.data_schema
    novelty = Novelty(schema, bundle.golden().disagreement)
    expected = novelty.of(feed(conform(frame, schema), schema), scorer.predict(frame))
    view = view_of(bundle, side)
    one = found(measure_all(view), "out_of_distribution")
    assert expected[:150].all()
    assert one.value == pytest.approx(expected.mean())
    assert one.rows == 500
    assert one.reference == pytest.approx(novelty.of(feed(reference.inputs, schema), reference.scores).mean())
    assert one.reference < 0.02
    assert one.p_value < 1e-9
    mine = np.arange(500) >= 150
    others = dataclasses.replace(
        side, own=mine, scores=side.scores.take(mine), labels=side.labels[mine], labelled=side.labelled[mine]
    )
    one = found(measure_all(dataclasses.replace(view, window=others)), "out_of_distribution")
    assert (one.value, one.rows) == (pytest.approx(expected[mine].mean()), 350)


def test_planted_changes_are_seen_in_their_place(bundle: ModelBundle, log: InferenceLog) -> None:
    frame = make_frame(500, shift=1.0)
    frame.loc[:99, "carrier"] = "ZZ"
    frame.loc[:49, "weight"] = np.nan
    frame.loc[50:89, "weight"] = 99.0
    frame["member"] = True
    made = measure_all(view_of(bundle, logged_side(bundle, log, frame)))
    assert found(made, "unseen", "carrier").value == pytest.approx(0.2)
    assert found(made, "unseen", "carrier").note == "such as 'ZZ'"
    assert found(made, "missing", "weight").value == pytest.approx(0.1)
    assert found(made, "out_of_range", "weight").value == pytest.approx(40 / 450)
    assert found(made, "constant", "member").value == 1
    assert found(made, "constant", "member").reference < 0.5
    assert found(made, "shift", "amount").value > 0.3
    assert found(made, "shift", "carrier").p_value < 1e-9
    assert found(made, "prediction_shift").p_value < 1e-3


def test_extremes_of_a_column_that_moves_slowly_come_together(bundle: ModelBundle, log: InferenceLog) -> None:
    """Eight rows of a peak that the reference never saw, where peaks last for hours and where they do not."""
    reference, frame = reference_side(bundle), make_frame(36, start="2030-01-01")
    frame.loc[10:17, "weight"] = 99.0
    window = logged_side(bundle, log, frame)
    rng = np.random.default_rng(0)
    waves = 3 + np.sin(np.arange(len(reference)) / 15) + 0.1 * rng.normal(size=40).repeat(20)[: len(reference)]
    p_values = []
    for weight in (waves, rng.permutation(waves)):
        known = dataclasses.replace(reference, columns=reference.inputs.assign(weight=weight))
        p_values.append(found(measure_all(view_of(bundle, window, known)), "out_of_range", "weight").p_value)
    assert p_values[0] > 1e-4
    assert p_values[1] < 1e-8


def test_a_column_that_changes_by_the_week_may_stand_still_for_days(bundle: ModelBundle, log: InferenceLog) -> None:
    """The same window, standing on one value, beside a reference of slow changes and one of quick ones; its time is
    half as long as the reference's."""
    reference = reference_side(bundle)
    rows = len(reference)
    start = reference.inputs["when"].max() + pd.Timedelta("10min")
    frame = make_frame(rows // 2, start=str(start))
    frame["carrier"] = "AA"
    window = logged_side(bundle, log, frame)
    p_values = []
    for runs in (3, 300):
        carriers = np.resize(["BB", "CC"], runs)[np.arange(rows) * runs // rows]
        known = dataclasses.replace(reference, columns=reference.inputs.assign(carrier=carriers))
        p_values.append(found(measure_all(view_of(bundle, window, known)), "constant", "carrier").p_value)
    assert p_values[0] == pytest.approx(np.exp(-2 / 2), rel=0.05)
    assert p_values[1] is not None
    assert p_values[1] < 1e-8


def test_a_column_whose_changes_come_together_may_stand_still(bundle: ModelBundle, log: InferenceLog) -> None:
    """Both references change as often; in one a row in ten has its storm, in the other each change is one of many."""
    reference, frame = reference_side(bundle), make_frame(40, start="2030-01-01")
    frame["carrier"] = "AA"
    window, rows = logged_side(bundle, log, frame), len(reference)
    restless, p_values = np.resize(["BB", "CC"], rows), []
    restful = np.where(np.arange(rows) % 80 < 40, "BB", np.where(np.arange(rows) % 2, "CC", "DD"))
    for carriers in (restful, restless):
        known = dataclasses.replace(reference, columns=reference.inputs.assign(carrier=carriers))
        p_values.append(found(measure_all(view_of(bundle, window, known)), "constant", "carrier").p_value)
    assert p_values[0] == pytest.approx(0.5, abs=0.1)
    assert p_values[1] is not None
    assert p_values[1] < 1e-6


def test_a_rest_that_the_first_row_s_stretches_would_cut_is_found() -> None:
    """Whoever counts from another row on sees every second stretch at rest; of fewer rows than one nothing is said."""
    rest = np.resize(np.r_[np.arange(20.0), np.zeros(40), np.arange(20.0)], 400)
    assert _resting(rest, 40) == pytest.approx(0.5, abs=0.1)
    assert [_resting(rest[:size], 40) for size in (0, 3, 39)] == [0.0, 0.0, 0.0]


def test_repeated_rows_are_counted(bundle: ModelBundle, log: InferenceLog) -> None:
    frame = pd.concat([make_frame(50)] * 3, ignore_index=True)
    made = measure_all(view_of(bundle, logged_side(bundle, log, frame)))
    assert found(made, "duplicates").value == pytest.approx(2 / 3)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_coverage_and_uncertainty_of_what_was_answered(
    bundle_of: BundleOf, log: InferenceLog, problem: Problem
) -> None:
    bundle = bundle_of(problem)
    side = logged_side(bundle, log, make_frame(400, problem=problem))
    made = measure_all(view_of(bundle, side))
    coverage = found(made, "coverage")
    assert coverage.low < coverage.value
    assert coverage.value == pytest.approx(coverage.high) or coverage.value < coverage.high
    assert coverage.rows == 400
    assert coverage.reference == 0.9
    assert found(made, "uncertainty").value == pytest.approx(float(np.mean(side.scores.uncertainty)), rel=1e-5)
    assert found(made, "set_size").value > 0
