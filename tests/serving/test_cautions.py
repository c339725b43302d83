"""What is said of rows that fit: outside of what training has seen, or missing where nothing was."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from registry.schema import (
    BooleanColumn,
    CategoricalColumn,
    DatetimeColumn,
    ImageColumn,
    NumericColumn,
    Schema,
    TextColumn,
)
from serving.cautions import Cautions
from serving.rows import RowReader

SCHEMA = Schema(
    columns=(
        NumericColumn(name="amount", low=-4, high=4),
        NumericColumn(name="weight", low=0, high=12, missing=0.1),
        BooleanColumn(name="member"),
        CategoricalColumn(name="carrier", categories=("AA", "BB"), distinct=2),
        CategoricalColumn(name="note", categories=("x",), distinct=1, missing=0.5),
        TextColumn(name="said", words=("late",)),
        DatetimeColumn(name="when", low=datetime(2024, 1, 1), high=datetime(2024, 3, 1)),
    )
)
ROW = {
    "amount": 1.0,
    "weight": 2,
    "member": False,
    "carrier": "ZZ",
    "note": None,
    "said": "late again",
    "when": "2024-02-01T12:00:00",
}
RANGE = "2024-01-01T00:00 to 2024-03-01T00:00"


def told(*rows: dict[str, Any], schema: Schema = SCHEMA) -> list[str]:
    """What is said of rows; of each alone the quick form must say the same."""
    reader, cautions = RowReader(schema), Cautions(schema)
    found = cautions.of(reader.many(rows))
    for row in rows:
        values = reader.values(row)
        assert cautions.one(values) == cautions.of(reader.together([values]))
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"weight": None}, []),
        ({"when": "2023-12-01"}, []),
        ({"when": datetime.now().isoformat()}, []),
        ({"amount": 99}, ["amount: 99 is outside the range seen in training, -4 to 4"]),
        ({"weight": -1}, ["weight: -1 is outside the range seen in training, 0 to 12"]),
        ({"when": "1970-01-01"}, [f"when: 1970-01-01T00:00 is far before the moments of training, {RANGE}"]),
        ({"when": "2231-01-01"}, [f"when: 2231-01-01T00:00 is far beyond now and the moments of training, {RANGE}"]),
        *(
            ({name: None}, [f"{name}: missing, which it never was in training"])
            for name in ("amount", "member", "carrier", "said", "when")
        ),
    ],
)
def test_what_is_odd_about_a_row_is_said(change: dict[str, Any], said: list[str]) -> None:
    assert told({**ROW, **change}) == said


def test_of_many_rows_the_first_stands_for_the_others() -> None:
    odd = {**ROW, "amount": 99, "carrier": None}
    assert told(ROW, odd, odd, {**odd, "amount": None}) == [
        "amount: 99 is outside the range seen in training, -4 to 4 (and 1 more row)",
        "amount: missing, which it never was in training",
        "carrier: missing, which it never was in training (and 2 more rows)",
    ]


def test_what_is_known_to_be_full_is_not_looked_at() -> None:
    feed = RowReader(SCHEMA).many([{**ROW, "carrier": ""}])
    assert Cautions(SCHEMA).of(feed, {"carrier"}) == []


def test_a_column_without_a_range_says_nothing_and_an_image_only_that_it_is_missing() -> None:
    """Which the row says that was sent: one of the mean colour is no missing one."""
    schema = Schema(columns=(NumericColumn(name="a", missing=1.0), ImageColumn(name="scan")))
    bare: dict[str, Any] = {"a": 5, "scan": None}
    assert told(bare, schema=schema) == []
    said = ["scan: missing, which it never was in training (and 1 more row)"]
    assert Cautions(schema).of_images([bare, {**bare, "scan": "aGk="}, bare]) == said
    often = Schema(columns=(ImageColumn(name="scan", missing=0.2),))
    assert Cautions(often).of_images([bare]) == Cautions(SCHEMA).of_images([ROW]) == []


def test_they_are_bounded() -> None:
    schema = Schema(columns=tuple(NumericColumn(name=f"c{number}", low=0, high=1) for number in range(50)))
    found = told({column.name: 5 for column in schema.columns}, schema=schema)
    assert (len(found), found[-1]) == (21, "and 30 more")
