"""Conforming raw frames: every kind, every way of writing a value, and errors that name column, row and value."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.conforming import as_strings, conform
from registry.errors import RowError
from registry.schema import (
    BooleanColumn,
    CategoricalColumn,
    DatetimeColumn,
    NumericColumn,
    Schema,
    canonical_category,
)

SCHEMA = Schema(
    columns=(
        NumericColumn(name="n"),
        BooleanColumn(name="b"),
        DatetimeColumn(name="t"),
        CategoricalColumn(name="c", categories=("x",)),
    )
)


def raw(**changes: object) -> pd.DataFrame:
    base = {"n": [1, 2], "b": [True, False], "t": ["2024-01-01", "2024-01-02T03:00:00Z"], "c": ["x", ""]}
    return pd.DataFrame({**base, **changes})


def test_each_kind_gets_its_dtype() -> None:
    out = conform(raw(), SCHEMA)
    assert out["n"].dtype == out["b"].dtype == np.float64
    assert out["t"].dtype == "datetime64[us]"
    assert list(out["t"]) == [datetime(2024, 1, 1), datetime(2024, 1, 2, 3)]
    assert list(out["c"]) == ["x", None]


def test_other_columns_are_dropped_and_order_is_the_schemas() -> None:
    shuffled = raw()[["c", "t", "b", "n"]].assign(extra=1)
    assert tuple(conform(shuffled, SCHEMA).columns) == SCHEMA.names


def test_zones_are_turned_to_utc() -> None:
    out = conform(raw(t=pd.to_datetime(["2024-01-01T05:00+05:00"] * 2)), SCHEMA)
    assert list(out["t"]) == [datetime(2024, 1, 1)] * 2


def test_infinities_and_missing_values_become_missing() -> None:
    out = conform(raw(n=[np.inf, None], b=[None, "yes"], t=[None, "2024-01-01"], c=[None, float("nan")]), SCHEMA)
    assert out["n"].isna().all()
    assert np.isnan(out["b"][0])
    assert out["b"][1] == 1
    assert pd.isna(out["t"][0])
    assert list(out["c"]) == [None, None]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("n", ["1", "tall"], r"column 'n', row 1: expected a number, got 'tall'"),
        ("b", [True, "maybe"], r"column 'b', row 1: expected true or false, got 'maybe'"),
        ("t", ["2024-01-01", "soon"], r"column 't', row 1: expected an ISO 8601 date and time, got 'soon'"),
        ("n", [1, [np.float64(1.0), 2]], r"column 'n', row 1: expected a number, got \[1\.0, 2\]$"),
        ("n", [1, np.array([1.0, 2.0])], r"column 'n', row 1: expected a number, got \[1\.0, 2\.0\]$"),
        ("t", ["2024-01-01", [1]], r"column 't', row 1: expected an ISO 8601 date and time, got \[1\]$"),
        ("t", [None, {"a": 1}], r"column 't', row 1: expected an ISO 8601 date and time, got \{'a': 1\}$"),
        ("b", [True, [1]], r"column 'b', row 1: expected a single value, got \[1\]$"),
        ("b", [0.0, 2.5], r"column 'b', row 1: expected true or false, got 2\.5$"),
        ("c", ["x", ["y"]], r"column 'c', row 1: expected a single value, got \['y'\]$"),
        ("n", [1, "9" * 50 + "x" * 100], r"got '9{50}x{49}\.\.\.$"),
    ],
)
def test_a_wrong_value_is_named(column: str, values: list[object], message: str) -> None:
    with pytest.raises(RowError, match=message):
        conform(raw(**{column: values}), SCHEMA)


def test_a_vanished_column_is_named() -> None:
    with pytest.raises(RowError, match=r"column 'n' is missing"):
        conform(raw().drop(columns="n"), SCHEMA)


def test_columns_must_be_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        Schema(columns=(NumericColumn(name="a"), BooleanColumn(name="a")))


def test_a_schema_survives_json() -> None:
    assert Schema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA


@given(st.integers(-(10**15), 10**15))
def test_a_category_is_the_same_however_it_is_typed(number: int) -> None:
    same = {canonical_category(value) for value in (number, str(number), np.int64(number))}
    assert same == {str(number)}


def test_categorical_dtype_is_read_as_strings() -> None:
    assert list(as_strings(pd.Series(pd.Categorical(["a", None, "b"])))) == ["a", None, "b"]
    whole = as_strings(pd.Series(pd.Categorical(["a", "b", "a"], categories=["a", "b", "c"])))
    assert whole.dtype == object
    assert whole.value_counts().to_dict() == {"a": 2, "b": 1}


def test_truth_values_are_conformed_as_their_texts_are() -> None:
    """Of numbers and of truth values all at once, which for hundreds of columns is most of a pass."""
    schema = Schema(columns=(BooleanColumn(name="on"),))
    for values in (np.array([1.0, np.nan, 0.0]), np.array([1, 0, 0]), np.array([True, False, True])):
        found = conform(pd.DataFrame({"on": values}), schema)["on"]
        texts = conform(pd.DataFrame({"on": pd.Series(values, dtype=object)}), schema)["on"]
        pd.testing.assert_series_equal(found, texts)
    with pytest.raises(RowError, match="column 'on', row 1: expected true or false, got 2"):
        conform(pd.DataFrame({"on": [1.0, 2.0]}), schema)
