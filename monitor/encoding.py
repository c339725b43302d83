"""Rows of a side as numbers, for what learns from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.values import Codes, Names
from monitor.views import Side, View
from registry.metrics import Array
from registry.schema import Column, Schema
from registry.yardstick import MAX_CODES, Features, encode, lean


def lean_schema(view: View) -> Schema:
    """The columns that are learnt from, moments left out: time always moves on."""
    return view.once("lean schema", lambda: lean(view.manifest.data_schema))


def encoded(side: Side, columns: Sequence[Column], rows: Codes) -> Features:
    """What `encode` makes of these rows of a side, (n, d), in columns of a lean schema: from columns as measures read
    them, whose names need not be told apart again."""
    made = [_encoded(side, column, rows) for column in columns]
    return np.column_stack(made) if made else np.empty((len(rows), 0))


def sampled(view: View, columns: Sequence[Column], rows: Codes) -> Features:
    """The window's, made once however many ask for the same columns and rows."""
    asked = hash((tuple(column.name for column in columns), rows.tobytes()))
    return view.here(f"encoded {asked}", lambda: encoded(view.window, columns, rows))


def _encoded(side: Side, column: Column, rows: Codes) -> Features:
    if column.kind == "text":
        return encode(side.inputs[[column.name]].iloc[rows], Schema(columns=(column,)))
    values = side.column(column.name)
    return _coded(values, column, rows) if isinstance(values, Names) else values.array[rows]


def _coded(values: Names, column: Column, rows: Codes) -> Array:
    """Rare and unknown categories share the code after the last one."""
    learnt = column.categories[: MAX_CODES - 1] if column.kind == "categorical" else ()
    table = {category: code for code, category in enumerate(learnt)}
    codes = np.array([*(table.get(name, len(learnt)) for name in values.names), np.nan], dtype=np.float64)
    return codes[values.codes[rows]]
