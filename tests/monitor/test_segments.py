"""What is measured by segment: planted faults are found in theirs, and p-values keep their word where nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitor.located import located
from monitor.measurements import Measurement
from monitor.measures import measure_all
from monitor.parting import MOST_SEGMENTS, partings
from monitor.policy import decide
from monitor.segments import SegmentCalibration, SegmentCoverage, SegmentPerformance, SegmentShare, SegmentShift
from monitor.uncertainty import covered
from monitor.views import Side, View
from registry.bundle import ModelBundle
from registry.metrics import Problem, calibration_error
from registry.policies import PerformancePolicy
from tests.handmade import make_bundle, make_frame
from tests.monitor.records import record
from tests.monitor.sides import side_of

MEASURES = (SegmentPerformance(), SegmentShare(), SegmentShift(), SegmentCoverage(), SegmentCalibration())
WATCHED = {"segments": ["carrier", "member"], "report": "never"}
BundleOf = Callable[[Problem], ModelBundle]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> BundleOf:
    """A bundle of each problem whose task watches two columns apart."""
    made: dict[str, ModelBundle] = {}

    def get(problem: Problem) -> ModelBundle:
        if problem not in made:
            folder: Path = tmp_path_factory.mktemp("watched") / problem
            made[problem] = make_bundle(folder, problem=problem, monitor=WATCHED)
        return made[problem]

    return get


def measured(bundle: ModelBundle, window: Side, reference: Side) -> dict[tuple[str, str | None], Measurement]:
    view = View(window, reference, bundle.manifest)
    return {(one.name, one.subject): one for measure in MEASURES for one in measure.measure(view)}


def sides(bundle: ModelBundle, window: pd.DataFrame, problem: Problem = "binary") -> tuple[Side, Side]:
    return side_of(bundle, window), side_of(bundle, make_frame(4_000, seed=1, problem=problem))


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_each_segment_is_measured_as_the_whole_is(watched: BundleOf, problem: Problem) -> None:
    bundle, frame = watched(problem), make_frame(2_000, problem=problem)
    window, reference = sides(bundle, frame, problem)
    found, mine = measured(bundle, window, reference), (frame["carrier"] == "BB").to_numpy()
    theirs = (reference.inputs["carrier"] == "BB").to_numpy()
    share, coverage = found["segment_share", "carrier=BB"], found["segment_coverage", "carrier=BB"]
    assert (share.value, share.reference) == (mine.mean(), theirs.mean())
    assert sum(found["segment_share", f"member={one}"].value for one in "01") == pytest.approx(1)
    assert coverage.value == pytest.approx(covered(window)[mine].mean())
    assert coverage.reference == pytest.approx(covered(reference)[theirs].mean())
    assert coverage.low < coverage.value < coverage.high
    assert ("segment_calibration", "carrier=BB") in found or problem == "regression"
    if problem != "regression":
        one = found["segment_calibration", "carrier=BB"]
        near = calibration_error(window.labels[mine], window.scores.scores[mine])
        assert one.value == pytest.approx(near, abs=0.02)  # the bins are the whole reference's
        assert one.rows == mine.sum()
    assert {name for name, _ in found} >= {measure.name for measure in MEASURES} - {"segment_calibration"}
    slices = {subject for _, subject in found if not subject.startswith(("carrier=", "member="))}
    assert len(slices) == 1  # the slice that was found, on rows that had no say


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_p_values_keep_their_word_and_seldom_name_a_segment(watched: BundleOf, problem: Problem) -> None:
    """Reference and window are drawn from the same rows."""
    bundle, rng, draws = watched(problem), np.random.default_rng(2), 60
    everything = side_of(bundle, make_frame(6_000, seed=5, problem=problem))
    low: dict[str, list[float]] = {}
    named = 0
    for _ in range(draws):
        rows = rng.integers(0, len(everything), 2_400)
        window, reference = part(everything, rows[:400]), part(everything, rows[400:])
        found = measured(bundle, window, reference)
        named += bool(located(record(0, *found.values()), 0.05))
        for (name, _), one in found.items():
            if one.p_value is not None:
                low.setdefault(name, []).append(one.p_value)
    assert low.keys() >= {"segment_share", "segment_shift", "segment_coverage"}
    for name, p_values in low.items():
        below = np.mean(np.array(p_values) < 0.1)
        assert below <= 0.1 + 3 * np.sqrt(0.09 / len(p_values)), name
    assert named / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_luck_that_rows_of_a_day_share_is_no_segments(watched: BundleOf) -> None:
    """Days of 40 rows whose amounts, of one segment more than of others, go up and down together: whole days drawn."""
    bundle, rng, draws = watched("binary"), np.random.default_rng(3), 60
    frame = make_frame(12_000, seed=6)
    luck = np.repeat(rng.normal(0, 0.5, 300), 40) * (1 + (frame["carrier"] == "BB"))
    everything = side_of(bundle, frame.assign(amount=frame["amount"] + luck))
    named = []
    for _ in range(draws):
        days = rng.integers(0, 300, 90)
        rows = (days[:, None] * 40 + np.arange(40)).ravel()
        found = measured(bundle, part(everything, rows[:400]), part(everything, rows[400:]))
        told = located(record(0, *found.values()), 0.05)
        named += [{one.measurement.name for one in told}]
    assert np.mean([bool(one) for one in named]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws), named


def part(side: Side, rows: np.ndarray) -> Side:
    columns = side.inputs.iloc[rows].reset_index(drop=True)
    every = np.ones(len(rows), dtype=bool)
    return Side(columns, every, side.scores.take(rows), side.labels[rows], every)


def test_a_shift_in_one_segment_is_located_and_one_everywhere_is_not(watched: BundleOf) -> None:
    bundle, frame = watched("binary"), make_frame(1_500)
    there = frame.assign(amount=frame["amount"] + 1.5 * (frame["carrier"] == "BB"))
    found = measured(bundle, *sides(bundle, there))
    one = found["segment_shift", "carrier=BB"]
    assert one.value > 0.3 > 0.1 > one.reference
    told = [one.sentence for one in located(record(0, *found.values()), 0.05)]
    assert next(one.split(" by ")[0] for one in told if "moved" in one) == "carrier=BB: answers moved"
    everywhere = measured(bundle, *sides(bundle, frame.assign(amount=frame["amount"] + 1.5)))
    assert everywhere["segment_shift", "carrier=BB"].value > 0.3
    assert not any("moved" in one.sentence for one in located(record(0, *everywhere.values()), 0.05))


def test_more_of_a_segment_is_told(watched: BundleOf) -> None:
    frame = make_frame(3_000)
    more = frame[(frame["carrier"] != "CC") | (frame.index % 3 == 0)].reset_index(drop=True)
    found = measured(watched("binary"), *sides(watched("binary"), more))
    told = [one.sentence for one in located(record(0, *found.values()), 0.05)]
    assert len(told) == 1
    assert told[0].startswith("carrier=CC: ")
    assert told[0].endswith("in the reference")


def test_overconfidence_in_one_segment_is_told_of_that_one(watched: BundleOf) -> None:
    """Its labels are drawn anew, whatever is answered: coverage and calibration fail there, and only there."""
    bundle, frame, rng = watched("binary"), make_frame(2_000), np.random.default_rng(0)
    mine = (frame["carrier"] == "BB").to_numpy()
    window, reference = sides(bundle, frame)
    labels = np.where(mine, rng.integers(0, 2, len(frame)), window.labels)
    found = measured(bundle, dataclasses.replace(window, labels=labels), reference)
    told = {(one.measurement.name, one.subject): one for one in located(record(0, *found.values()), 0.05)}
    assert ("segment_calibration", "carrier=BB") in told
    note = told["segment_calibration", "carrier=BB"].measurement.note
    assert note.endswith("less often right than confident")
    assert found["segment_coverage", "carrier=BB"].p_value < 1e-6
    assert found["segment_coverage", "carrier=AA"].p_value > 0.01


def test_the_diagnosis_of_what_moved_says_where_and_in_fields(watched: BundleOf) -> None:
    bundle, frame = watched("binary"), make_frame(1_500)
    there = frame.assign(amount=frame["amount"] + 1.5 * (frame["carrier"] == "BB"))
    window, reference = sides(bundle, there)
    silent = dataclasses.replace(window, labelled=np.zeros(len(frame), dtype=bool))
    made = measure_all(View(silent, reference, bundle.manifest))
    decision = decide(PerformancePolicy(), [record(index, *made) for index in range(4)], min_labels=100)
    assert decision.severity == "shifted"
    told = decision.diagnosis
    assert told is not None
    assert ", above all in carrier=BB; no fall of performance is sure" in told.sentence
    assert told.segments[0] == "carrier=BB"
    figures = {(one.measure, one.subject): one for one in told.figures}
    assert figures["segment_shift", "carrier=BB"].reference < 0.1 < figures["segment_shift", "carrier=BB"].value
    assert figures["shift", "amount"].cost is not None


def test_without_segments_nothing_is_measured_and_many_values_are_bounded(bundle: ModelBundle, tmp_path: Path) -> None:
    window, reference = side_of(bundle, make_frame(300)), side_of(bundle, make_frame(900, seed=1))
    assert measured(bundle, window, reference) == {}
    many = make_bundle(tmp_path / "many", monitor=WATCHED)
    names = [f"x{number:03}" for number in range(300)]
    sides_of = [
        dataclasses.replace(one, columns=one.inputs.assign(carrier=np.resize(names, len(one))))
        for one in (window, reference)
    ]
    parted = partings(View(*sides_of, many.manifest))
    assert [len(one.subjects) for one in parted] == [MOST_SEGMENTS, 2]
    assert (parted[0].window == MOST_SEGMENTS).sum() == 300 - MOST_SEGMENTS
