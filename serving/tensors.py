"""Tensors of the Open Inference Protocol (V2), as JSON and as bytes behind it: the binary tensor data extension.

    Inference-Header-Content-Length: h      body = h bytes of JSON, then the bytes of each binary tensor, in its order

Numbers are little-endian and row by row; BYTES are strings, each behind its length in 4 bytes. Only shapes [n] and
[n, k] are read: rows, and their columns. A tensor's bytes are read in place: nothing larger than the body is made of
what a request announces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from registry.errors import InputError, did_you_mean
from serving.encodings import parse_python
from serving.quoting import shorten, shown
from serving.rows import MisfitError, TooManyRowsError

BYTES, BOOL, FP64, INT64 = "BYTES", "BOOL", "FP64", "INT64"

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2"}
_WHOLE = {f"{sign}INT{8 * size}": f"<{kind}{size}" for size in (1, 2, 4, 8) for sign, kind in (("", "i"), ("U", "u"))}
DTYPES = {name: np.dtype(code) for name, code in ({BOOL: "u1"} | _FLOATS | _WHOLE).items()}
"""Numbers as bytes; BF16 are the upper halves of FP32."""

_ALONE = {FP64: Struct("<d"), "FP32": Struct("<f"), INT64: Struct("<q"), "INT32": Struct("<i"), BOOL: Struct("<?")}
"""The quick way to a tensor of one number."""

_LENGTH = Struct("<I")
LENGTH_BYTES = _LENGTH.size
"""Before each of BYTES."""

_JSON_TYPES: dict[str, frozenset[type]] = {
    BYTES: frozenset({str, type(None)}),
    BOOL: frozenset({bool, type(None)}),
    **dict.fromkeys(_FLOATS, frozenset({int, float, type(None)})),
    **dict.fromkeys(_WHOLE, frozenset({int, type(None)})),
}
_NOT_HERE = frozenset({"shared_memory_region", "classification", "sequence_id"})
"""Parameters that would change what an answer means, of extensions this server does not have."""


class TensorError(InputError):
    """A request that does not keep to the protocol."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input: `width` columns of n rows, their values row by row. None is a missing number; BYTES are `str` where
    they came as JSON, else `bytes`."""

    name: str
    datatype: str
    width: int
    values: list[Any]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.values) // self.width


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request: its tensors, and how it wants which outputs; `outputs` is None for all of them."""

    id: str | None
    tensors: list[Tensor]
    outputs: list[tuple[str, bool]] | None
    binary: bool
    """Whether outputs are sent as bytes where nothing else is said."""
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """An output of n rows: numbers or truth values as an array of shape `shape`, or n strings."""

    name: str
    datatype: str
    shape: list[int]
    values: npt.NDArray[Any] | Sequence[str]

    def plain(self) -> list[Any]:
        """The values for JSON, row by row."""
        return self.values.ravel().tolist() if isinstance(self.values, np.ndarray) else list(self.values)

    def raw(self) -> bytes:
        """The values as bytes."""
        if not isinstance(self.values, np.ndarray):
            return packed([text.encode() for text in self.values])
        return self.values.astype(np.bool_ if self.datatype == BOOL else DTYPES[self.datatype], copy=False).tobytes()


