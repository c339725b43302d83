"""The hot routes of other protocols, described for `/docs`, with examples made from the served version's schema."""

from __future__ import annotations

from typing import Any

from registry.bundle import Manifest
from serving.signature import metadata, output_names

JsonSchema = dict[str, Any]

_OBJECTS: JsonSchema = {"type": "array", "items": {"type": "object"}}
_NAMED = {"name": {"type": "string"}, "parameters": {"type": "object"}}
_TENSOR: JsonSchema = {
    "type": "object",
    "properties": _NAMED
    | {
        "datatype": {"type": "string", "enum": ["BOOL", "BYTES", "FP32", "FP64", "INT32", "INT64"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2},
        "data": {"type": "array"},
    },
    "required": ["name", "datatype", "shape"],
}
_TENSORS: JsonSchema = {"type": "array", "items": _TENSOR, "minItems": 1}
_ERRORS = {
    400: "The request does not keep to the protocol, or a row does not fit the schema",
    413: "The body or the number of rows is too large",
    503: "There is no model yet, or predictions cannot be stored now",
}


def infer(task: str, manifest: Manifest | None, row: dict[str, Any]) -> dict[str, Any]:
    """`POST /v2/models/TASK/infer`; `row` is a row that fits."""
    properties = {
        "id": {"type": "string"},
        "inputs": _TENSORS,
        "outputs": {"type": "array", "items": {"type": "object", "properties": _NAMED, "required": ["name"]}},
        "parameters": {"type": "object"},
    }
    answer = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"}}
    examples = {} if manifest is None else _tensor_examples(task, manifest, row)
    return {
        "summary": "Infer, in the Open Inference Protocol (V2)",
        "description": "One input a column, or one of shape [n, k] with the columns in the schema's order. Tensors may "
        "follow the JSON as bytes (binary tensor data extension), and bodies may be gzip or deflate.",
        "operationId": "infer",
        "tags": ["Open Inference Protocol (V2)"],
        "requestBody": _body({"type": "object", "properties": properties, "required": ["inputs"]}, examples),
        "responses": _responses({"type": "object", "properties": answer | {"outputs": _TENSORS}}, "error"),
    }


def invocations(manifest: Manifest | None, row: dict[str, Any]) -> dict[str, Any]:
    """`POST .../invocations`; `row` is a row that fits."""
    split = {"columns": {"type": "array", "items": {"type": "string"}}, "data": {"type": "array"}}
    properties = {
        "dataframe_split": {"type": "object", "properties": split, "required": ["columns", "data"]},
        "dataframe_records": _OBJECTS,
        "instances": {"type": "array"},
        "inputs": {"anyOf": [{"type": "array"}, {"type": "object"}]},
    }
    examples = {} if manifest is None else _frame_examples(row)
    answer = {
        "predictions": _OBJECTS,
        "ids": {"type": "array", "items": {"type": "string"}},
        "model": {"type": "object"},
    }
    return {
        "summary": "Predict, in MLflow's scoring protocol",
        "description": "Exactly one of the four; or text/csv with a header line.",
        "operationId": "invocations",
        "tags": ["MLflow"],
        "requestBody": _body({"type": "object", "properties": properties}, examples),
        "responses": _responses({"type": "object", "properties": answer}, "message")
        | {"415": {"description": "The body is neither JSON nor CSV in UTF-8"}},
    }


def _tensor_examples(task: str, manifest: Manifest, row: dict[str, Any]) -> dict[str, Any]:
    inputs = [
        {"name": one["name"], "datatype": one["datatype"], "shape": [1, 1], "data": [row[one["name"]]]}
        for one in metadata(task, (), manifest)["inputs"]
    ]
    prediction = [{"name": name} for name in output_names(manifest)[:2]]
    return {
        "one": {"summary": "One row", "value": {"inputs": inputs}},
        "some": {"summary": "Some of the outputs", "value": {"id": "a-1", "inputs": inputs, "outputs": prediction}},
    }


def _frame_examples(row: dict[str, Any]) -> dict[str, Any]:
    split = {"columns": list(row), "data": [list(row.values())]}
    return {
        "split": {"summary": "A frame, as pandas splits it", "value": {"dataframe_split": split}},
        "records": {"summary": "Rows", "value": {"dataframe_records": [row]}},
    }


def _body(schema: JsonSchema, examples: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _responses(answer: JsonSchema, says: str) -> dict[str, Any]:
    error: JsonSchema = {"type": "object", "properties": {says: {"type": "string"}}}
    found = {"200": {"description": "The answer", "content": {"application/json": {"schema": answer}}}}
    refused = {"content": {"application/json": {"schema": error}}}
    return found | {str(status): {"description": text, **refused} for status, text in _ERRORS.items()}
