"""Kinds, useless columns and the schema, as the values show them and as the user overrules them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from registry.errors import RowError, TaskError
from registry.inference import RESERVED, Kinds, describe, infer_kinds, infer_problem, kind_of, learn_schema, useless
from registry.scoring import OUTPUTS
from registry.task import Columns
from tests.handmade import make_frame, make_task


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, 2.0, None], "numeric"),
        ([1, 2, 3, 1], "numeric"),
        (["1.5", "2", None, "-3e4"], "numeric"),
        ([Decimal("1.5"), Decimal(2)], "numeric"),
        ([0, 1, 1, 0], "boolean"),
        (["0", "1", "1"], "boolean"),
        (["yes", "no", None], "boolean"),
        (["Yes", "No", "Yes"], "boolean"),
        ([True, False, None], "boolean"),
        ([True, False, True], "boolean"),
        (["y", "n", "y"], "categorical"),
        ([1, 2, 2, 1], "numeric"),
        (["2024-01-01", "2024-02-01T12:00:00+02:00", None], "datetime"),
        ([pd.Timestamp("2024-01-01"), pd.NaT], "datetime"),
        ([date(2024, 1, 1), date(2024, 2, 1)], "datetime"),
        (["2024-01-01", "soon"], "categorical"),
        (["007", "008"], "categorical"),
        (["a", "b", 3], "categorical"),
        (pd.Categorical([1, 2, 1]), "categorical"),
    ],
)
def test_the_kind_that_values_show(values: Any, kind: str) -> None:
    column = pd.Series(values)
    assert kind_of(column) == kind


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None] * 100, "all values are missing"),
        (["same"] * 100, "constant: every value is 'same'"),
        (range(100), "whole numbers that run"),
        (range(100, 0, -1), "whole numbers that run"),
        ([f"user-{number}" for number in range(100)], "100 different texts in 100 rows"),
        (pd.to_timedelta(range(100), unit="s"), "type timedelta64"),
        ([[1], [2]] * 50, "type list"),
        ([b"x", b"y"] * 50, "type bytes are not supported; decode them"),
    ],
)
def test_useless_columns_say_why(values: Any, reason: str) -> None:
    assert reason in str(useless(pd.Series(values)))


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=100),  # distinct, but measured
        np.random.default_rng(0).permutation(100),  # whole and distinct, but in no order
        pd.date_range("2024-01-01", periods=100),
        [f"2024-01-01T00:{minute:02}:{second:02}" for minute in range(10) for second in range(10)],
        [None] * 50 + ["set"] * 50,  # that it is set may tell something
    ],
)
def test_useful_columns_stay(values: Any) -> None:
    assert useless(pd.Series(values)) is None


def infer(frame: pd.DataFrame, **columns: Any) -> Kinds:
    return infer_kinds(frame, Columns(**columns), target="late", time="when")


def test_the_user_wins() -> None:
    frame = make_frame(200).assign(row=range(200), code=[1, 2] * 100)
    found = infer(frame, kinds={"row": "categorical", "code": "categorical"}, exclude=("weight",))
    assert found.kinds["row"] == found.kinds["code"] == "categorical"
    assert [(one.name, one.reason) for one in found.left_out] == [("weight", "excluded by the task")]
    assert list(found.kinds) == ["when", "amount", "member", "carrier", "row", "code"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"kinds": {"carier": "categorical"}}, r"columns\.kinds: .*'carier' \(did you mean 'carrier'\?\)"),
        ({"exclude": ("amout",)}, r"columns\.exclude: .*'amout' \(did you mean 'amount'\?\)"),
        ({"exclude": ("late",)}, "'late' is the target"),
        ({"kinds": {"when": "numeric"}}, "'when' is the time column, so its kind is datetime, not numeric"),
    ],
)
def test_wrong_overrides_are_task_errors(columns: dict[str, Any], expected: str) -> None:
    with pytest.raises(TaskError, match=expected):
        infer(make_frame(100), **columns)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([0, 1] * 50, "binary"),
        (["yes", "no", None] * 30, "binary"),
        ([3.5, 7.0] * 50, "binary"),
        (["a", "b", "c"] * 30, "multiclass"),
        ([1, 2, 3, 4] * 30, "multiclass"),
        (["1", "2", "3"] * 30, "multiclass"),
        ([1.0, 2.0, np.nan, 3.0] * 30, "multiclass"),
        (np.random.default_rng(0).normal(size=100), "regression"),
        (list(range(100)) * 5, "regression"),
        ([0.5, 1.5, 2.5] * 30, "regression"),
    ],
)
def test_the_problem_a_target_poses(values: Any, problem: str) -> None:
    assert infer_problem(pd.Series(values)) == problem


def test_the_schema_knows_the_training_part_only() -> None:
    frame = make_frame(1_000)
    frame["late_column"] = ["before"] * 700 + ["after"] * 300
    frame.loc[990:, "amount"] = 1e6
    frame.loc[:69, "weight"] = np.nan
    frame.loc[995:, "carrier"] = "ZZ"
    schema = learn_schema(frame, frame.iloc[:700], make_task())
    amount, weight = schema.of("numeric")
    assert amount.high < 10  # type: ignore[union-attr, operator]
    assert weight.missing == pytest.approx(0.1)
    assert schema.of("categorical")[0].categories == ("AA", "BB", "CC")  # type: ignore[union-attr]
    assert schema.left_out[0].name == "late_column"
    assert "constant in the training part" in schema.left_out[0].reason


def test_integers_and_rare_categories() -> None:
    frame = pd.DataFrame({"n": [1, 2, 3, None] * 200, "c": ["a"] * 500 + ["b"] * 296 + ["rare"] * 4})
    schema = describe(frame, Kinds({"n": "numeric", "c": "categorical"}, ()))
    assert schema.columns[0].integer  # type: ignore[union-attr]
    assert schema.columns[1].categories == ("a", "b")  # type: ignore[union-attr]
    assert schema.columns[1].distinct == 3  # type: ignore[union-attr]


def test_a_value_that_breaks_a_declared_kind_is_named() -> None:
    with pytest.raises(RowError, match="column 'carrier', row 0: expected a number"):
        describe(make_frame(10), Kinds({"carrier": "numeric"}, ()))


def test_names_of_outputs_are_left_out() -> None:
    assert set(RESERVED) == set(OUTPUTS)
    found = infer(make_frame(100).assign(set=1.5, __id__=2.5, **{"everfit:x": 3.5, "": 4.5}))
    assert {one.name for one in found.left_out} == {"set", "__id__", "everfit:x", ""}
    assert all("to have it used" in one.reason for one in found.left_out)
