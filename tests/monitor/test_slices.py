"""Slices that are found: planted ones by name, on rows that had no say; none where none is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from monitor.comparison import worst_segments
from monitor.conditions import Codebook, Coding, Condition, cuts, in_words
from monitor.measurements import Measurement, Window, WindowRecord
from monitor.policy import decide
from monitor.slices import LEAST_LABELS, FoundSlices
from monitor.values import values_of
from registry.bundle import ModelBundle
from registry.conforming import conform
from registry.metrics import Problem
from registry.policies import PerformancePolicy
from tests.handmade import make_frame
from tests.monitor.records import START, WEEK, performance, record
from tests.monitor.sides import view_of

BundleOf = Callable[[Problem], ModelBundle]


def found_in(bundle: ModelBundle, window: pd.DataFrame, reference: pd.DataFrame) -> Measurement:
    view = view_of(bundle, window, reference)
    (made,) = FoundSlices().measure(view)
    return made


def spoilt(frame: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """The label of these rows is the wrong one, or far off."""
    if not pd.api.types.is_numeric_dtype(frame["late"]):
        wrong = frame["late"].map({"yes": "no", "no": "yes"})
        return frame.assign(late=frame["late"].where(~rows, wrong))
    return frame.assign(late=frame["late"] + 2.0 * rows)


def planted(frame: pd.DataFrame) -> pd.Series:
    return (frame["carrier"] == "BB") & (frame["amount"] > 0.5)


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_planted_errors_are_found_in_words(bundle_of: BundleOf, problem: Problem) -> None:
    frame, known = make_frame(4_000, problem=problem), make_frame(2_000, seed=1, problem=problem)
    made = found_in(bundle_of(problem), spoilt(frame, planted(frame)), known)
    first, second = sorted(made.subject.split(" and "), reverse=True)
    assert first == "carrier = BB"
    assert second.startswith("amount > ")
    assert float(second.removeprefix("amount > ")) == pytest.approx(0.5, abs=0.2)
    assert made.rows == pytest.approx(planted(frame).sum() / 2, rel=0.25)
    worse = made.value - made.reference if problem == "regression" else made.reference - made.value
    assert worse > 4 * np.hypot(made.error, made.reference_error)


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_a_model_without_a_bad_slice_is_told_of_one_as_seldom_as_promised(
    bundle_of: BundleOf, problem: Problem
) -> None:
    """Named with an error of 5 %, as a degraded model's slices are."""
    named, draws = 0, 60
    for seed in range(draws):
        frame, known = (make_frame(1_000, seed=2 * seed + each, problem=problem) for each in (0, 1))
        made = found_in(bundle_of(problem), frame, known)
        one = record(0, made, metric="rmse" if problem == "regression" else "auc")
        named += bool(worst_segments(one, tolerate=0.0, min_labels=20, level=0.05))
    assert named / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_a_reference_that_is_as_bad_there_shows_no_slice(bundle: ModelBundle) -> None:
    frame, known = make_frame(4_000), make_frame(4_000, seed=1)
    made = found_in(bundle, spoilt(frame, planted(frame)), spoilt(known, planted(known)))
    assert worst_segments(record(0, made), tolerate=0.02, min_labels=100, level=0.05) == ()


def test_the_diagnosis_of_a_degraded_model_names_it_and_it_is_counted(bundle: ModelBundle) -> None:
    frame = make_frame(8_000)
    made = found_in(bundle, spoilt(frame, planted(frame)), make_frame(4_000, seed=1))
    fallen = Window(index=1, start=START + WEEK, end=START + 2 * WEEK, rows=8_000)
    bad = WindowRecord(window=fallen, version="1", metric="auc", measurements=(performance(0.5), made))
    decision = decide(PerformancePolicy(), [record(0, performance(0.7)), bad])
    assert decision.diagnosis.segments == (made.subject,)
    assert any(reason.startswith(f"{made.subject}: auc ") for reason in decision.reasons)
    doubtful = made.model_copy(update={"value": 0.60, "error": 0.05, "reference": 0.72, "reference_error": 0.0})
    others = [doubtful.model_copy(update={"name": "segment_performance", "value": 0.72})] * 3
    assert worst_segments(record(0, doubtful), 0.0, 100, 0.05)
    assert worst_segments(record(0, doubtful, *others), 0.0, 100, 0.05) == ()


def test_it_says_why_there_is_none(bundle: ModelBundle) -> None:
    known = make_frame(600, seed=1)
    few = found_in(bundle, make_frame(LEAST_LABELS - 1), known)
    assert (few.value, few.rows, few.note) == (None, 0, "needs 400 labels of each side")
    one_class = found_in(bundle, make_frame(500).assign(late="yes"), known)
    assert one_class.note == "auc is undefined on half of the rows"
    alike = make_frame(500).assign(amount=1.0, weight=1.0, member=True, carrier="AA")
    assert found_in(bundle, alike, known).note == "nothing to split by"


def test_conditions_mean_what_they_say(bundle: ModelBundle) -> None:
    frame = make_frame(200)
    frame.loc[:19, "weight"] = np.nan
    inputs = conform(frame, bundle.manifest.data_schema)
    columns = {name: values_of(inputs[name]) for name in inputs}
    for one in cuts(inputs, bundle.manifest.data_schema):
        both = one.holds(columns[one.column]).astype(int) + one.opposite.holds(columns[one.column])
        there = 1 if one.value is None else inputs[one.column].notna()
        assert (both == there).all(), one
        assert one.opposite.opposite == one
    words = {str(one) for one in cuts(inputs, bundle.manifest.data_schema)}
    assert {"weight missing", "carrier = AA", "carrier = CC"} <= words
    assert len({"member = true", "member = false"} & words) == 1
    above = Condition("weight", ">", 1.5)
    assert above.holds(columns["weight"]).tolist() == (frame["weight"] > 1.5).tolist()


def test_codes_tell_conditions_apart(bundle: ModelBundle) -> None:
    """Also on rows whose values the reference does not have."""
    known, frame = make_frame(300), make_frame(200, seed=1)
    for rows in (known, frame):
        rows["member"] = rows["member"].astype(object)
        rows.loc[:19, ["weight", "carrier", "member"]] = [np.nan, None, None]
    frame.loc[20:39, "carrier"], frame.loc[20:29, "amount"] = "never seen", 1e9
    schema = bundle.manifest.data_schema
    before, now = conform(known, schema), conform(frame, schema)
    found, rows = cuts(before, schema), np.arange(0, 200, 3)
    for column in schema.of("numeric", "boolean", "categorical"):
        mine = [one for one in found if one.column == column.name]
        coding, values = Coding(column, mine), values_of(now[column.name])
        codes = Codebook([coding]).code(lambda name, values=values: values, rows)[0]
        for one in (*mine, *(one.opposite for one in mine)):
            assert coding.held(one)[codes].tolist() == one.holds(values)[rows].tolist(), one


def test_what_a_later_cut_makes_idle_is_not_said() -> None:
    first = Condition("carrier", "=", "AA").opposite
    path = (first, Condition("carrier", "!=", "BB"), Condition("temp", "<=", 30.0), Condition("temp", "<=", 21.5))
    assert in_words(path) == "carrier != AA and carrier != BB and temp <= 21.5"
