"""The tensors of the Open Inference Protocol against its specification's examples, and against whatever else comes."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import EverfitError, InputError
from serving.encodings import decompress, parse_python
from serving.problems import BodyError, MediaTypeError, TooLargeError
from serving.rows import MisfitError, TooManyRowsError
from serving.tensor_rows import rows_of
from serving.tensors import Output, Tensor, TensorError, read_request, write_answer
from tests.handmade import make_schema

MAX_ROWS = 1000


def binary(inputs: list[tuple[str, str, list[int], bytes]], **more: Any) -> tuple[bytes, bytes]:
    """A body with binary tensors, and the header that says how long its JSON is."""
    described = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        for name, datatype, shape, raw in inputs
    ]
    head = orjson.dumps({"inputs": described, **more})
    return head + b"".join(raw for *_, raw in inputs), b"%d" % len(head)


def strings(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def one(datatype: str, shape: list[int], raw: bytes) -> list[Any]:
    (tensor,) = read_request(*binary([("x", datatype, shape, raw)]), MAX_ROWS).tensors
    return tensor.values


def test_the_specification_s_example_in_json() -> None:
    """The request of the protocol's text, with numbers flat and nested, which mean the same."""
    flat = {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]}
    nested = {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True, False, True]}
    body = orjson.dumps({"id": "42", "inputs": [flat, nested], "outputs": [{"name": "output0"}]})
    asked = read_request(body, None, MAX_ROWS)
    assert (asked.id, asked.outputs, asked.binary) == ("42", [("output0", False)], False)
    assert asked.tensors == [
        Tensor("input0", "UINT32", 2, [1, 2, 3, 4]),
        Tensor("input1", "BOOL", 1, [True, False, True]),
    ]
    again = orjson.dumps({"inputs": [flat | {"data": [[1, 2], [3, 4]]}]})
    assert read_request(again, None, MAX_ROWS).tensors[0] == asked.tensors[0]


def test_the_specification_s_example_in_binary() -> None:
    """The extension's request: one tensor as bytes behind the JSON, one in it, an output asked for as bytes."""
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
                {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True, True, False]},
            ],
            "outputs": [
                {"name": "output0", "parameters": {"binary_data": True}},
                {"name": "output1", "parameters": {"binary_data": False}},
            ],
        }
    )
    asked = read_request(head + struct.pack("<4I", 1, 2, 3, 4), b"%d" % len(head), MAX_ROWS)
    assert asked.tensors[0].values == [1, 2, 3, 4]
    assert asked.tensors[1].values == [True, True, False]
    assert asked.outputs == [("output0", True), ("output1", False)]


def test_the_specification_s_answer() -> None:
    """An output as bytes, a row of three numbers as JSON; the header counts the JSON alone."""
    out = [
        (Output("output0", "FP64", [3, 2], np.arange(6, dtype=np.float32).reshape(3, 2)), True),
        (Output("output1", "BOOL", [2], np.array([True, False])), False),
        (Output("output2", "BYTES", [2, 1], ["a", "\N{SNOWMAN}"]), True),
    ]
    body, header = write_answer({"id": "42"}, out)
    assert header is not None
    head = orjson.loads(body[:header])
    assert [one.get("parameters") for one in head["outputs"]] == [
        {"binary_data_size": 48},
        None,
        {"binary_data_size": 12},
    ]
    assert head["outputs"][1]["data"] == [True, False]
    assert np.frombuffer(body[header : header + 48]).tolist() == [0, 1, 2, 3, 4, 5]
    assert body[header + 48 :] == strings(b"a", "\N{SNOWMAN}".encode())


