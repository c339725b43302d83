"""What a frame's columns are: their kinds, those no model can use, and the schema learnt from the training part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from registry.conforming import as_datetimes, as_strings, conform_column
from registry.errors import RowError, TaskError, did_you_mean
from registry.images import ImageError, common_form, looks_like_images, stack
from registry.metrics import Problem
from registry.schema import (
    BooleanColumn,
    CategoricalColumn,
    Column,
    ColumnKind,
    DatetimeColumn,
    ImageColumn,
    LeftOut,
    NumericColumn,
    Schema,
    TextColumn,
)
from registry.task import Columns, TaskSpec
from registry.texts import frequent_words

MAX_CATEGORIES = 1_000
MIN_CATEGORY_ROWS = 5
IDENTIFIER_SHARE = 0.9
IDENTIFIER_ROWS = 50
MAX_CLASSES = 20
PROSE_TEXTS, PROSE_WORDS = 100, 4
"""Different texts, and words of the middle one, from which a column is prose and not categories."""

SEGMENTS = "monitor.segments"
"""The task's key of columns that are watched apart."""

RESERVED = ("prediction", "probabilities", "set", "interval", "uncertainty", "disagreement")
"""The outputs of a served model: no input of its graph can bear such a name."""

INTERNAL = "everfit:"
"""Begins every name inside a model's graph."""

_TRUTHS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"0", "1"})
_READ_AS_TRUTH = {"true", "false", "yes", "no", "t", "f", "0", "1"}


@dataclass(frozen=True)
class Kinds:
    """The kind of each column a model reads, in the frame's order, and the columns left out with their reasons."""

    kinds: dict[str, ColumnKind]
    left_out: tuple[LeftOut, ...]


def infer_kinds(frame: pd.DataFrame, columns: Columns, *, target: str, time: str | None = None) -> Kinds:
    """Kinds from the values; what the user says in `columns` wins. Integer codes stay numeric unless declared.

    Raises `TaskError` for a column in `columns` that the frame lacks, or the target or time column wrongly declared.
    """
    require_overrides(frame, columns, target, time)
    kinds: dict[str, ColumnKind] = {}
    left_out: list[LeftOut] = []
    for name in (str(name) for name in frame.columns if name != target):
        if name in columns.exclude:
            left_out.append(LeftOut(name=name, reason="excluded by the task"))
        elif not name:
            left_out.append(LeftOut(name=name, reason="it has no name; give it one to have it used"))
        elif name in RESERVED or name.startswith(("__", INTERNAL)):
            left_out.append(LeftOut(name=name, reason="its name is reserved for outputs; rename it to have it used"))
        elif name in columns.kinds or name == time:
            kinds[name] = columns.kinds.get(name, "datetime")
        elif looks_like_images(frame[name]):
            if (other := _image_column(kinds, columns)) is None:
                kinds[name] = "image"
            else:
                left_out.append(LeftOut(name=name, reason=f"a task reads one column of images, and that is {other!r}"))
        elif (reason := useless(frame[name])) is not None:
            left_out.append(LeftOut(name=name, reason=reason))
        else:
            kinds[name] = kind_of(frame[name])
    return Kinds(kinds, tuple(left_out))


def _image_column(kinds: dict[str, ColumnKind], columns: Columns) -> str | None:
    """The column of images that is declared, or else was found first."""
    return next((name for name, kind in [*columns.kinds.items(), *kinds.items()] if kind == "image"), None)


def require_overrides(frame: pd.DataFrame, columns: Columns, target: str, time: str | None) -> None:
    """Raise `TaskError` for a column in `columns` that the frame lacks, or the target or time column wrongly declared:
    one row is enough to see it."""
    known = [str(name) for name in frame.columns]
    for key, names in (("columns.kinds", tuple(columns.kinds)), ("columns.exclude", columns.exclude)):
        for name in names:
            if name not in known:
                raise TaskError(f"{key}: the data have no column {name!r}{did_you_mean(name, known)}")
            if name == target:
                raise TaskError(f"{key}: {name!r} is the target; it is no column a model reads")
    if len(images := [name for name, kind in columns.kinds.items() if kind == "image"]) > 1:
        raise TaskError(f"columns.kinds: a task reads one column of images, got {', '.join(images)}")
    if time is not None and columns.kinds.get(time, "datetime") != "datetime":
        raise TaskError(
            f"columns.kinds: {time!r} is the time column, so its kind is datetime, not {columns.kinds[time]}"
        )


