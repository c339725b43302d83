"""`everfit report` and `everfit reports`: a report made by hand, and shown by Evidently's own pages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.watch import watch
from flows.workplace import Workplace
from tests.flows.conftest import fill, free_ports
from tests.handmade import make_frame


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Commands put the settings into their process's environment; here that process is the tests'."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def answer(process: subprocess.Popen[str], url: str) -> httpx.Response:
    """What the URL answers once somebody listens."""
    for _ in range(240):
        assert process.poll() is None, process.stdout.read()
        try:
            return httpx.get(url, timeout=10, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError(url)


def names_at(url: str, count: int) -> set[str]:
    """The names of the runs shown, once there are so many: pages that are open see a new one by watching the folder."""
    for _ in range(60):
        names = {one["name"] for one in httpx.get(url, trust_env=False).json()}
        if len(names) == count:
            break
        time.sleep(0.25)
    return names


def test_a_report_is_made_and_shown(place: Workplace, tmp_path: Path) -> None:
    fill(place.log, make_frame(1440, seed=3, start="2024-03-02"), tmp_path / "bundle")
    watch.fn("handmade")
    done = run("report", "handmade")
    assert done.exit_code == 0, done.output
    page = Path(done.stdout.strip())
    assert page == place.reports / "window-20240304T000000-v1.html"
    assert page.stat().st_size > 100_000
    (run_file,) = place.shelf.runs.iterdir()
    assert json.loads(run_file.read_text())["tags"] == ["version 1", "ok"]
    assert [entry.kind for entry in place.ledger.read(kinds={"report"})] == []

    (port,) = free_ports(1)
    code = "import sys; from flows.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "reports", "handmade", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        (project,) = answer(process, f"{url}/api/projects").json()
        assert (project["name"], project["id"]) == ("handmade", str(place.shelf.project))
        (found,) = httpx.get(f"{url}/api/projects/{project['id']}/reports", trust_env=False).json()
        assert (found["name"], found["tags"]) == (page.stem, ["version 1", "ok"])
        assert run("report", "handmade", "--window", "0").exit_code == 0
        assert names_at(f"{url}/api/projects/{project['id']}/reports", 2) == {
            "window-20240226T000000-v1",
            "window-20240304T000000-v1",
        }
        assert httpx.delete(f"{url}/api/projects/{project['id']}", trust_env=False).status_code in (401, 403)
        own = f"{url}/projects/{project['id']}"
        assert httpx.get(own, trust_env=False).headers["content-type"].startswith("text/html")
        taken = run("reports", "--port", str(port))
        assert taken.exit_code == 3
        assert f"port {port} is taken" in taken.stderr
        process.send_signal(signal.SIGINT)
        process.wait(30)
    finally:
        process.kill()
        said = process.communicate()[0]
        assert f"reports: {own} (Ctrl-C ends it)" in said
        assert "INFO" not in said
    assert place.shelf.runs.is_dir()


def test_where_the_newest_window_is_empty_the_one_before_is_shown(place: Workplace, tmp_path: Path) -> None:
    fill(place.log, make_frame(1440, seed=3, start="2024-03-02"), tmp_path / "bundle")
    watch.fn("handmade", as_of=datetime(2024, 4, 1))
    assert place.ledger.read(kinds={"window"})[-1].details["window"]["rows"] == 0
    done = run("report", "handmade")
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()).name == "window-20240311T000000-v1.html"


def test_what_was_not_measured_cannot_be_shown(place: Workplace, tmp_path: Path) -> None:
    none = run("report", "handmade")
    assert (none.exit_code, "no window was measured yet" in none.stderr) == (3, True)
    fill(place.log, make_frame(1440, seed=3, start="2024-03-02"), tmp_path / "bundle")
    watch.fn("handmade")
    for asked, said in (("9", "no window 9 was measured"), ("2024-09-01", "no window with 2024-09-01 00:00 in it")):
        other = run("report", "handmade", "--window", asked)
        assert (other.exit_code, said in other.stderr) == (2, True)
    wrong = run("report", "handmade", "--window", "soon")
    assert (wrong.exit_code, "expected a moment such as 2024-05-06" in wrong.stderr) == (2, True)


def test_without_reports_there_is_nothing_to_serve(place: Workplace) -> None:
    done = run("reports")
    assert done.exit_code == 3
    assert "`everfit report TASK` makes one" in done.stderr
    assert "no report of handmade is in" in run("reports", "handmade").stderr
    assert run("reports", "hnadmade").exit_code == 2
