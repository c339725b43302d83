"""The shelf: names that stay, and what is deleted from it."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from monitor.measurements import Window
from monitor.shelf import Shelf, Subject, pages_command

WINDOW = Window(index=0, start=datetime(2024, 3, 4), end=datetime(2024, 3, 11), rows=200)
DAY = 86_400


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf("handmade", tmp_path / "reports", tmp_path / "evidently", days=90)


def make(path: Path, days: int) -> Path:
    """A file that was made so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_name_says_window_and_version(shelf: Shelf, tmp_path: Path) -> None:
    one, again, other = Subject(WINDOW, "1", "ok"), Subject(WINDOW, "1", "degraded"), Subject(WINDOW, "2", "ok")
    assert shelf.page(one) == shelf.page(again) == tmp_path / "reports" / "window-20240304T000000-v1.html"
    assert shelf.run(one) == shelf.run(again) != shelf.run(other)


def test_a_task_is_one_project(shelf: Shelf, tmp_path: Path) -> None:
    again = Shelf("handmade", tmp_path, tmp_path / "evidently", days=1)
    other = Shelf("other", tmp_path, tmp_path / "evidently", days=1)
    assert shelf.project == again.project != other.project
    assert shelf.runs == tmp_path / "evidently" / str(shelf.project) / "snapshots"


def test_what_is_too_old_is_deleted(shelf: Shelf) -> None:
    for folder, ending in ((shelf.pages, "html"), (shelf.runs, "json")):
        for days in (0, 89, 91, 400):
            make(folder / f"{days}.{ending}", days)
    kept = [
        make(shelf.pages / "notes.txt", 400),
        make(shelf.runs.parent / "metadata.json", 400),
        make(shelf.workspace / "other" / "snapshots" / "400.json", 400),
    ]
    shelf.prune()
    assert names(shelf.pages) == {"0.html", "89.html", "notes.txt"}
    assert names(shelf.runs) == {"0.json", "89.json"}
    assert all(path.exists() for path in kept)


def test_the_newest_is_never_deleted(shelf: Shelf) -> None:
    for days in (200, 300):
        make(shelf.pages / f"{days}.html", days)
        make(shelf.runs / f"{days}.json", days)
    shelf.prune()
    assert (names(shelf.pages), names(shelf.runs)) == ({"200.html"}, {"200.json"})


def test_an_empty_shelf_has_nothing_to_delete(shelf: Shelf) -> None:
    shelf.prune()
    assert not shelf.pages.exists()


def test_the_pages_are_shown_on_loopback() -> None:
    command = pages_command(Path("/home/evidently"), 8010)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--workspace") + 1] == "/home/evidently"
    assert command[command.index("--port") + 1] == "8010"
