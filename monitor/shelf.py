"""Where the reports of a task are kept, and how long: HTML for the status page, JSON for Evidently's own pages.

Evidently's workspace is a folder of JSON files: a project is `ID/metadata.json`, a run `ID/snapshots/ID.json`. Neither
rows nor pickle are in it, and none is ever loaded from it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from monitor.measurements import Window

_DAY = 86_400.0


@dataclass(frozen=True)
class Subject:
    """What a report is about: a window as a version answered it, and how it was judged if it was."""

    window: Window
    version: str
    severity: str | None = None

    @property
    def name(self) -> str:
        """What the report is called everywhere: the same window and version always the same."""
        return f"window-{self.window.start:%Y%m%dT%H%M%S}-v{self.version}"


@dataclass(frozen=True)
class Shelf:
    """The reports of one task. `pages` is the folder of its HTML, `workspace` is shared by all tasks of a home."""

    task: str
    pages: Path
    workspace: Path
    days: int

    @property
    def project(self) -> UUID:
        """The task's project in the workspace."""
        return project_of(self.task)

    @property
    def runs(self) -> Path:
        """Folder of the task's runs in the workspace."""
        return self.workspace / str(self.project) / "snapshots"

    def page(self, subject: Subject) -> Path:
        """The HTML of a report; one that is made again takes its place."""
        return self.pages / f"{subject.name}.html"

    def run(self, subject: Subject) -> Path:
        """The run of a report; one that is made again takes its place."""
        return self.runs / f"{uuid5(self.project, subject.name)}.json"

    def prune(self) -> None:
        """Delete what was made more than `days` ago, by the clock; never the newest page, never the newest run."""
        oldest = time.time() - self.days * _DAY
        for files in (self.pages.glob("*.html"), self.runs.glob("*.json")):
            made = sorted((path.stat().st_mtime, path) for path in files)
            for moment, path in made[:-1]:
                if moment < oldest:
                    path.unlink()


def project_of(task: str) -> UUID:
    """A task's project in a workspace: it follows from the name, so that no second one is ever made."""
    return uuid5(NAMESPACE_URL, f"everfit:{task}")


_PAGES = (
    "from uvicorn.config import LOGGING_CONFIG\n"
    "for one in LOGGING_CONFIG['loggers'].values(): one['level'] = 'WARNING'\n"
    "import evidently.cli.__main__"
)
"""Evidently's command line, whose server says nothing of each request."""


def pages_command(workspace: Path, port: int) -> tuple[str, ...]:
    """The arguments of Python that show a workspace on loopback."""
    place = ("--workspace", str(workspace), "--host", "127.0.0.1", "--port", str(port))
    return ("-c", _PAGES, "ui", *place)
