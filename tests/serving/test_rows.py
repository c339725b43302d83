"""Rows of a request: what fits, what does not, and what the error names."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from registry.conforming import conform
from registry.schema import ImageColumn, LeftOut, NumericColumn, Schema
from registry.scoring import MISSING_TIME, feed
from serving.problems import problem_of
from serving.request import read_request
from serving.rows import LARGEST, MisfitError, RowReader, TooManyRowsError, micros
from tests.handmade import make_frame, make_schema
from tests.serving.conftest import ROW

SCHEMA = make_schema()
KINDS = {column.name: column.kind for column in SCHEMA.columns}


def test_reads_rows_as_the_frame_path_does() -> None:
    """JSON rows give the graph the very arrays that a frame of the same rows gives it."""
    frame = make_frame(50).drop(columns="late")
    frame.loc[3, "amount"] = np.nan
    rows = orjson.loads(frame.to_json(orient="records", date_format="iso"))
    expected = feed(conform(frame, SCHEMA), SCHEMA)
    found = RowReader(SCHEMA).many(rows)
    one = RowReader(SCHEMA)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        if values.dtype == np.float64:
            np.testing.assert_allclose(found[name], values, atol=1e-9)
        else:
            np.testing.assert_array_equal(found[name], values)
    for number, row in enumerate(rows):
        for name, values in one.one(row).items():
            np.testing.assert_array_equal(values[0], found[name][number])


def test_null_is_a_missing_value_everywhere() -> None:
    found = RowReader(SCHEMA).one(dict.fromkeys(ROW))
    assert np.isnan(found["amount"][0, 0])
    assert np.isnan(found["member"][0, 0])
    assert found["when"][0, 0] == MISSING_TIME
    assert found["carrier"][0, 0] == ""


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("carrier", 7, "7"),
        ("carrier", 7.0, "7"),
        ("carrier", True, "true"),
        ("carrier", "", ""),
        ("carrier", "x" * 1000, "x" * 256),
        ("member", 1, 1.0),
        ("member", "No", 0.0),
        ("member", "", np.nan),
        ("amount", 3, 3.0),
        ("amount", 2**64 - 1, float(2**64)),
        ("when", "1970-01-01T00:00:01Z", 1_000_000),
        ("when", "1970-01-01 01:00:00.000001+01:00", 1),
        ("when", "9999-12-31T23:59:59", micros("9999-12-31T23:59:59")),
    ],
)
def test_accepts(column: str, value: object, expected: object) -> None:
    for read in (RowReader(SCHEMA).one, lambda row: RowReader(SCHEMA).many([row])):
        np.testing.assert_equal(read({**ROW, column: value})[column][0, 0], expected)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("amount", "1.5", "a number"),
        ("amount", "NaN", "a number"),
        ("amount", True, "a number"),
        ("amount", [1], "a number"),
        ("amount", {}, "a number"),
        ("amount", 1e300, "a number between"),
        ("amount", -2 * LARGEST, "a number between"),
        ("member", "maybe", "true or false"),
        ("member", 2, "true or false"),
        ("member", [], "true or false"),
        ("when", 1700000000, "an ISO 8601 date and time"),
        ("when", "yesterday", "an ISO 8601 date and time"),
        ("when", "0001-01-01T00:00:00+14:00", "an ISO 8601 date and time"),
        ("when", True, "an ISO 8601 date and time"),
        ("carrier", ["AA"], "text, a number or a boolean"),
        ("carrier", {"a": 1}, "text, a number or a boolean"),
    ],
)
def test_refuses_and_names_row_column_and_value(column: str, value: object, expected: str) -> None:
    bad = {**ROW, column: value}
    with pytest.raises(MisfitError, match=f"row 0, column '{column}': expected {expected}"):
        RowReader(SCHEMA).one(bad)
    with pytest.raises(MisfitError, match=f"row 2, column '{column}': expected {expected}") as caught:
        RowReader(SCHEMA).many([ROW, ROW, bad, bad])
    assert (caught.value.row, caught.value.column) == (2, column)


def test_a_column_that_a_row_lacks_is_named_with_what_was_sent_in_its_place() -> None:
    """Which is nothing that another column is called, however alike."""
    row = {("amout" if name == "amount" else name): value for name, value in ROW.items()}
    for rows in ([row], [ROW, row]):
        reader = RowReader(SCHEMA)
        with pytest.raises(MisfitError, match=r"'amount': the row lacks it \('amout' was sent, which is no col"):
            reader.one(row) if len(rows) == 1 else reader.many(rows)
    alike = SCHEMA.model_copy(
        update={"columns": [SCHEMA.columns[0].model_copy(update={"name": "amounts"}), *SCHEMA.columns]}
    )
    with pytest.raises(MisfitError, match="column 'amounts': the row lacks it; a missing value is written null"):
        RowReader(alike).one(ROW)


@pytest.mark.parametrize("row", [5, None, [], "text", [1]])
def test_a_row_that_is_no_object_is_refused(row: object) -> None:
    with pytest.raises(MisfitError, match="row 0: expected an object of columns"):
        RowReader(SCHEMA).one(row)  # type: ignore[arg-type]
    with pytest.raises(MisfitError, match="row 1: expected an object of columns"):
        RowReader(SCHEMA).many([ROW, row])  # type: ignore[list-item]


def test_time_column_outside_the_schema_is_checked() -> None:
    schema = Schema(columns=(NumericColumn(name="a"),))
    reader = RowReader(schema, time="at")
    assert reader.one({"a": 1})["a"] == 1
    assert reader.many([{"a": 1, "at": "2024-01-01"}, {"a": 2, "at": None}])["a"].shape == (2, 1)
    for read in (reader.one, lambda row: reader.many([row])):
        with pytest.raises(MisfitError, match="row 0, column 'at': expected an ISO 8601"):
            read({"a": 1, "at": "soon"})


def test_unknown_columns_are_counted_not_refused() -> None:
    reader = RowReader(SCHEMA, time="when")
    assert reader.ignored([ROW, ROW]) == 0
    assert reader.ignored([{**ROW, "x": 1}, {**ROW, "x": 1, "y": 2}]) == 3


def test_columns_that_training_left_out_are_not_unknown() -> None:
    """Rows that are sent as they stand in the source hold them; the target among them is worth a word."""
    left_out = (LeftOut(name="constant", reason="one value"), LeftOut(name="row", reason="identifier-like"))
    reader = RowReader(SCHEMA.model_copy(update={"left_out": left_out}), time="when")
    rows = [{**ROW, "constant": 1, "late": "no"}, {**ROW, "row": 7, "other": 2}]
    assert reader.unknown(rows) == ["late", "other"]
    assert reader.ignored(rows) == 2
    assert reader.strange(["constant", "other", "row"]) == ["other"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"instances": [ROW]}, "/invocations"),
        ({"dataframe_split": {"columns": ["amount"], "data": [[1]]}}, "/invocations"),
        ({"dataframe_records": [ROW], "params": {}}, "/invocations"),
        ({"inputs": [ROW]}, "/invocations"),
        (
            {"inputs": [{"name": "amount", "datatype": "FP64", "shape": [1], "data": [1]}], "id": "a", "outputs": []},
            "/v2/",
        ),
    ],
)
def test_a_body_of_another_protocol_is_told_its_path(body: dict[str, object], path: str) -> None:
    with pytest.raises(MisfitError, match=f"got the key '.*' of .*, which is spoken at {path}"):
        read_request(body, KINDS, 10)
    assert read_request({"inputs": [1]}, {"inputs": "numeric"}, 10).rows == [{"inputs": [1]}]


def test_shapes_of_a_request() -> None:
    for parsed in (ROW, [ROW], {"rows": [ROW]}):
        assert read_request(parsed, KINDS, 10).rows == [ROW]
    assert read_request({"rows": [ROW], "ids": ["a"]}, KINDS, 10).ids == ["a"]


def test_a_column_called_rows_is_not_taken_for_the_envelope() -> None:
    assert read_request({"rows": 3}, {"rows": "numeric"}, 10).rows == [{"rows": 3}]
    assert read_request({"rows": [{"rows": 3}]}, {"rows": "numeric"}, 10).rows == [{"rows": 3}]


@pytest.mark.parametrize(
    ("parsed", "message"),
    [
        ([], "expected at least one row"),
        ({"rows": []}, "expected at least one row"),
        ({"rows": 5}, "rows: expected a list of rows, got 5"),
        (5, "expected a row, a list of rows"),
        (None, "expected a row, a list of rows"),
        ({"rows": [ROW], "ids": "a"}, "ids: expected a list of 1"),
        ({"rows": [ROW], "ids": ["a", "b"]}, "one for each row, got 2 of them"),
        ({"rows": [ROW, ROW], "ids": ["a", "a"]}, "expected unique ids, got 'a' twice"),
        ({"rows": [ROW], "ids": [""]}, "row 0: expected an id of 1 to 64 printable"),
        ({"rows": [ROW], "ids": ["x" * 65]}, "row 0: expected an id of 1 to 64 printable"),
        ({"rows": [ROW], "ids": ["a\x00"]}, "row 0: expected an id of 1 to 64 printable"),
        ({"rows": [ROW], "ids": [7]}, "row 0: expected an id of 1 to 64 printable"),
    ],
)
def test_other_shapes_are_refused(parsed: object, message: str) -> None:
    with pytest.raises(MisfitError, match=message):
        read_request(parsed, KINDS, 10)


def test_too_many_rows() -> None:
    with pytest.raises(TooManyRowsError, match="at most 2 in one request, got 3"):
        read_request([ROW] * 3, KINDS, 2)


IMAGES = Schema(columns=(ImageColumn(name="photo", size=224, channels=3),))


def test_images_of_a_request_are_bounded_before_any_is_decoded() -> None:
    with pytest.raises(
        TooManyRowsError, match="at most 891 in one request, with images of 3 x 224 x 224, got 892"
    ) as one:
        RowReader(IMAGES).many([{"photo": "no image"}] * 892)
    assert problem_of(one.value).status == 413
    assert RowReader(IMAGES).many([{"photo": None}] * 20)["photo"].shape == (20, 3, 224, 224)


def test_arrays_are_used_again_unless_they_hold_images() -> None:
    images, table = RowReader(IMAGES), RowReader(SCHEMA)
    assert table.one(ROW)["amount"] is table.one(ROW)["amount"]
    assert images.one({"photo": None})["photo"] is not images.one({"photo": None})["photo"]
