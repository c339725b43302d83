"""A file as a stream: its rows in time order with stable ids, the windows they fall into, and when labels arrive.

Everything here is a function of the file, so that a replay that was killed finds the same rows under the same ids.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monitor.windows import REST, spans
from registry.conforming import as_datetimes
from registry.durations import format_duration
from registry.errors import DataError, did_you_mean
from registry.images import looks_like_images, to_base64
from registry.plurals import counted
from registry.task import RowWindows, TaskSpec, TimeWindows
from retrain.checks import require
from retrain.image_checks import image_name, load_images

_NAMESPACE = uuid.UUID("6f1f5f2e-53a5-4c58-9d5e-2f6e7a5f0c11")

REQUEST_BYTES = 2_000_000
"""Of images in one request, about: in base64, with all else, they stay below what an endpoint takes by default."""

Moments = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Step:
    """The rows [start, stop) of one window of the task, and the simulated time at which it is judged."""

    index: int
    start: int
    stop: int
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Stream:
    """Rows in time order. `times` is (n,) datetime64[us]; `labels` is (n,), None where the file has none;
    `image_bytes` is how large a row's image is."""

    rows: pd.DataFrame
    times: Moments
    labels: npt.NDArray[np.object_]
    key: str
    image_bytes: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def ids(self, start: int, stop: int) -> list[str]:
        """The prediction ids of rows [start, stop): the same in every run over the same rows under the same name."""
        return [str(uuid.uuid5(_NAMESPACE, f"{self.key}:{row}")) for row in range(start, stop)]

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows [start, stop) as JSON objects: null where missing, times in ISO 8601, images in base64."""
        part = self.rows.iloc[start:stop]
        columns = [plain_values(part[name]) for name in part.columns]
        return [dict(zip(part.columns, values, strict=True)) for values in zip(*columns, strict=True)]

    def at_once(self, most: int) -> int:
        """How many rows one request holds, `most` at most: fewer where their images are large."""
        return most if not self.image_bytes else min(most, max(1, REQUEST_BYTES // self.image_bytes))

    def due(self, now: datetime, delay: timedelta) -> int:
        """How many rows' labels have arrived by `now`, `delay` after the row's own time."""
        return int(np.searchsorted(self.times, np.datetime64(now - delay, "us"), side="right"))

    def feedback(self, start: int, stop: int, delay: timedelta) -> list[dict[str, Any]]:
        """The labels of rows [start, stop) as the endpoint takes them, with the time of their arrival."""
        ids = self.ids(start, stop)
        arrivals = (self.times[start:stop] + np.timedelta64(delay)).astype("datetime64[us]").astype(str)
        return [
            {"id": one, "label": label, "time": str(arrival)}
            for one, label, arrival in zip(ids, self.labels[start:stop], arrivals, strict=True)
            if label is not None
        ]


def open_stream(frame: pd.DataFrame, task: TaskSpec, *, name: str) -> Stream:
    """The rows of a frame as a stream of a task. `name` tells one replay of the same rows from another. Those whose
    image cannot be read are left out.

    Raises `DataError` when the task has no time column, when target or time are missing from the frame, or when too
    many images cannot be read.
    """
    if task.time is None:
        raise DataError(f"task {task.name!r} has no time column: a replay needs one to know the order of the rows")
    for column in (task.time, task.target):
        if column not in frame.columns:
            near = did_you_mean(column, [str(one) for one in frame.columns])
            raise DataError(f"column {column!r} of task {task.name!r} is missing from the rows to replay{near}")
    image, frame = _with_images(frame, task)
    times = as_datetimes(frame[task.time], task.time)
    if gaps := int(times.isna().sum()):
        raise DataError(f"column {task.time!r}: {gaps} of {len(frame)} rows have no time and cannot be replayed")
    if frame.empty:
        raise DataError("there are no rows to replay")
    order = np.argsort(times.to_numpy(), kind="stable")
    ordered = frame.iloc[order].reset_index(drop=True)
    labels = np.array(plain_values(ordered[task.target]), dtype=object)
    unread = set(task.columns.exclude) - {task.time}  # an excluded time column still says when a row happens
    rows = ordered.drop(columns=[task.target, *unread], errors="ignore")
    key = f"{fingerprint(ordered)}:{task.name}:{name}"
    wide = 0 if image is None else max(map(len, rows[image].dropna()), default=0)
    return Stream(rows, times.to_numpy()[order].astype("datetime64[us]"), labels, key, wide)


def _with_images(frame: pd.DataFrame, task: TaskSpec) -> tuple[str | None, pd.DataFrame]:
    """The column of images and the rows with them loaded. Other columns of images go: no model reads them, and files'
    bytes are nothing that JSON knows."""
    name = image_name(frame, task)
    kept = {name, task.target, task.time, *task.columns.kinds}
    others = [one for one in frame.columns if one not in kept and looks_like_images(frame[one])]
    frame, found = load_images(frame.drop(columns=others), task)
    require(found)
    return name, frame


def fingerprint(frame: pd.DataFrame) -> str:
    """A digest of the rows in their order, whatever kind of source they came from."""
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    columns = ",".join(str(name) for name in frame.columns)
    return hashlib.sha256(columns.encode() + hashes.tobytes()).hexdigest()[:32]


def plain_values(values: pd.Series[Any]) -> list[Any]:
    """A column as values that JSON knows: numbers, strings, booleans, ISO 8601 times, images in base64, None where
    missing."""
    if values.dtype.kind in "Mm":
        values = values.map(lambda moment: moment.isoformat(), na_action="ignore")
    gaps = values.isna().to_numpy()
    if values.dtype.kind == "f":
        gaps = gaps | np.isinf(values.to_numpy(dtype=np.float64))
    plain = [to_base64(value) if isinstance(value, bytes) else value for value in values.tolist()]
    return [None if gap else value for value, gap in zip(plain, gaps, strict=True)]


def steps(times: Moments, windows: TimeWindows | RowWindows) -> list[Step]:
    """The windows of the task that the rows fall into, cut as monitoring cuts them; those without rows are left out."""
    if isinstance(windows, RowWindows):
        return list(_row_steps(times, windows.rows))
    return list(_time_steps(times, windows.every))


def announced(stream: Stream, task: TaskSpec, delay: timedelta) -> str:
    """What a replay is going to do, in a line."""
    windows = steps(stream.times, task.monitor.windows)
    span = f"{windows[0].begin:%Y-%m-%d} to {windows[-1].end:%Y-%m-%d}"
    late = format_duration(delay)
    return f"{counted(len(stream), 'row')} in {counted(len(windows), 'window')}, {span}, labels {late} late"


def learnt(stream: Stream, version: str, known_until: datetime) -> str | None:
    """That a version has learnt from some of the rows, or been tested on them, whose newest was of `known_until`; None
    where all are later."""
    known = int(np.searchsorted(stream.times, np.datetime64(known_until, "us"), side="right"))
    if not known:
        return None
    which = "all rows are" if known == len(stream) else f"{known:,} of {len(stream):,} rows are"
    return (
        f"warning: {which} from before {known_until:%Y-%m-%d %H:%M}, up to when version {version} was made and tested: "
        "on them it looks better than it is"
    )


def is_whole(times: Moments, step: Step, windows: TimeWindows | RowWindows) -> bool:
    """Whether the rows of the last step (of n `times`) come up to its end, so that it can be judged as the others are:
    after the last one there is no more than a tenth of the window, or no longer silence than there has been before. One
    by rows is whole when it is full."""
    if isinstance(windows, RowWindows):
        return step.stop - step.start >= windows.rows
    longest = (
        np.diff(times[: step.stop]).astype(np.int64).max(initial=windows.every // REST // timedelta(microseconds=1))
    )
    return step.end - _moment(times[step.stop - 1]) <= timedelta(microseconds=int(longest))


def _row_steps(times: Moments, rows: int) -> Iterator[Step]:
    start, index = 0, 0
    while start < len(times):
        last = times[min(start + rows, len(times)) - 1]
        stop = int(np.searchsorted(times, last, side="right"))  # rows of one moment stay together
        yield Step(index, start, stop, _moment(times[start]), _moment(last) + timedelta(microseconds=1))
        start, index = stop, index + 1


def _time_steps(times: Moments, every: timedelta) -> Iterator[Step]:
    start, index = 0, 0
    for span in spans(_moment(times[0]), every, _moment(times[-1]) + every):
        stop = int(np.searchsorted(times, np.datetime64(span.end, "us"), side="left"))
        if stop > start:
            yield Step(index, start, stop, span.start, span.end)
            start, index = stop, index + 1


def _moment(value: np.datetime64) -> datetime:
    found: datetime = value.astype("datetime64[us]").item()
    return found
