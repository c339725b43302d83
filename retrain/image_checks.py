"""Images looked at before any training: all of them decoded, those that cannot be are left out, and what was found.

What no check here can see: one picture in two sizes, or two pictures of one thing, in different parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from registry.errors import RowError, TaskError
from registry.images import ImageError, channels_of, decode, looks_like_images, to_pnm, unpacked
from registry.inference import image_column, printed
from registry.schema import ImageColumn
from registry.task import TaskSpec
from retrain.finding import Finding

MOST_UNREADABLE = 0.1
"""Share of the images from which it is fatal that they cannot be read."""


def load_images(
    frame: pd.DataFrame, task: TaskSpec, column: ImageColumn | None = None
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """The rows whose image can be read, or is missing, the images conformed; and what was found. A frame without
    images is given back as it is. Their size and channels are looked up in all rows, as the columns' kinds are: what a
    file's form is tells nothing of the labels; with `column` they are what it says. Raises `TaskError` when two columns
    of them are declared."""
    name = image_name(frame, task) if column is None else column.name
    if name is None or name not in frame.columns or not frame[name].notna().any():
        return frame, ()
    try:
        column = column or image_column(frame[name].dropna(), name)
    except RowError as error:
        remedy = "check the paths and the files, or list the column under `columns.exclude`"
        return frame, (Finding(level="fatal", column=name, message=str(error), remedy=remedy, rows=len(frame)),)
    looked = _Looked(frame[name], column)
    loaded = frame.assign(**{name: looked.images})[looked.readable].reset_index(drop=True)
    return loaded, tuple(looked.findings())


def image_name(frame: pd.DataFrame, task: TaskSpec) -> str | None:
    """The column of images: the one that is declared, or else the first that holds some. Raises `TaskError` when two
    are declared."""
    declared = [name for name, kind in task.columns.kinds.items() if kind == "image" and name in frame.columns]
    if len(declared) > 1:
        raise TaskError(f"columns.kinds: a task reads one column of images, got {', '.join(declared)}")
    other = {task.target, task.time, *task.columns.exclude, *task.columns.kinds}
    found = (str(name) for name in frame.columns if name not in other and looks_like_images(frame[name]))
    return declared[0] if declared else next(found, None)


class _Looked:
    """The values of a column of images, decoded one by one."""

    def __init__(self, values: pd.Series[Any], column: ImageColumn) -> None:
        self.column, self.rows = column, len(values)
        self.readable = np.ones(len(values), dtype=np.bool_)
        self.converted = 0
        self.example = ""
        self.images = pd.Series(
            [self._read(row, value) for row, value in enumerate(values)], values.index, dtype=object
        )

    def _read(self, row: int, value: Any) -> bytes | None:
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return None
        try:
            pixels = decode(value, self.column.size, self.column.channels)
            self.converted += self._is_converted(value, pixels)
        except ImageError as error:
            self.example = self.example or f"{printed(unpacked(value))} in row {row}: expected {error}"
            self.readable[row] = False
            return None
        return to_pnm(pixels)

    def _is_converted(self, value: object, pixels: Any) -> bool:
        """Whether an image has colours that a grey column drops, or none where the others have."""
        if self.column.channels == 1:
            return channels_of(value) == 3
        return bool((pixels == pixels[:1]).all())

    def findings(self) -> Iterator[Finding]:
        """What was found."""
        name, lost = self.column.name, int((~self.readable).sum())
        if lost:
            fatal = lost > MOST_UNREADABLE * self.rows
            message = f"{lost:,} of {self.rows:,} images cannot be read, such as {self.example}"
            remedy = "mend or remove these files" if fatal else "their rows are left out"
            level: Any = "fatal" if fatal else "warning"
            yield Finding(level=level, column=name, message=message, remedy=remedy, rows=lost)
        if self.converted:
            kind, become = ("have colours", "grey") if self.column.channels == 1 else ("are grey", "colours")
            message = f"{self.converted:,} of {self.rows:,} images {kind}, the others do not"
            if self.column.channels == 3:
                message = f"{self.converted:,} of {self.rows:,} images {kind}, the others have colours"
            remedy = f"they are converted to {become}"
            yield Finding(level="warning", column=name, message=message, remedy=remedy, rows=self.converted)
