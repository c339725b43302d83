"""What columns and targets look like that are written otherwise than they are meant."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from retrain.notation import misread, spellings

NOW = "it is read as categories"


def told(values: list[Any]) -> list[str]:
    return [f"{one.message}; {one.remedy}" for one in misread(pd.Series(values), "price", NOW)]


@pytest.mark.parametrize(
    ("values", "message", "remedy"),
    [
        (["0,5", "1,25", None], "2 of 2 values are numbers with a decimal comma, such as '0,5'", "decimal=',')"),
        (["1.234,50", "7,10"], "numbers with a decimal comma, such as '1.234,50'", "decimal=',', thousands='.')"),
        (["3,5 kg", "12,25 kg"], "numbers with a decimal comma, such as '3,5 kg'", "write 1234.5 for a number"),
        ([f"{n},000.00 EUR" for n in range(30)], "numbers with thousands or units", "write 1234.5 for a number"),
        ([f"${n}" for n in range(30)], "30 of 30 values are numbers with thousands or units, such as '$0'", "1234.5"),
        (["31.01.2024 08:00", "01.02.2024"], "dates that are no ISO 8601", "pd.to_datetime(frame['price'], dayfirst="),
        ([1, 2, 3, "n/a"], "mixed types: 3 numbers and 1 text such as 'n/a'", "clear the texts"),
    ],
)
def test_what_is_likely_to_be_meant_otherwise(values: list[Any], message: str, remedy: str) -> None:
    (line,) = told(values)
    assert message in line
    assert NOW in line
    assert remedy in line


@pytest.mark.parametrize(
    "values",
    [
        [1.5, 2.0],
        ["1.5", "2"],
        ["red", "green", "1,5"],
        ["10.0.0.1", "10.0.0.2"],
        ["10.10.10.1", "10.10.10.2"],
        ["N14228", "N24211"],
        ["12 A", "7 B", "9 A"],
        ["10%", "20%", "40%"],
        ["5 kg", "10 kg"],
        [pd.Timestamp("2024-01-31"), pd.Timestamp("2024-02-01")],
        [[1, 2], [3]],
        [None, None],
    ],
)
def test_what_is_meant_as_it_is_read(values: list[Any]) -> None:
    assert told(values) == []


def test_a_class_spelt_in_several_ways() -> None:
    (one,) = spellings(pd.Series(["yes"] * 5 + ["Yes"] * 2 + ["yes "] + ["no"]))
    assert one.message == "classes that differ in case or blanks alone: 'yes', 'Yes', 'yes '"
    assert one.rows == 3
    assert not list(spellings(pd.Series(["yes", "no", True])))
