"""The rows a re-search may read: the task's source and what the inference log has learnt since, as of a moment.

Nothing from after the moment is in them: no row, and no label that had not arrived. A row is never counted twice: with
a time column the log begins where the source ends. Without one that cannot be seen, and a source that already holds
logged rows repeats them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from flows.workplace import Workplace
from registry.conforming import as_datetimes, as_strings, conform
from registry.errors import DataError, did_you_mean
from registry.image_store import ImageStore
from registry.log_frame import having
from registry.parquet import read_parquet
from registry.schema import Schema
from registry.sources import describe, read
from registry.task import Columns, TaskSpec
from retrain.checks import require
from retrain.image_checks import load_images


def known_rows(place: Workplace, schema: Schema, as_of: datetime) -> pd.DataFrame:
    """Labelled rows of source and log, the schema's columns with target and time, as known at `as_of`.

    Raises `SourceError`, `RowError` for values that do not fit the schema, `DataError` when no labelled row is left.
    """
    task = place.task
    source = from_source(read(task.source), task, schema, as_of)
    known = place.log.frame(end=as_of, labels_by=as_of, labelled_only=True, columns=schema.names)
    logged = from_log(whole(place, known, schema), task, schema)
    if task.time is not None and len(source):
        logged = logged[logged[task.time] > source[task.time].max()]
    known = pd.concat([one for one in (source, logged) if len(one)] or [source], ignore_index=True)
    if known.empty:
        raise DataError(
            f"no labelled row is known by {as_of}: neither the source nor the inference log has one"
            f"{why_none(task, schema)}"
        )
    return known


def whole(place: Workplace, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Those rows of `InferenceLog.frame` that have the values of all of the schema's columns, images among them."""
    return with_images(place, having(frame, schema.names), schema)


def why_none(task: TaskSpec, schema: Schema) -> str:
    """Why logged rows may be of no use, to be put behind the words that say so; empty where the log has all columns."""
    gone = [name for name in task.log.lost if name in schema.names]
    if not gone:
        return ""
    return (
        f"; logged rows do not count, since the task's `log` drops or hashes {', '.join(gone)}: "
        "add newer labelled rows to the source, or encrypt these columns instead"
    )


def unseen_rows(place: Workplace, champion: str, schema: Schema, as_of: datetime) -> int:
    """How many labelled rows with all of the schema's columns were logged since a version became the champion: those it
    cannot have learnt from."""
    promotions = [one for one in place.ledger.read(kinds={"promotion"}) if one.version == champion]
    if not promotions:
        return 0
    start = promotions[-1].at + timedelta(microseconds=1)
    image = [] if schema.image is None else [schema.image.name]
    logged = place.log.frame(start=start, end=as_of, labels_by=as_of, labelled_only=True, columns=image)
    return len(whole(place, logged, schema))


def from_source(frame: pd.DataFrame, task: TaskSpec, schema: Schema, as_of: datetime) -> pd.DataFrame:
    """The source's labelled rows until `as_of`, conformed; those whose image cannot be read are left out, unless they
    are so many that this is fatal: `DataError`."""
    _require_columns(frame, task, schema)
    if schema.image is not None:
        frame, found = load_images(frame, task, schema.image)
        require(found)
    rows = conform(frame, schema).assign(**{task.target: labels(frame[task.target], task).to_numpy()})
    if task.time is not None:
        rows[task.time] = as_datetimes(frame[task.time], task.time).to_numpy()
        rows = rows[rows[task.time] <= pd.Timestamp(as_of)]
    return rows[rows[task.target].notna()]


def _require_columns(frame: pd.DataFrame, task: TaskSpec, schema: Schema) -> None:
    """Raise `DataError` that names the source and the columns it has lost: the target, the time, what is read."""
    needed = dict.fromkeys([task.target, *([] if task.time is None else [task.time]), *schema.names])
    if gone := [name for name in needed if name not in frame.columns]:
        near = did_you_mean(gone[0], map(str, frame.columns))
        names, kind = ", ".join(map(repr, gone)), "target " * (gone == [task.target])
        raise DataError(
            f"{describe(task.source)} no longer has the {kind}column{'s' * (len(gone) > 1)} {names}{near}, which the "
            f"champion was made with; put {'them' if len(gone) > 1 else 'it'} back, or search anew: everfit search"
        )


def from_log(frame: pd.DataFrame, task: TaskSpec, schema: Schema) -> pd.DataFrame:
    """The labelled rows of `InferenceLog.frame`, conformed, the event time in the time column."""
    rows = conform(frame, schema).assign(**{task.target: labels(frame["__label__"], task).to_numpy()})
    return rows if task.time is None else rows.assign(**{task.time: frame["__time__"].to_numpy()})


def with_images(place: Workplace, frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Rows of `InferenceLog.frame` with the images that were kept of them; those whose image was not, or has made room
    for others, are left out."""
    if schema.image is None or schema.image.name not in frame.columns:
        return frame
    name = schema.image.name
    store = ImageStore(place.settings.images(place.task.name), place.settings.max_image_bytes)
    images = frame[name].map(store.find, na_action="ignore")
    kept = images.notna() | frame[name].isna()
    return frame.assign(**{name: images})[kept].reset_index(drop=True)


def labels(values: pd.Series[Any], task: TaskSpec) -> pd.Series[Any]:
    """Labels in one form, whether they come from a file or from feedback: class names, or numbers."""
    return pd.to_numeric(values).astype("float64") if task.problem == "regression" else as_strings(values)


def same_columns(task: TaskSpec, schema: Schema) -> TaskSpec:
    """The task with exactly the columns and kinds that a schema has: what a warm start can inherit weights for."""
    kinds = {column.name: column.kind for column in schema.columns}
    exclude = () if task.time is None or task.time in kinds else (task.time,)
    return task.model_copy(update={"columns": Columns(kinds=kinds, exclude=exclude)})


def kept(folder: Path, make: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two frames that `make` gives: written to `folder` at the first call, read from there at every call."""
    paths = (folder / "history.parquet", folder / "fresh.parquet")
    if not paths[1].is_file():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # rows in plain, whatever the log hides
        for frame, path in zip(make(), paths, strict=True):
            frame.to_parquet(path.with_suffix(".partial"), index=False)
            path.with_suffix(".partial").replace(path)
    return read_parquet(paths[0]), read_parquet(paths[1])


def forget(folder: Path) -> None:
    """Remove the folder of an improvement that has ended: what lasts of it is in registry and ledger."""
    shutil.rmtree(folder, ignore_errors=True)
