"""Preparation: learnt on training rows only, and no value of any row makes it give NaN."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.conforming import conform
from registry.schema import BooleanColumn, CategoricalColumn, DatetimeColumn, NumericColumn, Schema
from retrain.preparation import Preparation, Quantile, Robust, ScalingName

SCALINGS: tuple[ScalingName, ...] = ("robust", "quantile")


def numeric(values: object, scaling: ScalingName = "robust") -> tuple[Preparation, Schema]:
    schema = Schema(columns=(NumericColumn(name="x"),))
    return Preparation.fit(conform(pd.DataFrame({"x": values}), schema), schema, scaling), schema


def apply(preparation: Preparation, schema: Schema, values: object) -> np.ndarray:
    return preparation.apply(conform(pd.DataFrame({"x": values}), schema)).numeric


def test_robust_scaling_is_the_papers() -> None:
    """The median goes to 0, a quartile range to 1 before the smooth clip, and nothing goes beyond 3."""
    preparation, schema = numeric(np.arange(101.0))
    assert isinstance(preparation.scaling, Robust)
    assert preparation.scaling.centre == (50.0,)
    assert preparation.scaling.factor == (1 / 50,)
    z = 2.0
    assert apply(preparation, schema, [50.0, 150.0, 1e300])[:, 0] == pytest.approx([0, z / np.sqrt(1 + z * z / 9), 3])


def test_robust_scaling_of_a_rare_value_uses_the_range() -> None:
    """Equal quartiles do not divide by zero: 2 / (max - min) takes over."""
    preparation, schema = numeric([0.0] * 99 + [10.0])
    assert apply(preparation, schema, [0.0, 10.0])[:, 0] == pytest.approx([0, 2 / np.sqrt(1 + 4 / 9)])


def test_quantile_scaling_makes_a_skewed_column_normal() -> None:
    """A log-normal column becomes nearly standard normal, and order is kept."""
    values = np.exp(np.random.default_rng(0).normal(0, 2, 5_000))
    preparation, schema = numeric(values, "quantile")
    out = apply(preparation, schema, values)[:, 0]
    assert abs(out.mean()) < 0.05
    assert out.std() == pytest.approx(1, abs=0.05)
    assert (np.diff(out[np.argsort(values)]) >= -1e-6).all()


def test_quantile_scaling_is_between_its_knots_and_survives_ties() -> None:
    """Nine in ten zeros share one knot; the rest rise above it; values beyond training stay at the ends."""
    preparation, schema = numeric([0.0] * 900 + list(np.linspace(1, 2, 100)), "quantile")
    assert isinstance(preparation.scaling, Quantile)
    low, zero, one, two, high = apply(preparation, schema, [-1e9, 0.0, 1.0, 2.0, 1e9])[:, 0]
    assert low == zero < one < two == high == pytest.approx(3)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    "training",
    [
        [5.0, 5.0, np.nan],
        [1e12, 1e12 + 1, 1e12 + 2],
        [-1.7e308, 0.0, 1.7e308],
        [5e-324, 0.0, 1e-323],
        [0.0, np.nan, 1e-300],
        [0.0, 1.0],
    ],
)
def test_no_value_gives_nan(training: list[float], scaling: ScalingName) -> None:
    """Constant, huge, tiny and missing values, in training or later, give finite numbers of a bounded size."""
    preparation, schema = numeric(training, scaling)
    out = apply(preparation, schema, [*training, np.nan, np.inf, -np.inf, 0.0, 1e308, -1e308, 5e-324])
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 3.0001


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=20), st.sampled_from(SCALINGS))
def test_any_training_column_gives_finite_features(training: list[float], scaling: ScalingName) -> None:
    """Whatever doubles training holds, its own rows are prepared to bounded numbers."""
    preparation, schema = numeric(training, scaling)
    out = apply(preparation, schema, training)
    assert out.shape == (len(training), preparation.d_numeric)
    assert (np.abs(out) <= 3.0001).all()


def test_differences_survive_far_from_zero() -> None:
    """The subtraction is done in double: 1e12 and 1e12 + 1 are told apart."""
    preparation, schema = numeric(1e12 + np.arange(5.0))
    assert len(np.unique(apply(preparation, schema, 1e12 + np.arange(5.0)))) == 5


@pytest.mark.parametrize("scaling", SCALINGS)
def test_columns_that_tell_nothing_give_no_feature(scaling: ScalingName) -> None:
    """Constant and all-missing columns are left out; a constant that is sometimes missing keeps only its gap."""
    assert numeric([1.0, 1.0], scaling)[0].d_numeric == 0
    assert numeric([np.nan, np.nan], scaling)[0].d_numeric == 0
    preparation, schema = numeric([7.0, np.nan, 7.0], scaling)
    before = apply(preparation, schema, [7.0, np.nan, 1e6])
    assert before[:, 1].tolist() == [0, 1, 0]
    assert np.ptp(before[:, 0]) == 0


def test_a_gap_exists_only_where_training_had_missing_values() -> None:
    """A missing value reads as the median, with an indicator only if training had any."""
    with_gap, schema = numeric([1.0, 2.0, 3.0, np.nan])
    assert apply(with_gap, schema, [np.nan, 2.0]).tolist() == [[0, 1], [0, 0]]
    without, schema = numeric([1.0, 2.0, 3.0])
    assert apply(without, schema, [np.nan]).tolist() == [[0]]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_booleans_are_centred_and_missing_is_between(scaling: ScalingName) -> None:
    """False and true lie symmetrically around 0, where a missing one is."""
    schema = Schema(columns=(BooleanColumn(name="x"),))
    preparation = Preparation.fit(conform(pd.DataFrame({"x": [True, False, False, None]}), schema), schema, scaling)
    false, true, missing = apply(preparation, schema, [False, True, None])
    assert false[0] == -true[0] < 0 == missing[0]
    assert (false[1], true[1], missing[1]) == (0, 0, 1)


def moments(values: object) -> tuple[Preparation, Schema]:
    schema = Schema(columns=(DatetimeColumn(name="x"),))
    return Preparation.fit(conform(pd.DataFrame({"x": values}), schema), schema), schema


def test_moments_become_cycles_that_training_has_seen_whole() -> None:
    """Two months know hours and weekdays, not the year; two years know all three; one afternoon knows none."""
    assert moments(pd.date_range("2024-01-01", "2024-03-01", freq="h"))[0].moments[0].cycles == ("day", "week")
    assert moments(pd.date_range("2023-01-01", "2025-01-01", freq="h"))[0].moments[0].cycles == ("day", "week", "year")
    assert moments(pd.date_range("2024-01-01 12:00", periods=5, freq="h"))[0].d_numeric == 0
    assert moments(pd.date_range("2023-01-01", "2025-01-01", freq="D"))[0].moments[0].cycles == ("week", "year")


def test_cycles_are_sines_and_cosines_and_do_not_extrapolate() -> None:
    """Six in the morning is a quarter turn in every century; a week later the weekday is the same."""
    preparation, schema = moments([*pd.date_range("2024-01-01", "2024-02-01", freq="h"), pd.NaT])
    old, late, week_later, missing = apply(
        preparation, schema, [datetime(1815, 6, 18, 6), datetime(2150, 1, 1, 6), datetime(2150, 1, 8, 6), None]
    )
    assert old[[0, 2]] == pytest.approx([1, 0], abs=1e-6)
    assert late[[0, 2]] == pytest.approx([1, 0], abs=1e-6)
    assert late == pytest.approx(week_later, abs=1e-6)
    assert missing.tolist() == [0, 0, 0, 0, 1]
    weekdays = apply(preparation, schema, pd.date_range("1969-12-28", periods=7, freq="D"))
    assert len(np.unique(weekdays[:, 1].round(4) + 10 * weekdays[:, 3].round(4))) == 7


def test_categories_have_codes_for_unknown_and_missing() -> None:
    """0 is unknown, 1 missing, and the schema's categories follow in their order."""
    schema = Schema(columns=(CategoricalColumn(name="x", categories=("b", "a")), CategoricalColumn(name="y")))
    frame = pd.DataFrame({"x": ["a", "b", "c", "", None], "y": ["q"] * 5})
    preparation = Preparation.fit(conform(frame, schema), schema)
    prepared = preparation.apply(conform(frame, schema))
    assert preparation.cardinalities == (4, 2)
    assert prepared.categories[:, 0].tolist() == [3, 2, 0, 1, 1]
    assert prepared.categories[:, 1].tolist() == [0] * 5
    assert prepared.numeric.shape == (5, 0)
    assert prepared.take(slice(2)).categories.shape == (2, 2)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_preparation_is_json(scaling: ScalingName) -> None:
    """It reads back equal, extreme numbers included."""
    preparation, _ = numeric([-1.7e308, 1e-300, np.nan, 1.7e308], scaling)
    assert Preparation.model_validate_json(preparation.model_dump_json()) == preparation
