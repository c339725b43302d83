"""The report of a window that people read: Evidently's HTML of the champion's rows beside its reference rows.

Evidently takes seconds to import and its file is some 5 MB: it is loaded when a report is made, from a bounded sample.
Its verdict is shown and never used.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from monitor.measurements import Window
from monitor.views import Side, View
from registry.schema import Schema

MOST_ROWS = 5_000
ANSWER, UNCERTAINTY = "prediction", "uncertainty"


def report_path(folder: Path, window: Window, version: str) -> Path:
    """Where the report of a window is kept: the same window and version always under the same name."""
    return folder / f"window-{window.start:%Y%m%dT%H%M%S}-v{version}.html"


def write_report(view: View, window: Window, version: str, folder: Path) -> Path | None:
    """Render the report and put it in place at once; None when there is nothing to show (no rows, no columns)."""
    current, reference = (_table(side, view.manifest.data_schema) for side in (view.window, view.reference))
    columns = [name for name in current if current[name].notna().any() and reference[name].notna().any()]
    if not columns:
        return None
    path = report_path(folder, window, version)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(_render(current[columns], reference[columns]), encoding="utf-8")
    partial.replace(path)
    return path


def _table(side: Side, schema: Schema) -> pd.DataFrame:
    """The rows the champion answered, a sample of them: inputs without moments, and outputs."""
    mine = side.inputs[side.own].reset_index(drop=True)
    table = pd.DataFrame({column.name: mine[column.name] for column in schema.of("numeric")}, index=mine.index)
    for column in schema.of("categorical", "boolean"):
        table[column.name] = mine[column.name].map(str, na_action="ignore").astype(object)
    table[ANSWER], table[UNCERTAINTY] = side.scores.prediction, side.scores.uncertainty
    return table.sample(min(MOST_ROWS, len(table)), random_state=0)


def _render(current: pd.DataFrame, reference: pd.DataFrame) -> str:
    os.environ.setdefault("DO_NOT_TRACK", "true")
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, RuntimeWarning):  # its imports; 0 / 0 in thin samples
            warnings.simplefilter("ignore", category)
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        numbers = [name for name in current if pd.api.types.is_numeric_dtype(current[name])]
        names = [name for name in current if name not in numbers]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=names)
        sides: list[Any] = [Dataset.from_pandas(one, data_definition=definition) for one in (current, reference)]
        html: str = Report([DataDriftPreset()]).run(*sides).get_html_str(as_iframe=False)
    return html