@pytest.mark.parametrize(
    ("datatype", "code", "values"),
    [
        ("BOOL", "?", [True, False, True]),
        *(
            (f"{sign}INT{8 * size}", f"<{kind}{size}", [0, 1, 127])
            for size in (1, 2, 4, 8)
            for sign, kind in ("Uu", " i")
        ),
        ("FP16", "<f2", [0.5, -2.0, 4.0]),
        ("FP32", "<f4", [0.5, -2.0, 1e30]),
        ("FP64", "<f8", [0.1, -2.0, 1e300]),
    ],
)
def test_every_datatype_as_bytes(datatype: str, code: str, values: list[Any]) -> None:
    """Of one row, which is read another way, and of many."""
    array = np.array(values, dtype=code)
    expected = array.tolist()
    assert one(datatype.strip(), [3], array.tobytes()) == expected
    assert [one(datatype.strip(), [1, 1], array[n : n + 1].tobytes())[0] for n in range(3)] == expected


def test_brain_floats_and_strings() -> None:
    """BF16 is the upper half of a float32; a string may hold anything, and nothing."""
    upper = (np.array([1.5, -3.0], dtype="<f4").view("<u4") >> 16).astype("<u2")
    assert one("BF16", [2], upper.tobytes()) == [1.5, -3.0]
    assert one("BYTES", [3], strings(b"", b"\xff\0", b"abc")) == [b"", b"\xff\0", b"abc"]


def test_what_is_not_finite() -> None:
    """NaN is a missing value; nothing endless is a value; a sum that overflows is neither."""
    assert one("FP64", [2], struct.pack("<2d", np.nan, 1)) == [None, 1.0]
    assert one("FP64", [1], struct.pack("<d", np.nan)) == [None]
    assert one("FP64", [2], struct.pack("<2d", 1e308, 1e308)) == [1e308, 1e308]
    with pytest.raises(TensorError, match="expected finite numbers"):
        one("FP32", [2], struct.pack("<2f", np.nan, -np.inf))


