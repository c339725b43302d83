"""A challenger in the shadow: it predicts what the champion answers, reaches the log alone, and can harm nothing."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from registry.bundle import MODEL, ModelBundle
from registry.database import to_micros
from registry.errors import BundleError
from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.scoring import Scorer
from serving.shadow import Shadow
from tests.handmade import make_frame
from tests.serving.conftest import FakeVersions, endpoint, wait_for
from tests.serving.test_faults import log_of

AT = to_micros(datetime(2024, 3, 5))


def rows_of(count: int) -> list[dict[str, Any]]:
    frame = make_frame(count, start="2024-03-05").drop(columns="late")
    frame["when"] = frame["when"].map(lambda moment: moment.isoformat())
    return frame.to_dict("records")


def send(client: httpx.Client, count: int, tag: str) -> list[dict[str, Any]]:
    body = {"rows": rows_of(count), "ids": [f"{tag}{row}" for row in range(count)]}
    answer = client.post("/predict", json=body)
    return list(answer.raise_for_status().json()["predictions"])


def shadows(log: InferenceLog) -> int:
    return log.counts(role="shadow").predictions


def test_it_predicts_the_live_traffic_and_nobody_hears_of_it(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"], v2=bundles["reverse"])
    versions.champion = "1"
    with endpoint(tmp_path, versions) as client:
        log = log_of(tmp_path)
        send(client, 20, "before")
        wait_for(lambda: log.counts().predictions == 20)
        versions.challenger = "2"
        wait_for(lambda: (client.get("/model").json()["shadow"] or {}).get("version") == "2")
        answers = send(client, 100, "a")
        send(client, 1, "b")
        wait_for(lambda: shadows(log) == 101)
        state = client.get("/model").json()
        assert state["version"] == "1"
        wait_for(lambda: client.get("/model").json()["shadow"]["rows"] == 101)
        fares = client.get("/model").json()["shadow"]
        assert (fares["failed"], fares["seconds"] > 0) == (0, True)
        assert "everfit_shadow_rows_total" in client.get("/metrics").text
        versions.challenger = None
        wait_for(lambda: client.get("/model").json()["shadow"] is None)
        send(client, 5, "after")
        wait_for(lambda: log.counts().predictions == 126)
    logged = log.frame(role="shadow").set_index("__id__")
    assert shadows(log) == 101
    assert set(logged["__version__"]) == {"2"}
    expected = Scorer.load(bundles["reverse"]).predict(make_frame(100, start="2024-03-05"))
    mine = np.array([logged["__scores__"][f"a{row}"] for row in range(100)])
    np.testing.assert_allclose(mine, expected.scores, atol=1e-6)
    agreed = sum(one["prediction"] == logged["__prediction__"][one["id"]] for one in answers)
    assert agreed <= fares["agreed"] <= agreed + 1
    assert agreed < 50


def test_a_damaged_challenger_harms_nobody(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """It is fetched once and not again at each look; the champion is served and logged."""
    folder = tmp_path / "damaged"
    shutil.copytree(bundles["reverse"].folder, folder)
    (folder / MODEL).write_bytes(b"no graph")
    versions = FakeVersions(v1=bundles["good"], v2=ModelBundle(folder, bundles["reverse"].manifest))
    versions.champion, versions.challenger = "1", "2"
    with endpoint(tmp_path, versions) as client:
        wait_for(lambda: "2" in versions.fetched)
        send(client, 3, "a")
        wait_for(lambda: log_of(tmp_path).counts().predictions == 3)
        assert client.get("/health/ready").status_code == 200
        assert versions.fetched.count("2") == 1
    with pytest.raises(BundleError):
        Shadow("2", folder)


def test_rows_that_a_challenger_cannot_read_are_counted(bundles: dict[str, ModelBundle]) -> None:
    """It wants a column that clients of the champion do not send."""
    shadow = Shadow("2", bundles["good"].folder)
    row = rows_of(1)[0]
    answered = Batch("1", "champion", ["a"], [AT], [AT], [row], ["yes"], [[0.1, 0.9]], [[1]], [0.3], [0.0])
    assert len(shadow.beside([row], answered)) == 1
    assert shadow.beside([{name: value for name, value in row.items() if name != "amount"}], answered) == []
    assert (shadow.report()["rows"], shadow.report()["failed"]) == (1, 1)
    assert "column 'amount'" in shadow.report()["last_error"]


def test_a_request_is_predicted_a_part_after_the_other(
    bundles: dict[str, ModelBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow, rows = Shadow("2", bundles["regression"].folder), rows_of(20)
    ids, many = [str(one) for one in range(20)], [0.0] * 20
    answered = Batch("1", "champion", ids, [AT] * 20, [AT] * 20, rows, many, [[0.0, 1.0]] * 20, None, many, many)
    (whole,) = shadow.beside(rows, answered)
    calls: list[int] = []
    run = Scorer.run

    def counted(self: Scorer, inputs: Any) -> Any:
        calls.append(len(inputs["amount"]))
        return run(self, inputs)

    monkeypatch.setattr(Scorer, "run", counted)
    monkeypatch.setattr("registry.scoring.CHUNK_ROWS", 8)
    parts = shadow.beside(rows, answered)
    assert calls == [8, 8, 4]
    assert [one for part in parts for one in part.ids] == ids
    assert [one for part in parts for one in part.predictions] == pytest.approx(whole.predictions)


def test_numbers_agree_inside_of_the_champions_interval(bundles: dict[str, ModelBundle]) -> None:
    shadow = Shadow("2", bundles["regression"].folder)
    row = rows_of(1)[0]
    for low, high, agreed in ((-99.0, 99.0, 1), (98.0, 99.0, 1)):
        answered = Batch("1", "champion", ["a"], [AT], [AT], [row], [0.0], [[low, high]], None, [1.0], [0.0])
        (made,) = shadow.beside([row], answered)
        assert made.role == "shadow"
        assert shadow.report()["agreed"] == agreed