def no_segments(kinds: Mapping[str, ColumnKind], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of the columns that are to be watched apart, value by value, that are no categories, and why not.

    >>> list(no_segments({"carrier": "categorical", "amount": "numeric"}, ["carrier", "amount"]))
    [('amount', 'a categorical or boolean column is expected, it is numeric')]
    """
    for name in names:
        if (kind := kinds.get(name, "categorical")) not in ("categorical", "boolean"):
            yield name, f"a categorical or boolean column is expected, it is {kind}"


def useless(values: pd.Series[Any]) -> str | None:
    """Why no model can use a column, or None: all missing, constant, identifier-like, or of no supported type."""
    if values.isna().all():
        return "all values are missing"
    if (reason := unsupported(values)) is not None:
        return reason
    distinct, known = int(values.nunique()), int(values.count())
    if distinct == 1 and known == len(values):
        return f"constant: every value is {printed(values.iloc[0])}"
    return _identifier(values, distinct, known)


def unsupported(values: pd.Series[Any]) -> str | None:
    """That no model reads, or predicts, values of this type; None where one can. Bytes are none that a request in JSON
    can hold."""
    if values.dtype.kind in "mc":
        return f"values of type {values.dtype} are not supported"
    if nested(values):
        return f"values of type {type(values.dropna().iloc[0]).__name__} are not supported"
    first = values.dropna().head(1)
    if values.dtype == object and len(first) and isinstance(first.iloc[0], bytes):
        return "values of type bytes are not supported; decode them to text"
    return None


def printed(value: object) -> str:
    """A value as messages print it, short and without numpy's type around it."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def nested(values: pd.Series[Any]) -> bool:
    """Whether cells hold collections, which no column kind reads."""
    first = values.dropna().head(1)
    return values.dtype == object and len(first) == 1 and isinstance(first.iloc[0], (list, dict, set, np.ndarray))


def _identifier(values: pd.Series[Any], distinct: int, known: int) -> str | None:
    if known < IDENTIFIER_ROWS or distinct <= IDENTIFIER_SHARE * known:
        return None
    if values.dtype.kind in "iu":
        running = values.is_monotonic_increasing or values.is_monotonic_decreasing
        return "identifier-like: whole numbers that run without repetition" if running and distinct == known else None
    if _texts(values.dtype) and kind_of(values) == "categorical":
        return f"identifier-like: {distinct:,} different texts in {known:,} rows"
    return None


def _texts(dtype: Any) -> bool:
    return pd.api.types.is_object_dtype(dtype) or isinstance(dtype, (pd.StringDtype, pd.CategoricalDtype))


def kind_of(values: pd.Series[Any]) -> ColumnKind:
    """The kind that a column's values show; texts are read as numbers, truths or ISO dates where all of them can be."""
    if values.dtype.kind == "M":
        return "datetime"
    if looks_like_images(values):
        return "image"
    known = pd.Series(pd.unique(values.dropna()))
    texts = {text.strip().lower() for text in as_strings(known.head(3)) if text is not None}
    if len(known) == 2 and texts in _TRUTHS and texts <= _READ_AS_TRUTH:
        return "boolean"
    if values.dtype.kind in "iufb":
        return "numeric"
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "categorical"
    if _all_numbers(known):
        return "numeric"
    if _all_dates(known):
        return "datetime"
    return "text" if _prose(known) else "categorical"


def _all_numbers(known: pd.Series[Any]) -> bool:
    """Whether all values are numbers or texts of numbers; codes with leading zeros (007) are no numbers."""
    texts = known.astype(str)
    if texts.str.fullmatch(r"0\d+").any():
        return False
    return bool(pd.to_numeric(texts, errors="coerce").notna().all())


def _prose(known: pd.Series[Any]) -> bool:
    """Whether the texts are sentences, or so: words with spaces between them, some of which many texts share. Numbers
    of orders, addresses and dates are not."""
    if len(known) <= PROSE_TEXTS or float(np.median([len(str(one).split()) for one in known])) < PROSE_WORDS:
        return False
    return len(frequent_words(map(str, known))) >= PROSE_WORDS


def _all_dates(known: pd.Series[Any]) -> bool:
    first = str(known.iloc[0])
    if not (len(first) >= 8 and first[:4].isdigit()):
        return False
    try:
        as_datetimes(known, "")
    except RowError:
        return False
    return True


def infer_problem(values: pd.Series[Any]) -> Problem:
    """The problem a target poses: two values binary; texts or few whole numbers multiclass; else regression."""
    known = values.dropna()
    distinct = known.nunique()
    if distinct == 2:
        return "binary"
    numbers = pd.to_numeric(known.astype(str), errors="coerce")
    if numbers.isna().any():
        return "multiclass"
    few_whole = distinct <= min(MAX_CLASSES, max(2, len(known) // 20)) and bool((numbers % 1 == 0).all())
    return "multiclass" if few_whole else "regression"


def describe(train: pd.DataFrame, kinds: Kinds) -> Schema:
    """The schema as the training part shows it: ranges, missing rates, frequent categories. Nothing else is read.

    A column that is constant or missing in all of `train` is left out too. Raises `RowError` for values that do not
    fit a declared kind.
    """
    columns: list[Column] = []
    left_out = list(kinds.left_out)
    for name, kind in kinds.kinds.items():
        column = _learn(train[name], name, kind)
        if isinstance(column, str):
            left_out.append(LeftOut(name=name, reason=column))
        else:
            columns.append(column)
    return Schema(columns=tuple(columns), left_out=tuple(left_out))


def learn_schema(frame: pd.DataFrame, train: pd.DataFrame, task: TaskSpec) -> Schema:
    """The schema of a task: kinds from all rows (a type is no leak), everything learnt from the training rows.

    The form of images, their size and channels, is like a kind: whoever loaded them (`retrain/image_checks.py`) has
    looked it up in all rows. Their mean and deviation are learnt from the training rows alone.
    """
    return describe(train, infer_kinds(frame, task.columns, target=task.target, time=task.time))


def _learn(values: pd.Series[Any], name: str, kind: ColumnKind) -> Column | str:
    """A column as training shows it, or the reason to leave it out."""
    if kind == "image":
        return _learn_images(values, name)
    known = conform_as(values, name, kind)
    missing = round(float(known.isna().mean()), 6)
    known = known.dropna()
    if known.empty:
        return "all values are missing in the training part"
    if missing == 0 and known.nunique() == 1:
        return f"constant in the training part: every value is {printed(values.iloc[0])}"
    if kind == "numeric":
        low, high = float(known.min()), float(known.max())
        return NumericColumn(name=name, missing=missing, low=low, high=high, integer=bool((known % 1 == 0).all()))
    if kind == "boolean":
        return BooleanColumn(name=name, missing=missing)
    if kind == "datetime":
        low, high = known.min().to_pydatetime(), known.max().to_pydatetime()
        return DatetimeColumn(name=name, missing=missing, low=low, high=high)
    if kind == "text":
        return TextColumn(name=name, missing=missing, words=frequent_words(known))
    counts = known.value_counts()
    return CategoricalColumn(name=name, missing=missing, categories=_frequent(counts), distinct=len(counts))


def _learn_images(values: pd.Series[Any], name: str) -> Column | str:
    """A column of images: its size and channels, and its mean colour."""
    known = values.dropna()
    if known.empty:
        return "all values are missing in the training part"
    column = image_column(known, name)
    images = conform_column(known, column)
    if images.nunique() == 1 and len(known) == len(values):
        return "constant in the training part: every image is the same"
    pixels = stack(images.to_list(), column.size, column.channels, column.fill)
    fill = tuple(round(float(value)) for value in pixels.mean(axis=(0, 2, 3)))
    return column.model_copy(update={"fill": fill, "missing": round(float(values.isna().mean()), 6)})


def image_column(known: pd.Series[Any], name: str) -> ImageColumn:
    """A column of the size and channels of these images, none of them missing. Raises `RowError` when none is one."""
    try:
        size, channels = common_form(known.to_list())
    except ImageError as error:
        raise RowError(f"column {name!r}: expected {error}, such as {printed(known.iloc[0])}") from error
    return ImageColumn.model_validate({"name": name, "size": size, "channels": channels, "fill": [127] * channels})


_BARE = {"numeric": NumericColumn, "boolean": BooleanColumn, "datetime": DatetimeColumn, "text": TextColumn}


def conform_as(values: pd.Series[Any], name: str, kind: ColumnKind) -> pd.Series[Any]:
    """A raw series in the conformed dtype of a kind. Raises `RowError` naming the first value that does not fit."""
    if kind == "image":
        return conform_column(
            values, image_column(values.dropna(), name) if values.notna().any() else ImageColumn(name=name)
        )
    return conform_column(values, _BARE.get(kind, CategoricalColumn)(name=name))


def _frequent(counts: pd.Series[int]) -> tuple[str, ...]:
    """Categories seen often enough to be learnt, most frequent first, ties by name so that runs agree."""
    enough = min(MIN_CATEGORY_ROWS, max(1, int(counts.sum()) // 100))
    ordered = sorted(counts[counts >= enough].items(), key=lambda pair: (-pair[1], str(pair[0])))
    return tuple(str(name) for name, _ in ordered[:MAX_CATEGORIES])
