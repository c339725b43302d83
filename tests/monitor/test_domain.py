"""Inputs together and outputs together: what no column shows alone is seen, and chance is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from monitor.domain import LEAST_ROWS, MOST_ROWS, DomainShift, Known, OutputShift, Sample, Usual, usual
from monitor.findings import Finding, shifts
from monitor.measurements import Measurement
from monitor.shift import ColumnShift
from monitor.views import Measure, Side, View
from registry.bundle import ModelBundle
from registry.metrics import Problem, auc
from registry.schema import DatetimeColumn, Schema
from tests.handmade import make_frame
from tests.monitor.records import record
from tests.monitor.sides import side_of, view_of

BundleOf = Callable[[Problem], ModelBundle]


def correlated(frame: pd.DataFrame, sign: int, *, seed: int = 0) -> pd.DataFrame:
    """Amount and weight correlated, with margins that do not depend on the sign of that."""
    x, y = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.8 * sign], [0.8 * sign, 1]], len(frame)).T
    return frame.assign(amount=x, weight=6 + y)


def only(measure: Measure, view: View) -> Measurement:
    (made,) = measure.measure(view)
    return made


def by_day(frame: pd.DataFrame, *, seed: int, rows: int = 25) -> pd.DataFrame:
    """Rows of which `rows` at a time share a level of amount and weight."""
    levels = np.random.default_rng(seed).normal(size=(len(frame) // rows + 1, 2)).repeat(rows, axis=0)[: len(frame)]
    return frame.assign(amount=frame["amount"] + 0.7 * levels[:, 0], weight=frame["weight"] + levels[:, 1])


def test_a_correlation_that_turns_round_is_seen_though_no_column_moves(bundle: ModelBundle) -> None:
    view = view_of(bundle, correlated(make_frame(500), -1), correlated(make_frame(1_000, seed=1), 1, seed=1))
    alone = [one.p_value for one in ColumnShift().measure(view) if one.p_value is not None]
    together = only(DomainShift(), view)
    assert min(alone) > 0.01
    assert together.p_value < 1e-9
    assert together.value > 0.5
    assert together.note.startswith("AUC 0.")


@pytest.mark.parametrize("column", ["amount", "weight", "carrier"])
def test_a_covariate_that_moves_is_seen(bundle: ModelBundle, column: str) -> None:
    frame = make_frame(500)
    frame[column] = "CC" if column == "carrier" else frame[column] + 1.0
    made = only(DomainShift(), view_of(bundle, frame, make_frame(2_000, seed=1)))
    assert made.p_value < 1e-4
    assert made.value > 0.3


def test_outputs_move_with_what_the_model_uses_alone(bundle: ModelBundle) -> None:
    """The rows of a model that has not looked at `weight`."""
    known, frame = make_frame(600, seed=1), make_frame(500)
    moved = view_of(bundle, frame.assign(amount=frame["amount"] + 1.5), known)
    assert only(OutputShift(), moved).p_value < 1e-4
    still = view_of(bundle, frame, known)
    still = dataclasses.replace(
        still, window=dataclasses.replace(still.window, columns=still.window.inputs.assign(weight=9.0))
    )
    assert only(DomainShift(), still).value > 0.9
    assert only(OutputShift(), still).p_value > 0.05


@pytest.mark.parametrize("measure", [DomainShift(), OutputShift()], ids=["domain", "output"])
@pytest.mark.parametrize("problem", ["binary", "regression"])
@pytest.mark.parametrize(("rows", "daily"), [(200, False), (200, True), (1_000, False), (1_000, True)])
def test_p_values_keep_their_word_when_nothing_changed(
    bundle_of: BundleOf, measure: Measure, problem: Problem, rows: int, daily: bool
) -> None:
    draws, p_values = 8 if rows > 500 else 15, []
    for seed in range(draws):
        window, known = (
            make_frame(rows, seed=2 * seed, problem=problem),
            make_frame(900, seed=2 * seed + 1, problem=problem),
        )
        if daily:
            window, known = by_day(window, seed=2 * seed), by_day(known, seed=2 * seed + 1)
        p_values.append(only(measure, view_of(bundle_of(problem), window, known)).p_value)
    assert np.mean(np.array(p_values) < 0.2) <= 0.2 + 3 * np.sqrt(0.16 / draws)
    assert min(p_values) > 0.001


def slow(seed: int, rows: int = 8_000, lasting: int = 600) -> Sample:
    """Eight columns whose levels hold for `lasting` rows at a time."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(rows // lasting + 2, 8)).repeat(lasting, axis=0)[rng.integers(lasting) :][:rows]
    return Sample(levels + 0.5 * rng.normal(size=(rows, 8)), 1.0)


