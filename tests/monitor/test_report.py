"""The HTML of a window: one whole file under a name that stays, whatever the rows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from monitor.measurements import Window
from monitor.report import report_path, write_report
from monitor.views import View, reference_side, window_side
from registry.bundle import ModelBundle
from registry.inference_log import InferenceLog
from tests.handmade import make_frame
from tests.monitor.logged import write_rows

WINDOW = Window(index=0, start=datetime(2024, 3, 4), end=datetime(2024, 3, 11), rows=200)


def view_of(bundle: ModelBundle, log: InferenceLog, version: str = "1") -> View:
    return View(window_side(log.frame(), version, bundle.manifest), reference_side(bundle), bundle.manifest)


@pytest.mark.parametrize("broken", [False, True])
def test_it_is_rendered_once_and_whole(bundle: ModelBundle, log: InferenceLog, tmp_path: Path, broken: bool) -> None:
    frame = make_frame(200, shift=1.0)
    write_rows(log, bundle, frame.assign(weight=float("nan"), carrier="AA", member=None) if broken else frame)
    folder = tmp_path / "reports"
    path = write_report(view_of(bundle, log), WINDOW, "1", folder)
    assert path == report_path(folder, WINDOW, "1") == folder / "window-20240304T000000-v1.html"
    text = path.read_text()
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")
    assert "amount" in text
    assert "carrier" in text
    assert [one.name for one in folder.iterdir()] == [path.name]


def test_a_window_the_champion_did_not_answer_has_none(bundle: ModelBundle, log: InferenceLog, tmp_path: Path) -> None:
    write_rows(log, bundle, make_frame(50))
    assert write_report(view_of(bundle, log, "2"), WINDOW, "2", tmp_path / "reports") is None
    assert not (tmp_path / "reports").exists()
