"""MLflow's scoring protocol: what `mlflow models serve` answers, answered here, for clients that speak it.

    POST /invocations    POST /models/TASK/invocations    GET /ping    GET /version

Rows come as `dataframe_split`, `dataframe_records`, `instances` or `inputs` (rows as objects or as lists in the order
of the schema, or an object of columns), or as `text/csv` with a header. A missing value is null, NaN, or an empty cell.
The answer's `predictions` have the columns that MLflow's model of the same version has (`registry/pyfunc_model.py`);
beside them are the `ids` under which they are logged, and the `model` that made them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, ClassVar

import orjson
from starlette.types import Scope

from registry.schema import Column, Schema
from registry.scoring import Scores
from registry.target import Target
from serving.encodings import header_of, parse_python
from serving.hot import PredictingRoute, Reply, aside
from serving.prediction import Answer
from serving.problems import BodyError, MediaTypeError
from serving.quoting import shorten, shown
from serving.request import Request
from serving.rows import MisfitError, Row, TooManyRowsError

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
JSON, CSV = "application/json", "text/csv"
_MISSING = frozenset(
    [
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
"""Cells that pandas, which reads training data from CSV, takes for missing."""


class Invocations(PredictingRoute):
    """The route, as an ASGI application."""

    name: ClassVar[str] = "/invocations"
    unpacks: ClassVar[bool] = True

    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """`{"predictions": [...]}`, one object a row."""
        manifest, large = self._slot.served().manifest, self.is_large(scope, body)
        rows = await aside(large, self._read, scope, body, manifest.data_schema)
        answer = await self.predicted(scope, body, Request(rows))
        return Reply(await aside(large, _written, self._slot.task, answer))

    def _read(self, scope: Scope, body: bytes, schema: Schema) -> list[Row]:
        read = _reader(header_of(scope, b"content-type"))
        rows = read(self.unpacked(scope, body), schema, self._max_rows)
        if not rows:
            raise MisfitError("expected at least one row, got none")
        if len(rows) > self._max_rows:
            raise TooManyRowsError(f"expected at most {self._max_rows} rows in one request, got {len(rows)}")
        return rows


def read_json(body: bytes, schema: Schema, max_rows: int) -> list[Row]:
    """The rows of a JSON body. Raises `BodyError` for any other shape, `MisfitError` naming the row."""
    parsed = parse_python(body)
    given = [name for name in FORMATS if name in parsed] if isinstance(parsed, dict) else []
    if len(given) != 1:
        found = f"an object with {', '.join(given) or 'none of them'}" if isinstance(parsed, dict) else shorten(parsed)
        raise BodyError(f"expected an object with exactly one of {', '.join(FORMATS)}, got {found}")
    (name,) = given
    if name == "dataframe_split":
        return _split(parsed[name])
    if isinstance(parsed[name], dict) and name == "inputs":
        return _of_columns(parsed[name], max_rows)
    if not isinstance(parsed[name], list):
        raise BodyError(f"{name}: expected a list of rows, got {shown(parsed[name])}")
    return parsed[name] if name == "dataframe_records" else _listed(parsed[name], list(schema.names), name)


def read_csv(body: bytes, schema: Schema, max_rows: int) -> list[Row]:
    """The rows of a CSV body with a header line, each cell read as the kind of its column asks for.

    Raises `BodyError` for what is not CSV, `MisfitError` for a line of another length.
    """
    read = {column.name: _cell_reader(column) for column in schema.columns}
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        names = next(lines, [])
        found = [line for line in islice(lines, max_rows + 1) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BodyError(f"the body is not CSV: {error}") from error
    if len(set(names)) != len(names) or not names:
        raise BodyError(f"the body is not CSV with a header of unique names: its first line is {shorten(names)}")
    _require_width(found, len(names))
    readers = [read.get(name, str) for name in names]
    return [
        {
            name: None if text in _MISSING else reader(text)
            for name, reader, text in zip(names, readers, line, strict=True)
        }
        for line in found
    ]


def records(scores: Scores, target: Target) -> list[dict[str, Any]]:
    """The answers for n rows, one object each, with the columns of MLflow's model."""
    columns: dict[str, list[Any]] = {"prediction": scores.prediction.tolist()}
    if scores.probabilities is not None and scores.sets is not None:
        shares, members = scores.probabilities.T.tolist(), scores.sets.T.tolist()
        for name, share, inside in zip(target.classes, shares, members, strict=True):
            columns |= {f"probability_{name}": share, f"set_{name}": inside}
    elif scores.interval is not None:
        columns |= {"low": scores.interval[:, 0].tolist(), "high": scores.interval[:, 1].tolist()}
    columns |= {"uncertainty": scores.uncertainty.tolist(), "disagreement": scores.disagreement.tolist()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _reader(content_type: bytes | None) -> Callable[[bytes, Schema, int], list[Row]]:
    kind, *settings = (part.strip().lower() for part in (content_type or JSON.encode()).decode("latin-1").split(";"))
    if any(one and one.replace('"', "") != "charset=utf-8" for one in settings):
        raise MediaTypeError(f"Content-Type: expected UTF-8 and no other parameter, got {'; '.join(settings)[:80]!r}")
    if kind not in (JSON, CSV):
        raise MediaTypeError(f"Content-Type: expected {JSON} or {CSV}, got {kind[:80]!r}")
    return read_csv if kind == CSV else read_json


def _split(given: Any) -> list[Row]:
    if not isinstance(given, dict) or not isinstance(names := given.get("columns"), list):
        raise BodyError(f"dataframe_split: expected an object with columns and data, got {shown(given)}")
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise BodyError(f"dataframe_split: expected unique names of columns, got {shorten(names)}")
    if not isinstance(given.get("data"), list):
        raise BodyError(f"dataframe_split: expected data as a list of rows, got {shown(given.get('data'))}")
    return _named(given["data"], names)


def _listed(given: list[Any], names: list[str], where: str) -> list[Row]:
    """Rows as objects, as lists in the order of the schema, or as values where the schema has one column."""
    if given and isinstance(given[0], dict):
        return given
    if given and not isinstance(given[0], list) and len(names) == 1:
        return [{names[0]: value} for value in given]
    if given and not isinstance(given[0], list):
        raise BodyError(f"{where}: expected rows as objects or lists, got {shown(given[0])}")
    return _named(given, names)


def _named(rows: list[Any], names: list[str]) -> list[Row]:
    _require_width(rows, len(names))
    return [dict(zip(names, row, strict=True)) for row in rows]


def _require_width(rows: Sequence[Any], width: int) -> None:
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            found = len(row) if isinstance(row, list) else repr(shorten(row))
            raise MisfitError(f"row {place}: expected {width} values, one a column, got {found}", row=place)


def _of_columns(columns: dict[str, Any], max_rows: int) -> list[Row]:
    """Rows of an object of columns; a single value stands for a column of one row."""
    lists = {name: values if isinstance(values, list) else [values] for name, values in columns.items()}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1:
        raise BodyError(
            f"inputs: expected columns of one length, got {', '.join(map(str, sorted(lengths)[:5])) or 'none'}"
        )
    if lengths.pop() > max_rows:
        raise TooManyRowsError(f"inputs: expected at most {max_rows} rows in one request")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _cell_reader(column: Column) -> Callable[[str], Any]:
    if column.kind in ("numeric", "boolean"):
        return _number
    if column.kind != "categorical":
        return str
    known = frozenset(column.categories)

    def read(text: str) -> str:
        """The text; of a whole number that pandas wrote with a point, because others were missing, the number."""
        short = text.removesuffix(".0")
        return short if text not in known and short in known else text

    return read


def _number(text: str) -> float | str:
    """The number, or the text for the row reader to name or to take for a truth value."""
    try:
        return float(text) if "_" not in text else text
    except ValueError:
        return text


def _written(task: str, answer: Answer) -> bytes:
    predictions = records(answer.scores, answer.served.manifest.target)
    told = {"warnings": answer.warnings} if answer.warnings else {}
    model = {"task": task, "version": answer.served.version}
    return orjson.dumps({"predictions": predictions, "ids": answer.ids, "model": model, **told})
