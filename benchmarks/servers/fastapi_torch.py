"""A plain FastAPI endpoint of the same networks in torch: pandas, the same preparation, torch, the same calibration.

    python benchmarks/servers/fastapi_torch.py BUNDLE PORT

What such a file usually is: no log, no batching, no checks but those of the preparation. It reads the bundle's weights
and what its members are built from, and runs in a thread, as FastAPI does with a plain function.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import uvicorn
from fastapi import FastAPI

from registry.bundle import ModelBundle
from registry.conforming import conform
from retrain.calibration import Calibration
from retrain.export import member_outputs
from retrain.members import read_members, read_scale

Row = dict[str, Any]


class TorchModel:
    """A bundle's members and all that is needed beside them."""

    def __init__(self, folder: Path) -> None:
        bundle = ModelBundle.load(folder)
        manifest = bundle.manifest
        self.members = list(read_members(bundle))
        self.weights = np.array([member.weight for member in self.members])
        self.schema, self.target = manifest.data_schema, manifest.target
        self.calibration = Calibration(
            temperature=manifest.temperature or 1.0, radius=manifest.conformal_radius, scale=read_scale(bundle)
        )
        for member in self.members:
            member.module.eval()

    def answers(self, rows: Sequence[Row]) -> list[Row]:
        """One answer a row."""
        conformed = conform(pd.DataFrame(rows), self.schema)
        scores = self.calibration.scores(member_outputs(self.members, conformed), self.weights, self.target)
        columns = {name: values for name, values in scores.columns().items() if name != "set"}
        if self.target.classes:
            classes = self.target.classes
            columns["probabilities"] = [dict(zip(classes, one, strict=True)) for one in columns["probabilities"]]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def make_app(folder: Path) -> FastAPI:
    """The endpoint."""
    app, model = FastAPI(), TorchModel(folder)

    @app.post("/predict")
    def predict(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"predictions": model.answers(rows)}

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    uvicorn.run(
        make_app(Path(sys.argv[1])),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
