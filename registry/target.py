"""The column to predict: class names and indices, or numbers, and the one way labels are read."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from registry.errors import RowError
from registry.metrics import Labels, Problem
from registry.schema import Frozen, canonical_category

if TYPE_CHECKING:
    import pandas as pd

LabelType = Literal["string", "integer", "boolean", "number"]
UNKNOWN_CLASS = -1
LARGEST = 1e37
"""The largest target: answers are in single precision, and a square of a label beyond double would make a window's
metric undefined, so that one slip hid all others."""


class Target(Frozen):
    """The target of a task. `classes` are canonical strings in a fixed order (empty for regression); for a binary
    problem the last is the positive one. `label_type` is how a class is written in answers."""

    problem: Problem
    classes: tuple[str, ...] = ()
    label_type: LabelType = "string"

    @classmethod
    def learn(cls, values: pd.Series[Any], problem: Problem) -> Target:
        """The target as a column shows it. Missing values are passed over."""
        if problem == "regression":
            return cls(problem=problem, label_type="number")
        from registry.conforming import as_strings  # here, since it loads pandas

        texts = as_strings(values).dropna()
        label_type = _label_type(texts.unique())
        classes = sorted(texts.unique(), key=float if label_type == "integer" else str)
        return cls(problem=problem, classes=tuple(classes), label_type=label_type)

    def encode(self, values: pd.Series[Any]) -> Labels:
        """Labels as (n,) class indices (int64, `UNKNOWN_CLASS` for one never seen) or float64 values (NaN if missing).

        Raises `RowError` for a value that is no number where a number is expected.
        """
        from registry.conforming import as_numbers, as_strings

        if self.problem == "regression":
            return as_numbers(values)
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index.get(text, UNKNOWN_CLASS) for text in as_strings(values)], dtype=np.int64)

    def canonical(self, label: object) -> str | float:
        """One label in the form it is stored in: a class name of `classes`, or a finite number that is no
        larger than `LARGEST`.

        Raises `RowError` naming what was expected.
        """
        if self.problem == "regression":
            if isinstance(label, bool) or not isinstance(label, (int, float)) or not abs(label) < math.inf:
                raise RowError(f"label: expected a finite number, got {_quoted(label)}")
            if not -LARGEST <= label <= LARGEST:
                raise RowError(f"label: expected a number between {-LARGEST:g} and {LARGEST:g}, got {_quoted(label)}")
            return float(label)
        text = canonical_category(label) if isinstance(label, (str, int, float)) else None
        if text not in self.classes:
            known = ", ".join(self.classes[:20])
            raise RowError(f"label: expected one of {known}, got {_quoted(label)}")
        return text

    def decode(self, name: str) -> str | int | bool:
        """A class name as answers write it."""
        if self.label_type == "integer":
            return int(name)
        return name == "true" if self.label_type == "boolean" else name


def _quoted(label: object) -> str:
    """A label as JSON writes it, in which it came: null and true, not None and True.

    >>> _quoted(None), _quoted(True), _quoted("maybe"), _quoted(2.5)
    ('null', 'true', "'maybe'", '2.5')
    """
    return json.dumps(label) if label is None or isinstance(label, bool) else repr(label)


def _label_type(names: Any) -> LabelType:
    if set(names) <= {"true", "false"}:
        return "boolean"
    return "integer" if all(_is_canonical_integer(name) for name in names) else "string"


def _is_canonical_integer(name: str) -> bool:
    """Whether the integer that answers show would be read back as this class: "03" would come back as "3".

    >>> [_is_canonical_integer(name) for name in ("3", "-3", "03", "-0", "x")]
    [True, True, False, False, False]
    """
    try:
        return str(int(name)) == name
    except ValueError:
        return False
