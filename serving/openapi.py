"""The routes that are plain ASGI, described for `/docs`, with examples made from the served version's schema."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from registry.bundle import Manifest
from registry.images import FORMATS, MAX_BYTES, MAX_PIXELS, stack, to_png
from registry.schema import Column, ImageColumn, NumericColumn, Schema
from registry.target import Target
from registry.texts import MAX_TEXT_LENGTH
from serving.answers import CLASS_FIELDS, NUMBER_FIELDS, STRANGE, fields_of
from serving.dialects import speaks_otherwise
from serving.guard import OPEN
from serving.openapi_protocols import infer, invocations
from serving.prediction import KEY_HEADER
from serving.tables import FILE, PARQUET, STREAM

JsonSchema = dict[str, Any]

_PROBLEM: JsonSchema = {
    "type": "object",
    "description": "Problem details (RFC 9457)",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "row": {"type": "integer"},
        "column": {"type": "string"},
        "value": {},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
_FEEDBACK = """Late, repeated and corrected labels are welcome; one of an unknown id waits for its row. `time` says when
the label became known, now by default: monitoring of an earlier moment does not see it. Another value counts from its
own time on; the same value with another time corrects the time. Of several labels for one id in a request the last
counts. The four counts of the answer add up to the labels sent. `warnings` is there when a label's time is more than a
day after now, so that monitoring will not see it before then, or when a label was passed over for another one of the
same id that was received later by another endpoint's clock."""

_COUNTS = {
    "stored": "first labels of their predictions",
    "repeated": "labels that say nothing new",
    "corrected": "labels with another value, or another time, than was known",
    "unknown": "labels of ids that have no prediction yet; they are kept, and join when it arrives",
}

_PREDICT_ERRORS = {
    400: "The body is not JSON",
    408: "The body did not arrive in time",
    413: "The body or the number of rows is too large",
    415: "The Content-Type is none of those that are read here",
    422: "A row does not fit the schema: row, column and value are named",
    503: "There is no model yet, or predictions cannot be stored now",
}

_KEY_ERRORS = {
    401: "No key that is known came with the request",
    403: "The key is of another scope or task",
    429: "The key has asked more often than it may; Retry-After says when to come again",
}

_BINARY: JsonSchema = {"schema": {"type": "string", "format": "binary"}}


def describe(
    paths: dict[str, Any], served: Mapping[str, Manifest | None], *, short: str | None, secured: bool
) -> dict[str, Any]:
    """`paths` of an OpenAPI document with the hot routes of each task added; general ones while it has no model. The
    short forms are those of the task `short`."""
    added: dict[str, Any] = {}
    for task, manifest in served.items():
        suffix = f"_{task.replace('-', '_')}"
        row = {} if manifest is None else example_row(manifest.data_schema)
        inferred = infer(task, manifest, row)
        inferred["operationId"] += suffix
        added |= _hot(f"/models/{task}", manifest, suffix) | {f"/v2/models/{task}/infer": {"post": inferred}}
        if task == short:
            added = _hot("", manifest, "") | added
    described = added | paths
    if secured:
        for path, operations in described.items():
            for operation in operations.values() if path not in OPEN else ():
                operation["security"] = [{"key": []}]
                operation["responses"] |= _refusals(path)
    return described


def _refusals(path: str) -> dict[str, Any]:
    """What a request without the right key is told, in the words of the path's protocol."""
    content = {"application/json": {"schema": {"type": "object"}}}
    if speaks_otherwise(path):
        return {str(status): {"description": text, "content": content} for status, text in _KEY_ERRORS.items()}
    return _problems(_KEY_ERRORS)


def _hot(prefix: str, manifest: Manifest | None, suffix: str) -> dict[str, Any]:
    examples = _examples(manifest) if manifest is not None else {}
    row = row_schema(manifest.data_schema) if manifest is not None else {"type": "object"}
    target = manifest.target if manifest is not None else None
    scored = invocations(manifest, {} if manifest is None else example_row(manifest.data_schema))
    operations = {"predict": _predict(row, target, examples), "feedback": _feedback(target), "invocations": scored}
    for operation in operations.values():
        operation["operationId"] += suffix
    return {f"{prefix}/{name}": {"post": operation} for name, operation in operations.items()}


