"""A column of prose: told from categories, read alike by every door, learnt from, and watched."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monitor.measurements import Measurement
from monitor.measures import measure_all
from monitor.views import View
from registry.conforming import conform
from registry.inference import describe, infer_kinds, kind_of, useless
from registry.schema import Schema, TextColumn
from registry.scoring import feed
from registry.task import Columns, TaskSpec
from registry.texts import MAX_TEXT_LENGTH, MAX_WORDS, TextNumbers, frequent_words
from registry.yardstick import encode, lean, width
from retrain.checks import examine
from serving.openapi import example_row, row_schema
from serving.rows import MisfitError, RowReader
from tests.handmade import make_bundle, make_frame
from tests.monitor.sides import side_of

COLUMN = TextColumn(name="letter", words=("late", "lost", "\u00fcber"))
AWKWARD = ["Late, so LATE!", "", None, "\u00dcber 17 lost", "x" * (MAX_TEXT_LENGTH + 5) + " late", "  ", "laters"]


def letters(rows: int, *, seed: int = 0, more: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    vocabulary = [
        "the",
        "parcel",
        "came",
        "late",
        "lost",
        "broken",
        "fine",
        "quickly",
        "again",
        "and",
        "we",
        "thank",
        "you",
    ]
    return [
        f"order {seed}-{row}: " + " ".join(rng.choice(vocabulary, size=rng.integers(4, 12) + more))
        for row in range(rows)
    ]


def test_prose_is_told_from_names_and_numbers() -> None:
    assert kind_of(pd.Series(letters(300))) == "text"
    assert kind_of(pd.Series([f"N{number}" for number in range(300)])) == "categorical"
    assert kind_of(pd.Series(letters(20) * 20)) == "categorical"
    for code in (
        "{0:032x}"[:-1] + "}-a-b-c-d",
        "10.0.{0}.1",
        "ORD-2024-{0}-X-Y",
        "a.b.c.{0}@mail.example",
        "no {0} of an order",
    ):
        values = pd.Series([code.format(row) for row in range(300)])
        assert kind_of(values) == "categorical", code
        assert "identifier-like" in (useless(values) or "")
    found = infer_kinds(pd.DataFrame({"letter": letters(300), "y": 1}), Columns(), target="y")
    assert found.kinds == {"letter": "text"}
    assert found.left_out == ()


def test_words_are_those_of_many_texts_and_not_of_nearly_all() -> None:
    texts = ["a late parcel", "a late letter", "a lost parcel", "a day"]
    assert frequent_words(texts) == ("late", "parcel")
    many = [f"word{number % 300}" for number in range(3_000)]
    assert len(frequent_words(many)) == MAX_WORDS


def test_every_door_reads_a_text_alike() -> None:
    """Frame, request (one row and many), and the file for MLflow."""
    schema = Schema(columns=(COLUMN,))
    frame = pd.DataFrame({"letter": AWKWARD})
    expected = feed(conform(frame, schema), schema)["letter"]
    assert expected.shape == (len(AWKWARD), 5)
    assert expected[0].tolist() == [14, 3, 1, 0, 0]
    assert np.isnan(expected[1:3]).all()
    assert expected[3].tolist() == [12, 3, 0, 1, 1]
    assert expected[4].tolist() == [MAX_TEXT_LENGTH, 1, 0, 0, 0]
    reader, rows = RowReader(schema), [{"letter": text} for text in AWKWARD]
    np.testing.assert_array_equal(reader.many(rows)["letter"], expected)
    for row, numbers in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(reader.one(row)["letter"], [numbers])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Any type hint is inferred as AnyType", UserWarning)
        model = importlib.import_module("registry.pyfunc_model")
    np.testing.assert_array_equal(model.to_input(frame, COLUMN.model_dump()), expected)
    np.testing.assert_array_equal(encode(conform(frame, schema), schema), expected)
    assert width(lean(schema).columns[0]) == 2


def test_a_request_that_is_no_text_is_refused() -> None:
    with pytest.raises(MisfitError, match="row 0, column 'letter': expected text, got 17"):
        RowReader(Schema(columns=(COLUMN,))).one({"letter": 17})


def test_the_documentation_shows_one() -> None:
    schema = Schema(columns=(COLUMN,))
    assert RowReader(schema).one(example_row(schema))["letter"][0, 2:].tolist() == [1, 1, 1]
    assert row_schema(schema)["properties"]["letter"]["type"] == ["string", "null"]


def test_a_text_that_is_as_long_as_the_answer_is_a_leak() -> None:
    """Checks before training read its length."""
    frame = pd.DataFrame({"y": np.arange(400.0) % 37, "x": np.random.default_rng(0).normal(size=400)})
    frame["letter"] = ["so it was " * (int(y) + 1) + f"in {row}" for row, y in enumerate(frame["y"])]
    task = TaskSpec.model_validate(
        {"name": "t", "source": {"kind": "file", "path": "x"}, "target": "y", "problem": "regression", "metric": "rmse"}
    )
    assert any(found.column == "letter" for found in examine(frame, task))


@pytest.fixture
def view(tmp_path: Path) -> View:
    """A window whose letters are longer than the reference's, of a champion that has never read them."""
    bundle = make_bundle(tmp_path / "bundle")
    window, reference = side_of(bundle, make_frame(500)), side_of(bundle, make_frame(600, seed=1))
    schema = bundle.manifest.data_schema
    letter = describe(pd.DataFrame({"letter": letters(300)}), infer_kinds(_table(300), Columns(), target="y"))
    wider = Schema(columns=(*schema.columns, *letter.columns))
    sides = [
        dataclasses.replace(side, columns=side.inputs.assign(letter=conform(_table(len(side), more), letter)["letter"]))
        for side, more in ((window, 6), (reference, 0))
    ]
    return View(sides[0], sides[1], bundle.manifest.model_copy(update={"data_schema": wider}))


def _table(rows: int, more: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"letter": letters(rows, seed=7 + more, more=more), "y": 1})


def _of(made: tuple[Measurement, ...], name: str, subject: str | None = "letter") -> Measurement:
    (found,) = (one for one in made if one.name == name and one.subject == subject)
    return found


def test_longer_texts_are_a_shift(view: View) -> None:
    made = measure_all(view)
    assert _of(made, "shift").p_value < 1e-8
    assert _of(made, "shift").value > 0.7
    assert _of(made, "domain_shift", None).p_value < 1e-9
    assert _of(made, "missing").value == 0
    same = measure_all(dataclasses.replace(view, window=view.reference))
    assert _of(same, "shift").value == 0


def test_texts_that_vanish_and_repeat_are_seen(view: View) -> None:
    gone = view.window.inputs.copy()
    gone.loc[:249, "letter"] = np.nan
    made = measure_all(dataclasses.replace(view, window=dataclasses.replace(view.window, columns=gone)))
    assert _of(made, "missing").value == 0.5
    assert _of(made, "duplicates", None).value == 0
    assert TextNumbers(()).of("a b").tolist() == [3, 2]
