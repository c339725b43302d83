"""A model registry in memory, for tests of flows that move aliases and need nothing else of MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.workplace import Workplace
from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.ledger import Ledger
from registry.settings import Settings
from registry.versions import Promotion
from tests.handmade import make_bundle, make_task


@dataclass
class Shelf:
    """A model registry in memory: versions in order, and aliases."""

    bundles: list[ModelBundle]
    aliases: dict[str, str] = field(default_factory=lambda: {"champion": "1"})
    radii: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def publish(self, bundle: ModelBundle) -> str:
        self.bundles.append(bundle)
        return str(len(self.bundles))

    def fetch(self, task: str, version: str) -> ModelBundle:
        return self.bundles[int(version) - 1]

    def radius(self, task: str, version: str) -> float | None:
        return self.radii.get(version)

    def set_radius(self, task: str, version: str, radius: float) -> None:
        self.radii[version] = radius

    def canary(self, task: str, version: str) -> float:
        return self.shares.get(version, 0.0)

    def set_canary(self, task: str, version: str, share: float) -> None:
        self.shares[version] = share

    def get(self, task: str, alias: str) -> str | None:
        return self.aliases.get(alias)

    def set(self, task: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def unset(self, task: str, alias: str) -> None:
        self.aliases.pop(alias, None)

    def promote(self, task: str, version: str) -> Promotion:
        if self.aliases["champion"] == version:  # as the real one: what is done twice changes nothing
            return Promotion(version, self.aliases.get("previous"))
        self.aliases |= {"previous": self.aliases["champion"], "champion": version}
        self.aliases.pop("challenger", None)
        return Promotion(version, self.aliases["previous"])

    def rollback(self, task: str) -> Promotion:
        return self.promote(task, self.aliases["previous"])


def shelf_place(folder: Path) -> Workplace:
    """The handmade task with its champion, version 1, on a registry in memory."""
    (folder / "home").mkdir()
    settings = Settings(home=folder / "home")
    engine = open_engine(settings.store)
    shelf: Any = Shelf([make_bundle(folder / "bundle")])
    return Workplace(settings, make_task(), InferenceLog(engine, "handmade"), Ledger(engine, "handmade"), shelf)