def example_row(schema: Schema) -> dict[str, Any]:
    """A row that fits: the middle of each range, the most frequent category."""
    return {column.name: _example(column) for column in schema.columns}


def row_schema(schema: Schema) -> JsonSchema:
    """A row as JSON schema."""
    properties = {column.name: _property(column) for column in schema.columns}
    return {"type": "object", "properties": properties, "required": list(schema.names), "additionalProperties": True}


def _example(column: Column) -> Any:
    if column.kind == "numeric":
        return _middle(column)
    if column.kind == "boolean":
        return True
    if column.kind == "datetime":
        return (column.high or datetime(2024, 1, 1)).isoformat(timespec="seconds")
    if column.kind == "text":
        return " ".join(column.words[:5]) or "a text"
    if column.kind == "image":
        return image_example(column)
    return column.categories[0] if column.categories else "a"


def _middle(column: NumericColumn) -> float:
    low = 0.0 if column.low is None else column.low
    middle = (low + (low if column.high is None else column.high)) / 2
    short = round(middle) if column.integer else float(f"{middle:.4g}")
    return short if low <= short <= (column.high or short) else middle


def _property(column: Column) -> JsonSchema:
    missing = f"missing in {column.missing:.1%} of the training rows" if column.missing else "never missing in training"
    if column.kind == "numeric":
        known = "" if column.low is None or column.high is None else f"{column.low:g} to {column.high:g} in training; "
        return {"type": ["number", "null"], "description": f"{known}{missing}"}
    if column.kind == "boolean":
        return {"type": ["boolean", "null"], "description": missing}
    if column.kind == "datetime":
        return {
            "type": ["string", "null"],
            "format": "date-time",
            "description": f"ISO 8601, UTC without zone; {missing}",
        }
    if column.kind == "text":
        return {"type": ["string", "null"], "description": f"the first {MAX_TEXT_LENGTH:,} characters count; {missing}"}
    if column.kind == "image":
        return _image_property(column, missing)
    known = ", ".join(column.categories[:20])
    text = f"{column.distinct} values in training, such as {known}; unknown ones are served; {missing}"
    return {"type": ["string", "number", "boolean", "null"], "description": text}


def image_example(column: ImageColumn) -> str:
    """An image that fits: the training images' mean colour, as base64 of a PNG file."""
    pixels = stack([None], column.size, column.channels, column.fill)[0]
    return base64.b64encode(to_png(pixels)).decode()


def _image_property(column: ImageColumn, missing: str) -> JsonSchema:
    form = f"brought to {column.size} x {column.size}, {'grey' if column.channels == 1 else 'in colours'}"
    bounds = f"at most {MAX_BYTES:,} bytes and {MAX_PIXELS:,} pixels"
    return {
        "type": ["string", "null"],
        "contentEncoding": "base64",
        "contentMediaType": "image/png",
        "description": f"an image ({', '.join(FORMATS)}), {form}; {bounds}; never a path; {missing}",
    }


def _examples(manifest: Manifest) -> dict[str, Any]:
    row = example_row(manifest.data_schema)
    absent = dict.fromkeys(row)
    found: dict[str, Any] = {
        "one": {"summary": "One row", "value": row},
        "many": {
            "summary": "Many rows, with ids of the client's own",
            "value": {"rows": [row, row], "ids": ["a-1", "a-2"]},
        },
        "missing": {"summary": "Missing values are null", "value": {"rows": [absent]}},
    }
    found["columns"] = {
        "summary": "Rows by columns",
        "value": {"columns": {name: [value, value] for name, value in row.items()}, "ids": ["b-1", "b-2"]},
    }
    categorical = manifest.data_schema.of("categorical")
    if categorical:
        unseen = row | {categorical[0].name: "never seen before"}
        found["unknown"] = {"summary": "An unknown category is served", "value": [unseen]}
    return found


