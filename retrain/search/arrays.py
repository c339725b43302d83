"""A study's prepared rows, as its workers read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from registry.metrics import Labels
from retrain.batches import Rows
from retrain.search import plan as plans
from retrain.search.plan import Plan


class Arrays:
    """The study's prepared rows, mapped into memory; one numeric array for each scaling."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder / plans.ARRAYS, plan
        self._known: dict[str, tuple[Rows, Rows, Labels]] = {}

    def of(self, scaling: str) -> tuple[Rows, Rows, Labels]:
        """Training rows, validation rows, and the validation labels in the target's unit."""
        if scaling not in self._known:
            labels: Labels = self._load("validation.labels")
            self._known[scaling] = self._rows("train", scaling), self._rows("validation", scaling), labels
        return self._known[scaling]

    def _rows(self, part: str, scaling: str) -> Rows:
        labels = self._load(f"{part}.labels")
        if self.plan.problem == "regression":
            labels = ((labels - self.plan.centre) / self.plan.spread).astype(np.float32)
        return Rows(
            torch.from_numpy(self._load(f"{part}.{scaling}")),
            torch.from_numpy(self._load(f"{part}.categories")),
            torch.from_numpy(np.asarray(labels)),
            None if self.plan.layout.image is None else torch.from_numpy(self._load(f"{part}.images")),
        )

    def _load(self, name: str) -> npt.NDArray[Any]:
        loaded: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        return loaded
