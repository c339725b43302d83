"""The report of a window that people read: Evidently's, of the champion's rows beside its reference rows.

Evidently takes seconds to import and its HTML is some 5 MB: it is loaded when a report is made, from a bounded sample.
Its verdict is shown and never used.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from monitor.shelf import Shelf, Subject
from monitor.views import Side, View
from registry.errors import OutsideError
from registry.plurals import counted
from registry.schema import Schema
from registry.watched import SeenColumn

MOST_ROWS = 5_000
ANSWER, UNCERTAINTY = "prediction", "uncertainty"


def write_report(view: View, subject: Subject, shelf: Shelf, beside: str = "") -> Path | None:
    """Put the report on the shelf as HTML and as a run of the workspace, and delete what is too old; the HTML's path.
    `beside` is HTML of ours that stands above Evidently's.

    None when there is nothing to show (no rows, no columns). Either is whole or not there at all. One at a time a task.
    Raises `OutsideError` when the disk or Evidently fails.
    """
    current, reference = (_table(side, view.manifest.data_schema) for side in (view.window, view.reference))
    columns = [name for name in current if current[name].notna().any() and reference[name].notna().any()]
    if not columns:
        return None
    partial = shelf.pages / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with _quiet():
            snapshot = _compare(current[columns], reference[columns], subject)
            head = heading(shelf.task, subject, len(current), len(reference), beside)
            _place(snapshot, subject, shelf, partial, head)
        shelf.prune()
    except Exception as error:  # Evidently names none that it may raise
        failure = f"could not be made: {type(error).__name__}: {error}"
        raise OutsideError(f"the report of the window from {subject.window.name} {failure}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return shelf.page(subject)


def _table(side: Side, schema: Schema) -> pd.DataFrame:
    """The rows the champion answered, a sample of them: inputs without moments and images, texts by their length, and
    outputs."""
    mine = side.inputs[side.own].reset_index(drop=True)
    numbers = [column.name for column in schema.of("numeric") if not isinstance(column, SeenColumn)]
    table = pd.DataFrame({name: mine[name] for name in numbers}, index=mine.index)
    for column in schema.of("text"):
        table[f"{column.name} (characters)"] = mine[column.name].str.len().astype("float64")
    for column in schema.of("categorical", "boolean"):
        table[column.name] = mine[column.name].map(str, na_action="ignore").astype(object)
    table[ANSWER], table[UNCERTAINTY] = side.scores.prediction, side.scores.uncertainty
    return table.sample(min(MOST_ROWS, len(table)), random_state=0)


@contextmanager
def _quiet() -> Iterator[None]:
    os.environ.setdefault("DO_NOT_TRACK", "true")
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, RuntimeWarning):  # its imports; 0 / 0 in thin samples
            warnings.simplefilter("ignore", category)
        yield


def _compare(current: pd.DataFrame, reference: pd.DataFrame, subject: Subject) -> Any:
    """Evidently's snapshot, of which page and run are two writings."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    window, version, severity = subject.window, subject.version, subject.severity
    numbers = [name for name in current if pd.api.types.is_numeric_dtype(current[name])]
    names = [name for name in current if name not in numbers]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=names)
    sides: list[Any] = [Dataset.from_pandas(one, data_definition=definition) for one in (current, reference)]
    tags = [f"version {version}", *([severity] if severity else [])]
    about = {"window": window.name, "version": version, "end": f"{window.end:%Y-%m-%d %H:%M:%S}"}
    return Report([DataDriftPreset()]).run(*sides, timestamp=window.start, tags=tags, metadata=about)


def heading(task: str, subject: Subject, current: int, reference: int, beside: str = "") -> str:
    """What a page is about, as HTML: Evidently's own begins with its figures. `current` and `reference` are the rows
    that it compares, `beside` is HTML that goes with it."""
    window, version = subject.window, escape(subject.version)
    judged = f"Everfit judged it {escape(subject.severity)}." if subject.severity else "Everfit has not judged it."
    return (
        '<header style="font-family: sans-serif; max-width: 60rem; margin: 1rem auto">'
        f"<h1>{escape(task)}: window from {window.name} to {window.end:%Y-%m-%d %H:%M}</h1>"
        f"<p>Evidently compares columns and answers, by the methods of its own. <b>Current</b> are {current:,} of the "
        f"window's {counted(window.rows, 'row')}, as version {version} answered them; <b>reference</b> are "
        f"{reference:,} rows that it had not learnt from when it answered them. {judged} Nothing is decided by this "
        f"page.</p>{beside}</header>"
    )


def _headed(page: str, head: str, title: str) -> str:
    """Evidently's page with a heading and a title."""
    first = r'<body>(?=\s*<div id="root_)'
    page = re.sub(first, lambda found: f"{found[0]}{head}", page, count=1)
    return page.replace("<head>", f"<head><title>{escape(title)}</title>", 1)


def _place(snapshot: Any, subject: Subject, shelf: Shelf, partial: Path, head: str) -> None:
    """Write both where nobody looks, then move each to where it is looked for."""
    page, run = partial / "page.html", _as_run(snapshot, subject, shelf, partial / "workspace")
    told = _headed(snapshot.get_html_str(as_iframe=False), head, f"{shelf.task} {subject.name}")
    page.write_text(told, encoding="utf-8")
    shelf.runs.mkdir(parents=True, exist_ok=True)
    project = shelf.runs.parent / "metadata.json"
    if not project.exists():
        (run.parents[1] / project.name).replace(project)
    run.replace(shelf.run(subject))
    page.replace(shelf.page(subject))


def _as_run(snapshot: Any, subject: Subject, shelf: Shelf, folder: Path) -> Path:
    """The file of the snapshot in a workspace made for it alone.

    To open a workspace Evidently reads all of its runs, and it writes in place: one file cut short by a full disk, and
    the workspace cannot be opened any more.
    """
    from evidently.sdk.models import ProjectModel
    from evidently.ui.workspace import Workspace

    workspace = Workspace(str(folder))
    project = workspace.add_project(ProjectModel(id=shelf.project, name=shelf.task))
    return Path(workspace.add_run(project.id, snapshot, include_data=False, name=subject.name).url)
