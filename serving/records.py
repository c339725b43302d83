"""The journal's records of requests, read: the rows that were sent, and the predictions as the inference log has them.

A request was logged in one of two forms, whatever it came in: rows and their answers, as `POST /predict` takes and
gives them, or columns of both. Either becomes columns, since what is done for each value is what the keeper costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from registry.log_batch import Batch
from registry.watched import logged_features
from serving.rows import Row, micros

Model: TypeAlias = dict[str, Any]
"""A served version as the journal describes it."""


def predictions_of(content: dict[str, Any], model: Model) -> Batch:
    """A record of one request, made by `model`, as the inference log takes it.

    Raises `ValueError`, `LookupError` or `TypeError` for what is no such record.
    """
    sent, received = content["sent"], content["received"]
    found = _outputs(content["answer"], model)
    columns = _columns(sent)
    when = _values(sent, columns, model["time"]) if model["time"] else [None] * len(found.ids)
    return Batch(
        model["version"],
        "champion",
        times=[micros(one) if isinstance(one, str) else received for one in when],
        received=[received] * len(found.ids),
        features=_features(sent, columns, model, content.get("seen")),
        **found._asdict(),
    )


def rows_of(sent: Any) -> list[Row]:
    """The rows of a request as it was logged."""
    if isinstance(sent, list):
        return sent
    if (columns := _columns(sent)) is not None:
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = sent.get("rows")
    return rows if isinstance(rows, list) else [sent]


def _columns(sent: Any) -> Mapping[str, Sequence[Any]] | None:
    """The columns of a request that was logged by columns, else None."""
    columns = None if isinstance(sent, list) else sent.get("columns")
    return columns if isinstance(columns, dict) else None


def _values(sent: Any, columns: Mapping[str, Sequence[Any]] | None, name: str) -> Sequence[Any]:
    """A column that may not have been sent, as a list."""
    if columns is None:
        return [row.get(name) for row in rows_of(sent)]
    return columns[name] if name in columns else [None] * len(next(iter(columns.values())))


def _features(
    sent: Any, columns: Mapping[str, Sequence[Any]] | None, model: Model, seen: Sequence[Any] | None
) -> list[dict[str, Any]]:
    """The rows as they are logged."""
    names: list[str] = model["columns"]
    if "image" in model:
        image, rows = model["image"]["name"], rows_of(sent)
        return [logged_features(row, names, image, *one) for row, one in zip(rows, seen or (), strict=True)]
    if columns is not None:
        lists = [columns[name] for name in names]
        return [dict(zip(names, values)) for values in zip(*lists, strict=True)]  # noqa: B905  as many as names
    return [row if list(row) == names else {name: row[name] for name in names} for row in rows_of(sent)]


class _Outputs(NamedTuple):
    """Answers by columns."""

    ids: Sequence[str]
    predictions: Sequence[Any]
    scores: Sequence[Sequence[float]]
    conformal: Sequence[Sequence[int]] | None
    uncertainty: Sequence[float]
    disagreement: Sequence[float]


def _outputs(answer: dict[str, Any], model: Model) -> _Outputs:
    columns = answer.get("columns")
    found = _of_rows(answer["predictions"], model) if columns is None else _of_columns(columns)
    if not model["classes"]:
        return found
    class_of = dict(zip(model["labels"], model["classes"], strict=True))
    return found._replace(predictions=[class_of[label] for label in found.predictions])


def _of_rows(answers: Sequence[dict[str, Any]], model: Model) -> _Outputs:
    lists = [[one[name] for one in answers] for name in ("id", "prediction", "uncertainty", "disagreement")]
    ids, predictions, uncertainty, disagreement = lists
    if not model["classes"]:
        return _Outputs(ids, predictions, [one["interval"] for one in answers], None, uncertainty, disagreement)
    place = {label: number for number, label in enumerate(model["labels"])}
    scores = [list(one["probabilities"].values()) for one in answers]
    conformal = [[place[label] for label in one["set"]] for one in answers]
    return _Outputs(ids, predictions, scores, conformal, uncertainty, disagreement)


def _of_columns(columns: dict[str, Any]) -> _Outputs:
    ids, predictions = columns["id"], columns["prediction"]
    uncertainty, disagreement = columns["uncertainty"], columns["disagreement"]
    if "interval" in columns:
        scores = list(zip(columns["interval"]["low"], columns["interval"]["high"], strict=True))
        return _Outputs(ids, predictions, scores, None, uncertainty, disagreement)
    scores = list(zip(*columns["probabilities"].values(), strict=True))
    inside = zip(*columns["set"].values(), strict=True)
    conformal = [[number for number, member in enumerate(row) if member] for row in inside]
    return _Outputs(ids, predictions, scores, conformal, uncertainty, disagreement)
