"""The report of a window: whole, under a name that stays, whatever the rows; or nothing."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from monitor.measurements import Window
from monitor.report import heading, write_report
from monitor.shelf import Shelf, Subject
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.errors import OutsideError
from registry.inference_log import InferenceLog
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

WINDOW = Window(index=0, start=datetime(2024, 3, 4), end=datetime(2024, 3, 11), rows=200)


def view_of(bundle: ModelBundle, log: InferenceLog, version: str = "1") -> View:
    return View(window_side(log.frame(), version, bundle.manifest), reference_side(bundle), bundle.manifest)


def shelf_in(folder: Path) -> Shelf:
    return Shelf("handmade", folder / "reports", folder / "evidently", days=90)


@pytest.mark.parametrize("broken", [False, True])
def test_it_is_a_page_and_a_run_of_the_workspace(
    bundle: ModelBundle, log: InferenceLog, tmp_path: Path, broken: bool
) -> None:
    frame = make_frame(200, shift=1.0)
    write_rows(log, bundle, frame.assign(weight=float("nan"), carrier="AA", member=None) if broken else frame)
    shelf, subject = shelf_in(tmp_path), Subject(WINDOW, "1", "degraded")
    path = write_report(view_of(bundle, log), subject, shelf)
    assert path == shelf.page(subject) == tmp_path / "reports" / "window-20240304T000000-v1.html"
    text = path.read_text()
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")
    assert "amount" in text
    assert "carrier" in text
    assert "<h1>handmade: window from 2024-03-04 00:00 to 2024-03-11 00:00</h1>" in text
    assert "<b>Current</b> are 200 of the window's 200 rows, as version 1 answered them" in text
    assert (text.count("<header"), text.count("<head><title>handmade window-20240304T000000-v1</title>")) == (1, 1)
    assert list(shelf.pages.iterdir()) == [path]
    run = json.loads(shelf.run(subject).read_text())
    assert (run["name"], run["tags"], run["timestamp"]) == (path.stem, ["version 1", "degraded"], "2024-03-04T00:00:00")
    assert run["metadata"] == {"window": "2024-03-04 00:00", "version": "1", "end": "2024-03-11 00:00:00"}
    assert {one.suffix for one in shelf.workspace.rglob("*") if one.is_file()} == {".json"}


def test_what_a_heading_quotes_is_no_html() -> None:
    said = heading("<b>a", Subject(WINDOW, "<i>1"), 5, 7)
    assert "<h1>&lt;b&gt;a: window" in said
    assert "version &lt;i&gt;1" in said
    assert "Everfit has not judged it." in said


def test_made_again_it_takes_the_place_of_the_first(bundle: ModelBundle, log: InferenceLog, tmp_path: Path) -> None:
    write_rows(log, bundle, make_frame(200))
    shelf = shelf_in(tmp_path)
    for severity in ("ok", "shifted"):
        write_report(view_of(bundle, log), Subject(WINDOW, "1", severity), shelf)
    from evidently.ui.workspace import Workspace

    workspace = Workspace(str(shelf.workspace))
    (project,) = workspace.list_projects()
    (run,) = workspace.list_runs(project.id)
    assert project.name == "handmade"
    assert workspace.get_run(project.id, run).tags == ["version 1", "shifted"]


def test_a_window_the_champion_did_not_answer_has_none(bundle: ModelBundle, log: InferenceLog, tmp_path: Path) -> None:
    write_rows(log, bundle, make_frame(50))
    assert write_report(view_of(bundle, log, "2"), Subject(WINDOW, "2"), shelf_in(tmp_path)) is None
    assert list(tmp_path.glob("reports/*")) == []


def test_when_evidently_fails_nothing_is_left(
    bundle: ModelBundle, log: InferenceLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(log, bundle, make_frame(50))
    shelf = shelf_in(tmp_path)

    def fail(*_: object) -> None:
        (shelf.pages / ".partial" / "half").write_text("<!DOCTYPE")
        raise KeyError("bins")

    monkeypatch.setattr("monitor.report._compare", fail)
    with pytest.raises(OutsideError, match="window from 2024-03-04 00:00 could not be made: KeyError: 'bins'"):
        write_report(view_of(bundle, log), Subject(WINDOW, "1"), shelf)
    assert list(shelf.pages.iterdir()) == []
    assert not shelf.workspace.exists()
