"""Inference requests of gRPC as those of HTTP, and back: a JSON head, and the bytes of each tensor behind it.

Typed contents become bytes as raw ones are, so that both are read in one place (`serving/tensors.py`). A request with
typed contents is answered with typed ones, any other with raw ones, as KServe's server does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from serving.body import too_large
from serving.grpc_messages import MESSAGES
from serving.quoting import shown
from serving.tensors import BOOL, BYTES, DTYPES, LENGTH_BYTES, TensorError, packed, strings

_CONTENTS = {
    BOOL: "bool_contents",
    BYTES: "bytes_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
}
"""Where values of a datatype are; the 16-bit floats are sent raw alone."""


_INPUT_BYTES, _OUTPUT_BYTES = 70, 40
"""An input and an output have more bytes than these in the JSON, whatever they are called."""


def body_of(request: Any, most: int) -> tuple[bytes, int]:
    """The body of a `ModelInferRequest` as HTTP has it, and how many bytes of it are JSON. Raises `TensorError`, and
    `TooLargeError` before anything is made for one that would have more than `most` bytes: in the message an input may
    be two bytes, and a number one."""
    if _INPUT_BYTES * len(request.inputs) + _OUTPUT_BYTES * len(request.outputs) > most:
        raise too_large(most)
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise TensorError(f"raw_input_contents: expected as many as inputs, {len(request.inputs)}, got {len(raw)}")
    if raw and (both := next((one.name for one in request.inputs if one.HasField("contents")), None)) is not None:
        raise TensorError(f"input {shown(both)}: expected contents or raw_input_contents, got both")
    if sum(map(_size_of, request.inputs)) > most:
        raise too_large(most)
    tensors = raw or [_bytes_of(one) for one in request.inputs]
    head: dict[str, Any] = {
        "parameters": _plain(request.parameters) | {"binary_data_output": True},
        "inputs": [
            {
                "name": one.name,
                "datatype": one.datatype,
                "shape": list(one.shape),
                "parameters": _plain(one.parameters) | {"binary_data_size": len(values)},
            }
            for one, values in zip(request.inputs, tensors, strict=True)
        ],
        "outputs": [
            {"name": one.name, "parameters": _plain(one.parameters) | {"binary_data": True}} for one in request.outputs
        ],
    }
    if request.id:
        head["id"] = request.id
    written = orjson.dumps(head)
    return b"".join((written, *tensors)), len(written)


def response_of(body: bytes, head_bytes: int, *, typed: bool) -> Any:
    """The `ModelInferResponse` of an answer as HTTP has it, all of whose outputs are bytes behind the JSON."""
    head = orjson.loads(body[:head_bytes])
    response = MESSAGES["ModelInferResponse"](
        model_name=head["model_name"], model_version=head["model_version"], id=head.get("id", "")
    )
    for name, value in head.get("parameters", {}).items():
        response.parameters[name].string_param = value
    at = head_bytes
    for output in head["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        one = response.outputs.add(name=name, datatype=datatype, shape=shape)
        values = body[at : at + output["parameters"]["binary_data_size"]]
        at += len(values)
        if typed:
            getattr(one.contents, _CONTENTS[datatype]).extend(_values_of(values, datatype, shape))
        else:
            response.raw_output_contents.append(values)
    return response


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON has them; one that says nothing is left out."""
    chosen = ((name, one, one.WhichOneof("choice")) for name, one in parameters.items())
    return {name: getattr(one, choice) for name, one, choice in chosen if choice is not None}


def _size_of(tensor: Any) -> int:
    """How many bytes the typed contents of an input are."""
    values = getattr(tensor.contents, _CONTENTS.get(tensor.datatype, "fp32_contents"))
    if tensor.datatype == BYTES:
        return sum(map(len, values)) + LENGTH_BYTES * len(values)
    return len(values) * (DTYPES[tensor.datatype].itemsize if tensor.datatype in DTYPES else 0)


def _bytes_of(tensor: Any) -> bytes:
    """The typed contents of an input as bytes."""
    name, datatype = f"input {shown(tensor.name)}", tensor.datatype
    if datatype not in (BYTES, *DTYPES):
        return b""  # where tensors are read that is told
    where = _CONTENTS.get(datatype)
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != where]
    if others:
        expected = f"contents.{where}" if where else "a datatype with typed contents"
        raise TensorError(f"{name}: expected {expected} for {shown(datatype)}, got contents.{others[0]}")
    if where is None:
        return b""
    values = getattr(tensor.contents, where)
    if datatype == BYTES:
        return packed(values)
    try:
        return np.array(list(values), DTYPES[datatype]).tobytes()
    except OverflowError as error:
        raise TensorError(f"{name}: expected {datatype}, got a number out of its range") from error


def _values_of(raw: bytes, datatype: str, shape: list[int]) -> list[Any]:
    if datatype == BYTES:
        return list(strings(memoryview(raw), shape[0] * shape[1], ""))
    found: list[Any] = np.frombuffer(raw, np.bool_ if datatype == BOOL else DTYPES[datatype]).tolist()
    return found
