"""The journal's records of requests, read: the rows that were sent, and the predictions as the inference log has them.

A request was logged in one of two forms, whatever it came in: rows and their answers, as `POST /predict` takes and
gives them, or columns of both. Either becomes columns, since what is done for each value is what the keeper costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

from registry.bundle import Manifest
from registry.log_batch import Batch
from registry.watched import logged_features
from serving.rows import Row, micros
from serving.sightings import Sighting

Model: TypeAlias = dict[str, Any]
"""A served version as the journal describes it."""

Record: TypeAlias = dict[str, Any]
"""One request and its answer, as the journal has them."""


class Read(NamedTuple):
    """Records of one model, and their predictions as the inference log takes them."""

    records: Sequence[Record]
    made: Batch

    @property
    def rows(self) -> list[Row]:
        """The rows that were sent, in the order of the predictions."""
        return [row for one in self.records for row in rows_of(one["sent"])]

    @property
    def seen(self) -> list[Sighting]:
        """What their model saw of the rows' images."""
        return [one for record in self.records for one in record["seen"]]


def time_of(manifest: Manifest) -> str | None:
    """The column that says when a row happened, if one does."""
    kinds = {column.name: column.kind for column in manifest.data_schema.columns}
    return manifest.task.time if kinds.get(manifest.task.time or "", "datetime") == "datetime" else None


def described(version: str, manifest: Manifest) -> bytes:
    """A served version as the journal describes it."""
    schema, target = manifest.data_schema, manifest.target
    image = schema.image
    pictures = {} if image is None else {"image": image.model_dump(), "keep": manifest.task.monitor.keep_images}
    return orjson.dumps(
        {
            "version": version,
            "columns": schema.names,
            "time": time_of(manifest),
            "labels": [target.decode(name) for name in target.classes],
            "classes": target.classes,
            "log": manifest.task.log.model_dump(),
            **pictures,
        }
    )


def read(records: Sequence[Record], model: Model) -> list[Read]:
    """Records of one model: those answered by rows together, since many of them are single rows, the others each.

    Raises `ValueError`, `LookupError` or `TypeError` where one of them is no such record.
    """
    by_rows = [one for one in records if "columns" not in one["answer"]]
    by_columns = [one for one in records if "columns" in one["answer"]]
    found = [Read(by_rows, _of_rows(by_rows, model))] if by_rows else []
    return [*found, *(Read([one], _of_columns(one, model)) for one in by_columns)]


def rows_of(sent: Any) -> list[Row]:
    """The rows of a request as it was logged."""
    if isinstance(sent, list):
        return sent
    if isinstance(columns := sent.get("columns"), dict):
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = sent.get("rows")
    return rows if isinstance(rows, list) else [sent]


def _of_rows(records: Sequence[Record], model: Model) -> Batch:
    answers, rows, received = list[dict[str, Any]](), list[Row](), list[int]()
    for one in records:
        answers += one["answer"]["predictions"]
        rows += rows_of(one["sent"])
        received += [one["received"]] * (len(answers) - len(received))
        if len(rows) != len(answers):
            raise ValueError(f"expected as many rows as answers, {len(answers)}, got {len(rows)}")
    names, when, classes = model["columns"], model["time"], model["classes"]
    if "image" in model:
        features = _with_images(records, rows, model)
    else:
        features = [row if list(row) == names else {name: row[name] for name in names} for row in rows]
    place = {label: number for number, label in enumerate(model["labels"])}
    predictions = [one["prediction"] for one in answers]
    return Batch(
        model["version"],
        "champion",
        ids=[one["id"] for one in answers],
        times=_times([row.get(when) for row in rows], received) if when else received,
        received=received,
        features=features,
        predictions=[classes[place[label]] for label in predictions] if classes else predictions,
        scores=[list(one["probabilities"].values()) if classes else one["interval"] for one in answers],
        conformal=[[place[label] for label in one["set"]] for one in answers] if classes else None,
        uncertainty=[one["uncertainty"] for one in answers],
        disagreement=[one["disagreement"] for one in answers],
    )


def _of_columns(record: Record, model: Model) -> Batch:
    answer, sent = record["answer"]["columns"], record["sent"]["columns"]
    names, when, classes = model["columns"], model["time"], model["classes"]
    received = [record["received"]] * len(answer["id"])
    if "image" in model:
        features = _with_images([record], rows_of(record["sent"]), model)
    else:
        values = zip(*(sent[name] for name in names), strict=True)
        features = [dict(zip(names, one)) for one in values]  # noqa: B905  one of each column
    if classes:
        class_of = dict(zip(model["labels"], classes, strict=True))
        scores, inside = answer["probabilities"], zip(*answer["set"].values(), strict=True)
        conformal = [[place for place, member in enumerate(row) if member] for row in inside]
    else:
        scores = answer["interval"]
    return Batch(
        model["version"],
        "champion",
        ids=answer["id"],
        times=_times(sent[when], received) if when in sent else received,
        received=received,
        features=features,
        predictions=[class_of[label] for label in answer["prediction"]] if classes else answer["prediction"],
        scores=list(zip(*scores.values(), strict=True)),
        conformal=conformal if classes else None,
        uncertainty=answer["uncertainty"],
        disagreement=answer["disagreement"],
    )


def _with_images(records: Sequence[Record], rows: Sequence[Row], model: Model) -> list[dict[str, Any]]:
    """Rows of images as they are logged."""
    names, image = model["columns"], model["image"]["name"]
    seen = (one for record in records for one in record["seen"])
    return [logged_features(row, names, image, *one) for row, one in zip(rows, seen, strict=True)]


def _times(when: Sequence[Any], received: Sequence[int]) -> list[int]:
    """The event times: where a row has none, the moment when it came."""
    return [micros(one) if isinstance(one, str) else at for one, at in zip(when, received, strict=True)]