GOOD = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object with inputs"),
        ({}, "inputs: expected a list of tensors"),
        ({"inputs": []}, "inputs: expected a list of tensors"),
        ({"inputs": [1]}, "expected tensors with a name"),
        ({"inputs": [GOOD], "id": 3}, "id: expected text"),
        ({"inputs": [GOOD], "parameters": 3}, "parameters of 'the request': expected an object"),
        ({"inputs": [GOOD], "outputs": {"a": 1}}, "outputs: expected a list"),
        ({"inputs": [GOOD], "outputs": [3]}, "outputs: expected objects with a name"),
        ({"inputs": [GOOD], "outputs": [{"name": "a", "parameters": {"classification": 2}}]}, "'classification' is of"),
        ({"inputs": [GOOD, GOOD]}, "expected each tensor once, got 'x' twice"),
        ({"inputs": [GOOD | {"datatype": "FP46"}]}, "got 'FP46' \\(did you mean 'FP64'"),
        ({"inputs": [GOOD | {"datatype": None}]}, "expected a datatype"),
        ({"inputs": [GOOD | {"shape": []}]}, "expected a shape"),
        ({"inputs": [GOOD | {"shape": [1, 1, 1]}]}, "expected a shape"),
        ({"inputs": [GOOD | {"shape": [0]}]}, "expected a shape"),
        ({"inputs": [GOOD | {"shape": [True]}]}, "expected a shape"),
        ({"inputs": [GOOD | {"shape": [1.0]}]}, "expected a shape"),
        ({"inputs": [GOOD | {"shape": [2]}]}, "expected 2 values, as its shape says, got 1"),
        ({"inputs": [GOOD | {"shape": [1, 10**15]}]}, "expected 1000000000000000 values"),
        ({"inputs": [GOOD | {"data": [[1.0, 2.0]]}]}, "expected rows of 1 values"),
        ({"inputs": [GOOD | {"data": None}]}, "expected data"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 8}}]}, "8 bytes are announced, 0 are there"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": -1}}]}, "-1 bytes are announced"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": "8"}}]}, "8 bytes are announced"),
        (
            {"inputs": [GOOD | {"parameters": {"shared_memory_region": "a"}}]},
            "'shared_memory_region' is of an extension",
        ),
    ],
)
def test_what_is_not_of_the_protocol(content: Any, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        read_request(orjson.dumps(content), None, MAX_ROWS)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "message"),
    [
        ("FP64", [2], b"\0" * 8, "expected 16 bytes for 2 of FP64, got 8"),
        ("FP64", [1, 10**15], b"\0" * 8, "expected 8000000000000000 bytes"),
        ("BYTES", [1, 10**15], strings(b"a"), "its bytes end before"),
        ("BYTES", [2], strings(b"a"), "its bytes end before"),
        ("BYTES", [1], struct.pack("<I", 2**32 - 1) + b"a", "its bytes end before"),
        ("BYTES", [1], strings(b"a") + b"b", "1 bytes follow them"),
    ],
)
def test_bytes_that_are_not_what_they_are_said_to_be(datatype: str, shape: list[int], raw: bytes, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        one(datatype, shape, raw)


@pytest.mark.parametrize("header", [b"", b"-1", b"0", b"abc", b"1e3", b"9" * 5_000, b"999", "\u0661".encode()])
def test_a_header_that_cannot_be(header: bytes) -> None:
    body, _ = binary([("x", "FP64", [1], b"\0" * 8)])
    with pytest.raises(TensorError, match="Inference-Header-Content-Length: expected 1 to"):
        read_request(body, header, MAX_ROWS)


def test_bytes_that_nobody_announced_and_too_many_rows() -> None:
    body, header = binary([("x", "FP64", [1], b"\0" * 8)])
    with pytest.raises(TensorError, match="8 bytes of tensors are announced, 9 follow the JSON"):
        read_request(body + b"\0", header, MAX_ROWS)
    with pytest.raises(TooManyRowsError, match="at most 1000 rows"):
        one("BOOL", [1001], b"\0" * 1001)
    with pytest.raises(MisfitError, match=r"row 1, input 'x': expected INT64, got 1\.5"):
        read_request(orjson.dumps({"inputs": [GOOD | {"datatype": "INT64", "shape": [2], "data": [1, 1.5]}]}), None, 9)


WHEN = np.array(["2024-03-01T10:00:00", "NaT"], dtype="datetime64[us]").view(np.int64)


def test_columns_become_rows() -> None:
    """Each kind, with what is missing: NaN, empty strings, numpy's NaT."""
    inputs = [
        ("when", "INT64", [2, 1], WHEN.tobytes()),
        ("amount", "FP32", [2], struct.pack("<2f", 0.5, np.nan)),
        ("weight", "INT32", [2, 1], struct.pack("<2i", 2, 3)),
        ("member", "BOOL", [2, 1], b"\1\0"),
        ("carrier", "BYTES", [2, 1], strings(b"AA", b"")),
    ]
    asked = read_request(*binary(inputs), MAX_ROWS)
    assert rows_of(asked.tensors, make_schema(), "when") == [
        {"when": "2024-03-01T10:00:00", "amount": 0.5, "weight": 2, "member": True, "carrier": "AA"},
        {"when": None, "amount": None, "weight": 3, "member": False, "carrier": None},
    ]


def test_one_tensor_holds_all_columns_in_their_order() -> None:
    micros = 1_709_287_200_000_000
    tensor = Tensor("whatever", "FP64", 5, [float(micros), 0.5, 2.0, 1.0, 3.0, None, None, None, None, None])
    first, second = rows_of([tensor], make_schema(), "when")
    assert first == {"when": "2024-03-01T10:00:00", "amount": 0.5, "weight": 2.0, "member": 1.0, "carrier": 3.0}
    assert set(second.values()) == {None}
    with pytest.raises(TensorError, match="one of 5 columns, when, amount, weight, member, carrier; got 4"):
        rows_of([Tensor("whatever", "FP64", 4, [0.0] * 4)], make_schema(), "when")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([Tensor("when", "INT64", 1, [0, 0]), Tensor("amount", "FP64", 1, [0.0])], "2 in 'when', 1 in 'amount'"),
        ([Tensor("amount", "FP64", 2, [0.0, 0.0])], "'amount': expected one column, got 2"),
        ([Tensor("when", "FP32", 1, [0.0])], "'when': expected BYTES of ISO 8601 .* got FP32"),
        ([Tensor("when", "INT64", 1, [2**62])], "row 0, column 'when': expected microseconds"),
        ([Tensor("carrier", "BYTES", 1, [b"a", b"\xff"])], "row 1, column 'carrier': expected UTF-8"),
    ],
)
def test_tensors_that_are_no_rows(tensors: list[Tensor], message: str) -> None:
    with pytest.raises((TensorError, MisfitError), match=message):
        rows_of(tensors, make_schema(), "when")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda raw: zlib.compress(raw, wbits=-15)])