def test_what_lasts_longer_than_a_window_is_no_shift() -> None:
    """Such a window is always told from the reference, by its own level; stretches of the reference are too."""
    plain, judged, numbers = [], [], [False] * 8
    for seed in range(12):
        window, known = slow(seed).parted(7_600, 8_000)
        found = Known(known.thinned(), numbers).separate(window)
        plain.append(found.p_value(Usual(), 0.5))
        judged.append(found.p_value(usual(known, 400, numbers), 0.5))
    assert np.mean(plain) < 0.25
    assert np.mean(judged) > 0.35
    assert min(judged) > 0.01


def test_independent_rows_keep_their_usual() -> None:
    rng = np.random.default_rng(0)
    usually = [usual(Sample(rng.normal(size=(4_000, 3)), 1.0), 500, [False] * 3) for _ in range(8)]
    assert np.mean([max(0.0, one.mean + one.error) for one in usually]) < 0.6
    assert np.mean([one.spread for one in usually]) < 1.5
    assert usual(Sample(rng.normal(size=(4_000, 3)), 100.0), 500, [False] * 3) == Usual()


def test_the_auc_is_that_of_the_scores() -> None:
    """Against a separation known in closed form: two normals a distance of 2 apart have an AUC of 0.921."""
    rng = np.random.default_rng(0)
    window, known = Sample(rng.normal(2, 1, (2_000, 1)), 1.0), Sample(rng.normal(0, 1, (2_000, 1)), 1.0)
    best = auc(np.repeat([1, 0], 2_000), np.r_[window.features, known.features] * [[-1, 1]])
    assert Known(known, [False]).separate(window).auc == pytest.approx(best, abs=0.01)


def test_it_is_alike_each_time_and_reads_no_more_rows_than_it_may(bundle: ModelBundle) -> None:
    view = view_of(bundle, make_frame(3 * MOST_ROWS), make_frame(300, seed=1))
    first, second = (only(DomainShift(), view) for _ in range(2))
    assert first == second
    assert first.rows == MOST_ROWS


def test_few_rows_and_constant_answers_are_no_evidence(bundle: ModelBundle) -> None:
    short = view_of(bundle, make_frame(LEAST_ROWS - 1), make_frame(600, seed=1))
    for measure in (DomainShift(), OutputShift()):
        made = only(measure, short)
        assert (made.value, made.p_value, made.rows) == (None, None, LEAST_ROWS - 1)
        assert made.note == "needs 100 rows of each side"
    same = Sample(np.ones((200, 2)), 1.0)
    assert Known(same, [False, False]).separate(same).p_value(Usual(), 0.5) == 0.5


def test_moments_that_no_solver_takes_tell_nothing_apart() -> None:
    rng = np.random.default_rng(0)
    half = Known(Sample(rng.normal(size=(200, 2)), 1.0), [False, False])._halves[0]
    rows = rng.normal(size=(len(half._mean), 100))
    assert half._direction(rows).any()
    half._second[:] = np.where(np.eye(len(half._second)), half._second, -1e3)
    assert not half._direction(rows).any()


def test_moments_count_as_lags_only(bundle: ModelBundle) -> None:
    """Another year changes nothing; orders that came in earlier do."""
    schema = bundle.manifest.data_schema
    manifest = bundle.manifest.model_copy(
        update={"data_schema": Schema(columns=(*schema.columns, DatetimeColumn(name="ordered")))}
    )

    def side(seed: int, year: int, days: int) -> Side:
        frame = make_frame(400, seed=seed, start=f"{year}-01-01")
        lag = pd.to_timedelta(days * 24 + np.random.default_rng(seed).random(400) * 24, unit="h")
        plain = side_of(bundle, frame)
        return dataclasses.replace(plain, columns=plain.inputs.assign(ordered=plain.inputs["when"] - lag))

    known = side(0, 2024, 2)
    assert only(DomainShift(), View(side(1, 2030, 2), known, manifest)).p_value > 0.05
    assert only(DomainShift(), View(side(1, 2024, 4), known, manifest)).p_value < 1e-9


@pytest.mark.parametrize(
    ("name", "subject"), [("domain_shift", "inputs together"), ("output_shift", "outputs together")]
)
def test_they_are_findings_like_any_other_shift(name: str, subject: str) -> None:
    one = Measurement(name=name, value=0.3, p_value=1e-20, rows=1_000, note="AUC 0.650")
    found: list[Finding] = shifts([record(0, one)], 400)
    assert [each.subject for each in found] == [subject]
    assert found[0].sentence == f"{subject}: a classifier tells them from the reference by 0.30 (AUC 0.650)"
