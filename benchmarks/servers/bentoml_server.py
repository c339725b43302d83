"""BentoML's form of the same graph: a service with an adaptive batch of rows from several requests.

BUNDLE=FOLDER bentoml serve bentoml_server:Graph --port PORT
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from graph import OnnxModel

MOST_ROWS = 1024
LATENCY_MS = 1000


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": True})
class Graph:
    """`{"rows": [...]}` to a list of answers."""

    def __init__(self) -> None:
        self._model = OnnxModel(os.environ["BUNDLE"])

    @bentoml.api(batchable=True, max_batch_size=MOST_ROWS, max_latency_ms=LATENCY_MS)
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer a row."""
        return self._model.answers(rows)
