"""The closed loop of the serving benchmark: it counts what a server really answered, and stops at a wrong answer."""

from __future__ import annotations

import threading

import orjson
import pytest
from fastapi import FastAPI, HTTPException

from benchmarks.serving_load import Load, drive
from tests.serving.conftest import serve


def counting() -> tuple[FastAPI, list[int]]:
    """An endpoint that notes how many rows each request has, and refuses more than two."""
    app, seen, lock = FastAPI(), list[int](), threading.Lock()

    @app.post("/predict")
    def predict(rows: list[dict[str, int]]) -> dict[str, int]:
        with lock:
            seen.append(len(rows))
        if len(rows) > 2:
            raise HTTPException(422, "too many")
        return {"rows": len(rows)}

    return app, seen


def load(*sizes: int) -> Load:
    return Load("/predict", tuple(orjson.dumps([{"x": 1}] * size) for size in sizes), sizes[0])


def test_answers_count_once_every_connection_has_had_one() -> None:
    app, seen = counting()
    with serve(app) as client:
        found = drive(client.base_url.port or 0, load(1, 2), 3, 0.3)
    assert len(seen) / 2 < len(found.latencies) <= len(seen) - 3
    assert set(seen) == {1, 2}, "bodies are taken in turn"
    assert abs(seen.count(1) - seen.count(2)) <= 1
    assert found.wall >= 0.3
    assert 0 < found.quantile(0.5) <= found.quantile(0.99) <= max(found.latencies)
    assert found.rate == pytest.approx(len(found.latencies) / found.wall)


def test_a_refusal_ends_the_drive_and_is_told() -> None:
    app, _ = counting()
    with serve(app) as client, pytest.raises(RuntimeError, match=r"expected an answer 200.*422"):
        drive(client.base_url.port or 0, load(1, 1, 3), 2, 5.0)