def packed(texts: Iterable[bytes]) -> bytes:
    """BYTES as they are sent: each behind its length."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))


def read_request(body: bytes, header: bytes | None, max_rows: int) -> InferRequest:
    """An inference request; `header` is what `Inference-Header-Content-Length` says.

    Raises `BodyError` for what is not JSON, `TensorError` for what is not of the protocol, `MisfitError` for a value
    that is not of its tensor's datatype, `TooManyRowsError` above `max_rows`.
    """
    size = _header_size(header, len(body))
    parsed = parse_python(body if size == len(body) else body[:size])
    if not isinstance(parsed, dict):
        raise TensorError(f"expected an object with inputs, got {shown(parsed)}")
    one = parsed.get("id")
    if one is not None and not isinstance(one, str):
        raise TensorError(f"id: expected text, got {shown(one)}")
    parameters = _parameters(parsed, "the request")
    tensors = _tensors(parsed.get("inputs"), memoryview(body)[size:], max_rows)
    binary = parameters.get("binary_data_output", False) is True
    return InferRequest(one, tensors, _wanted(parsed.get("outputs"), binary), binary, parameters)


def write_answer(answer: dict[str, Any], outputs: Sequence[tuple[Output, bool]]) -> tuple[bytes, int | None]:
    """The body of an answer, and how many bytes of it are JSON where tensors follow as bytes. Each output says whether
    it goes as bytes. A number that is not finite is null in JSON."""
    described, pieces = [], [b""]
    for output, binary in outputs:
        about: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if binary:
            pieces.append(raw := output.raw())
            about["parameters"] = {"binary_data_size": len(raw)}
        else:
            about["data"] = output.plain()
        described.append(about)
    pieces[0] = orjson.dumps(answer | {"outputs": described})
    return (pieces[0], None) if len(pieces) == 1 else (b"".join(pieces), len(pieces[0]))


def _header_size(header: bytes | None, size: int) -> int:
    if header is None:
        return size
    if not header.isdigit() or len(header) > 12 or not 0 < int(header) <= size:
        shown = header[:40].decode("latin-1")
        raise TensorError(f"Inference-Header-Content-Length: expected 1 to {size}, the body's bytes, got {shown!r}")
    return int(header)


def _parameters(of: dict[str, Any], whose: str) -> dict[str, Any]:
    found = of.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise TensorError(f"parameters of {shown(whose)}: expected an object, got {shown(found)}")
    if not _NOT_HERE.isdisjoint(found) and (name := next((one for one in _NOT_HERE if found.get(one)), None)):
        raise TensorError(f"parameters of {shown(whose)}: {name!r} is of an extension that this server does not have")
    return found


def _wanted(outputs: object, binary: bool) -> list[tuple[str, bool]] | None:
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise TensorError(f"outputs: expected a list, got {shown(outputs)}")
    found: dict[str, bool] = {}
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(name := output.get("name"), str):
            raise TensorError(f"outputs: expected objects with a name, got {shown(output)}")
        found[name] = _parameters(output, name).get("binary_data", binary) is True
    return list(found.items())


def _tensors(inputs: object, rest: memoryview, max_rows: int) -> list[Tensor]:
    if not isinstance(inputs, list) or not inputs:
        raise TensorError(f"inputs: expected a list of tensors, got {shown(inputs)}")
    tensors, at = {}, 0
    for place, given in enumerate(inputs):
        tensor, taken = _tensor(given, place, rest[at:], max_rows)
        at += taken
        if tensor.name in tensors:
            raise TensorError(f"inputs: expected each tensor once, got {shown(tensor.name)} twice")
        tensors[tensor.name] = tensor
    if at != len(rest):
        raise TensorError(f"inputs: {at} bytes of tensors are announced, {len(rest)} follow the JSON")
    return list(tensors.values())


def _tensor(given: Any, place: int, rest: memoryview, max_rows: int) -> tuple[Tensor, int]:
    """A tensor, and how many bytes of `rest` are its own."""
    if not isinstance(given, dict) or not isinstance(name := given.get("name"), str):
        raise TensorError(f"inputs: expected tensors with a name, got {shown(given)} at place {place}")
    datatype = given.get("datatype")
    if not isinstance(datatype, str) or datatype not in _JSON_TYPES:
        near = did_you_mean(str(datatype)[:20], _JSON_TYPES)
        raise TensorError(f"{_quoted(name)}: expected a datatype of the protocol, got {shown(datatype)}{near}")
    rows, width = _shape(given.get("shape"), name, max_rows)
    size = _parameters(given, name).get("binary_data_size")
    if size is None:
        values = _flat(given.get("data"), rows, width, name)
        return Tensor(name, datatype, width, _checked(values, datatype, width, name)), 0
    if type(size) is not int or not 0 <= size <= len(rest):
        raise TensorError(f"{_quoted(name)}: {shorten(size)} bytes are announced, {len(rest)} are there")
    return Tensor(name, datatype, width, _values(rest[:size], datatype, rows * width, name)), size


def _shape(shape: object, name: str, max_rows: int) -> tuple[int, int]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(type(n) is int and n > 0 for n in shape):
        raise TensorError(f"{_quoted(name)}: expected a shape [rows] or [rows, columns], got {shown(shape)}")
    if shape[0] > max_rows:
        raise TooManyRowsError(f"{_quoted(name)}: expected at most {max_rows} rows in one request, got {shape[0]}")
    return shape[0], shape[1] if len(shape) == 2 else 1


def _flat(data: Any, rows: int, width: int, name: str) -> list[Any]:
    if not isinstance(data, list) or not data:
        raise TensorError(f"{_quoted(name)}: expected data, a list of {rows * width} values, got {shown(data)}")
    flat: list[Any] = data
    if isinstance(data[0], list):
        if any(not isinstance(row, list) or len(row) != width for row in data):
            raise TensorError(f"{_quoted(name)}: expected rows of {width} values each")
        flat = list(chain.from_iterable(data))
    if len(flat) != rows * width:
        raise TensorError(f"{_quoted(name)}: expected {rows * width} values, as its shape says, got {len(flat)}")
    return flat


def _checked(values: list[Any], datatype: str, width: int, name: str) -> list[Any]:
    if set(map(type, values)) <= (allowed := _JSON_TYPES[datatype]):
        return values
    place, value = next((place, value) for place, value in enumerate(values) if type(value) not in allowed)
    message = f"row {place // width}, {_quoted(name)}: expected {datatype}, got {shown(value)}"
    raise MisfitError(message, row=place // width, column=name, value=value)


def _values(raw: memoryview, datatype: str, count: int, name: str) -> list[Any]:
    if datatype == BYTES:
        return strings(raw, count, name)
    if len(raw) != (needed := count * DTYPES[datatype].itemsize):
        raise TensorError(f"{_quoted(name)}: expected {needed} bytes for {count} of {datatype}, got {len(raw)}")
    if count == 1 and (alone := _ALONE.get(datatype)) is not None:
        found = list(alone.unpack(raw))
    else:
        array = np.frombuffer(raw, DTYPES[datatype])
        if datatype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found = (array != 0).tolist() if datatype == BOOL else array.tolist()
    return _finite(found, name) if datatype in _FLOATS else found


def _finite(values: list[float], name: str) -> list[float | None]:
    """NaN as None. Nothing endless is a value: a graph that is given one has no answer."""
    if math.isfinite(sum(values)):
        return list(values)
    if math.inf in values or -math.inf in values:
        raise TensorError(f"{_quoted(name)}: expected finite numbers, or NaN where one is missing")
    return [None if value != value else value for value in values]


def strings(raw: memoryview, count: int, name: str) -> list[bytes]:
    """So many BYTES as they are sent. Raises `TensorError`, which names the input."""
    found, at = [], 0
    for _ in range(count):
        start = at + _LENGTH.size
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw) or start > len(raw):
            raise TensorError(
                f"{_quoted(name)}: expected {count} strings, each behind its length, its bytes end before"
            )
        found.append(bytes(raw[start:at]))
    if at != len(raw):
        raise TensorError(f"{_quoted(name)}: expected {count} strings, {len(raw) - at} bytes follow them")
    return found


def _quoted(name: str) -> str:
    return f"input {shown(name)}"