def _predict(row: JsonSchema, target: Target | None, examples: dict[str, Any]) -> dict[str, Any]:
    rows = {"type": "array", "items": row, "minItems": 1}
    ids = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 64}, "uniqueItems": True}
    envelope = {"type": "object", "properties": {"rows": rows, "ids": ids}, "required": ["rows"]}
    lists = {"type": "object", "additionalProperties": {"type": "array"}, "description": "a list a column, as long all"}
    by_column = {"type": "object", "properties": {"columns": lists, "ids": ids}, "required": ["columns"]}
    body, responses = _body({"anyOf": [envelope, by_column, rows, row]}, examples), _responses(_answer(target))
    for content in (body["content"], responses["200"]["content"]):
        content |= dict.fromkeys((STREAM, FILE, PARQUET), _BINARY)
    return {
        "summary": "Predict one row or many",
        "description": "Every prediction is stored before it is answered. A request with `ids` may be sent again. Rows "
        "by columns, in JSON, Arrow or Parquet (ids in the column `__id__`), are answered in their own form, or in the "
        "one that `Accept` names.",
        "operationId": "predict",
        "parameters": [_fields(target), _KEY],
        "requestBody": body,
        "responses": responses | _problems(_PREDICT_ERRORS),
    }


_KEY = {
    "name": KEY_HEADER.decode(),
    "in": "header",
    "description": "Who asks: all requests with one key are answered by one version while a canary answers some",
    "schema": {"type": "string"},
}


def _fields(target: Target | None) -> JsonSchema:
    known = sorted({*CLASS_FIELDS, *NUMBER_FIELDS}) if target is None else fields_of(target)
    return {
        "name": "fields",
        "in": "query",
        "description": f"Some of the fields, in this order; all but `{STRANGE}` without it",
        "style": "form",
        "explode": False,
        "schema": {"type": "array", "items": {"type": "string", "enum": list(known)}, "minItems": 1},
    }


def _feedback(target: Target | None) -> dict[str, Any]:
    label: JsonSchema = {"type": ["string", "number", "boolean"]}
    value: Any = "yes"
    if target is not None:
        value = target.decode(target.classes[-1]) if target.classes else 1.5
    one = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "label": label, "time": {"type": "string", "format": "date-time"}},
        "required": ["id", "label"],
    }
    many = {"type": "array", "items": one, "minItems": 1}
    envelope = {"type": "object", "properties": {"labels": many}, "required": ["labels"]}
    counts: JsonSchema = {
        name: {"type": "integer", "minimum": 0, "description": what} for name, what in _COUNTS.items()
    }
    told = counts | {"warnings": {"type": "array", "items": {"type": "string"}}}
    examples = {"one": {"summary": "One label", "value": {"labels": [{"id": "a-1", "label": value}]}}}
    return {
        "summary": "Report true labels",
        "description": _FEEDBACK,
        "operationId": "feedback",
        "requestBody": _body({"anyOf": [envelope, many, one]}, examples),
        "responses": _responses({"type": "object", "properties": told, "required": list(counts)})
        | _problems(_PREDICT_ERRORS),
    }


def _answer(target: Target | None) -> JsonSchema:
    numbers = {"uncertainty": {"type": "number"}, "disagreement": {"type": "number"}}
    if target is not None and target.problem == "regression":
        interval = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
        fields: JsonSchema = {"prediction": {"type": "number"}, "interval": interval}
    else:
        shares = {"type": "object", "additionalProperties": {"type": "number"}}
        fields = {"prediction": {}, "probabilities": shares, "set": {"type": "array"}}
    told = {STRANGE: {"type": "boolean", "description": "where `fields` names it"}}
    prediction = {"type": "object", "properties": {"id": {"type": "string"}} | fields | numbers | told}
    model = {"type": "object", "properties": {"task": {"type": "string"}, "version": {"type": "string"}}}
    said = "numbers outside the range of training, moments far beyond it, values missing where none was in training"
    warnings = {"type": "array", "items": {"type": "string"}, "description": said}
    predictions = {"type": "array", "items": prediction}
    by_column = {"type": "object", "description": "instead of `predictions`, by field, to a request by columns"}
    answer = {"model": model, "predictions": predictions, "columns": by_column, "warnings": warnings}
    return {"type": "object", "properties": answer}


def _body(schema: JsonSchema, examples: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _responses(answer: JsonSchema) -> dict[str, Any]:
    return {"200": {"description": "The answer", "content": {"application/json": {"schema": answer}}}}


def _problems(errors: Mapping[int, str]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _PROBLEM}}
    return {str(status): {"description": text, "content": content} for status, text in errors.items()}