def test_compressed_bodies(pack: Any) -> None:
    """gzip, and deflate with and without a header, up to the bound and not beyond it."""
    encoding = b"gzip" if pack is gzip.compress else b"deflate"
    assert decompress(pack(b"a" * 1000), encoding, 1000) == b"a" * 1000
    with pytest.raises(TooLargeError, match="at most 999 bytes"):
        decompress(pack(b"a" * 1000), encoding, 999)
    for damaged in (pack(b"a" * 1000)[:-3], pack(b"a" * 1000) + b"more", b"\x1f\x8b" + b"x" * 30, b""):
        with pytest.raises(BodyError, match="data"):
            decompress(damaged, encoding, 1000)


def test_a_body_that_unpacks_to_a_thousand_times_its_size_takes_no_memory() -> None:
    bomb = gzip.compress(b"\0" * 100_000_000, compresslevel=9)
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        decompress(bomb, b"gzip", 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    with pytest.raises(MediaTypeError, match="expected gzip or deflate, got 'br'"):
        decompress(b"", b"br", 10)


def test_json_as_python_writes_it() -> None:
    """NaN is a missing value; what else JSON does not have is none."""
    assert parse_python(b'{"a": [NaN, 1.5, "NaN"]}') == {"a": [None, 1.5, "NaN"]}
    nan = b"[NaN, "
    for bad in (
        b"Infinity]",
        b"-Infinity]",
        b"1e999]",
        b"9" * 5000 + b"]",
        b'"\\ud800"]',
        b"[" * 100_000,
        b"",
        b"\xff]",
    ):
        with pytest.raises(BodyError, match="not JSON"):
            parse_python(nan + bad)


_BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["inputs", "name", "datatype", "shape", "data", "parameters", "binary_data_size", "outputs", "id"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    ).map(lambda made: json.dumps(made).encode()),
)


@settings(max_examples=150, deadline=None)
@given(body=_BODIES, header=st.none() | st.binary(max_size=6) | st.integers(0, 300).map(lambda n: b"%d" % n))
def test_whatever_comes_is_read_or_refused(body: bytes, header: bytes | None) -> None:
    try:
        read_request(body, header, MAX_ROWS)
        said = ""
    except EverfitError as error:
        said = str(error)
    assert len(said) < 600


@settings(max_examples=150, deadline=None)
@given(
    datatype=st.sampled_from(["BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES"]),
    shape=st.lists(st.integers(-1, 6) | st.sampled_from([10**9, 10**18]), max_size=3),
    raw=st.binary(max_size=64),
    name=st.sampled_from(["when", "amount", "member", "carrier", "other"]),
    cut=st.integers(-3, 3),
)
def test_whatever_bytes_come_are_rows_or_refused(
    datatype: str, shape: list[int], raw: bytes, name: str, cut: int
) -> None:
    """Never more than the bytes that came is made of what is announced."""
    body, header = binary([(name, datatype, shape, raw)])
    try:
        asked = read_request(body, b"%d" % (int(header) + cut), MAX_ROWS)
        rows = rows_of(asked.tensors, make_schema(), "when")
    except InputError:
        return
    assert 1 <= len(rows) <= len(raw)
    orjson.dumps(rows)
