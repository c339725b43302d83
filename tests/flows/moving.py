"""A home that was made once and is copied to where a test wants it: publishing a model takes longer than most tests."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

_TEXTS = ("bundle/bundle.json", "home/tasks/*.yaml", "home/artifacts/**/bundle.json", "home/artifacts/**/MLmodel")
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's tables name a place of files."""


def move(made: Path, to: Path) -> None:
    """Copy a folder with a home, a bundle and the source of its task; what names a path in it names the copy's."""
    shutil.copytree(made, to, dirs_exist_ok=True)
    for pattern in _TEXTS:
        for path in to.glob(pattern):
            path.write_text(path.read_text(encoding="utf-8").replace(str(made), str(to)), encoding="utf-8")
    with closing(sqlite3.connect(to / "home" / "mlflow.db")) as database, database:
        for table, column in _PLACES:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made), str(to)))
