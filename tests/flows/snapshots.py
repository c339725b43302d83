"""A home as it was at a moment, put back by a test that begins there: what led to it is done once.

The home stays where it is, since the registry knows its files by absolute paths; the databases at its top are copied in
place, by SQLite's own backup, since other connections hold them open.
"""

from __future__ import annotations

import fnmatch
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

_DATABASES = "*.db*"


def once(home: Path, name: str, make: Callable[[], None]) -> None:
    """Bring the home to the state of this name: by `make` the first time, by what it left from then on."""
    kept = home.with_name(name)
    if kept.is_dir():
        _copy(kept, home)
    else:
        make()
        partial = home.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy(home, partial)
        partial.rename(kept)  # a copy that breaks off is none


def _copy(source: Path, target: Path) -> None:
    for path in target.iterdir() if target.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.match(_DATABASES):
            path.unlink()
    top = str(source)
    shutil.copytree(
        source,
        target,
        ignore=lambda folder, names: fnmatch.filter(names, _DATABASES) if folder == top else (),
        dirs_exist_ok=True,
    )
    for path in source.glob("*.db"):
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(target / path.name)) as new:
            old.backup(new)
