"""The endpoint over real HTTP: every route, every kind of bad input."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import TaskError
from registry.inference_log import InferenceLog
from registry.scoring import Scorer
from registry.settings import Settings
from serving.app import create_app
from serving.tables import FILE, PARQUET, STREAM
from tests.handmade import make_frame
from tests.serving.conftest import ROW, FakeVersions, endpoint, endpoint_of, wait_for

MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def client(home: Path, bundles: dict[str, ModelBundle]) -> Iterator[httpx.Client]:
    with endpoint_of(bundles["good"], home, max_body_bytes=MAX_BYTES, max_rows=500) as one:
        yield one


def log_of(home: Path) -> InferenceLog:
    return InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade")


def test_one_row_has_all_a_prediction_has(client: httpx.Client) -> None:
    answer = client.post("/predict", json=ROW).json()
    assert answer["model"] == {"task": "handmade", "version": "1"}
    (one,) = answer["predictions"]
    assert one.keys() == {"id", "prediction", "probabilities", "set", "uncertainty", "disagreement"}
    assert one["prediction"] == max(one["probabilities"], key=one["probabilities"].get)
    assert one["prediction"] in one["set"]
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert "warnings" not in answer


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_answers_as_the_scorer_does(client: httpx.Client, bundles: dict[str, ModelBundle], rows: int) -> None:
    """In the event loop or in a thread: the same probabilities as offline, in the order of the rows."""
    frame = make_frame(rows, seed=3).drop(columns="late")
    body = orjson.loads(frame.to_json(orient="records", date_format="iso"))
    answer = client.post("/predict", json={"rows": body}).json()
    found = [list(one["probabilities"].values()) for one in answer["predictions"]]
    expected = Scorer.load(bundles["good"]).predict(frame).scores
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ids_are_unique_and_in_the_order_of_time(client: httpx.Client) -> None:
    ids = [one["id"] for _ in range(5) for one in client.post("/predict", json=[ROW] * 40).json()["predictions"]]
    assert ids == sorted(set(ids))
    assert all(len(one) <= 64 for one in ids)


def test_acknowledged_predictions_reach_the_log_once(client: httpx.Client, home: Path) -> None:
    """A repeated request under the client's own ids does not grow the log."""
    ids = ["once-1", "once-2"]
    for _ in range(2):
        answer = client.post("/predict", json={"rows": [ROW, {**ROW, "when": None}], "ids": ids})
        assert [one["id"] for one in answer.json()["predictions"]] == ids
    wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
    frame = log_of(home).frame().set_index("__id__")
    assert sum(frame.index.isin(ids)) == 2
    assert frame.loc["once-1", "__time__"] == datetime(2024, 3, 1, 10)
    assert frame.loc["once-2", "__time__"] == frame.loc["once-2", "__received__"]


def test_unknown_category_missing_values_and_extra_columns_are_served(client: httpx.Client) -> None:
    for row in ({**ROW, "carrier": "ZZ"}, dict.fromkeys(ROW), {**ROW, "more": [1, {"a": None}]}):
        assert client.post("/predict", json=row).status_code == 200


def test_values_outside_the_range_are_served_with_a_warning(client: httpx.Client) -> None:
    expected = ["amount: 99 is outside the range seen in training, -4 to 4"]
    assert client.post("/predict", json={**ROW, "amount": 99}).json()["warnings"] == expected
    assert client.post("/predict", json=[ROW, {**ROW, "amount": 99}]).json()["warnings"] == expected


def test_columns_that_nobody_reads_are_named_once_and_are_no_values_outside_the_range(client: httpx.Client) -> None:
    def outside() -> str:
        return next(one for one in client.get("/metrics").text.splitlines() if one.startswith("everfit_outside_range"))

    before, row = outside(), {**ROW, "shop": 1}
    expected = ["shop: is no column of the model, and was ignored"]
    for body in (row, [row], [row, row, ROW]):
        assert client.post("/predict", json=body).json()["warnings"] == expected
    columns = {name: [value] for name, value in row.items()}
    assert client.post("/predict", json={"columns": columns}).json()["warnings"] == expected
    assert outside() == before


def test_wrong_type_is_a_problem_that_names_row_column_and_value(client: httpx.Client) -> None:
    response = client.post("/predict", json=[ROW, {**ROW, "amount": "lots"}])
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "row 1, column 'amount': expected a number, got 'lots'",
        "row": 1,
        "column": "amount",
        "value": "lots",
        "request_id": response.headers["x-request-id"],
    }


def test_a_column_that_vanished_is_named(client: httpx.Client) -> None:
    response = client.post("/predict", json={name: value for name, value in ROW.items() if name != "weight"})
    assert (response.status_code, response.json()["column"]) == (422, "weight")


def test_how_a_missing_value_is_written_is_said_where_one_may_be_meant(client: httpx.Client) -> None:
    hint = "(a missing value is written null)"
    for body, hinted in ((b'{"amount": NaN}', True), (b'{"amount": , "weight": 1}', True), (b'{"amount"', False)):
        detail = client.post("/predict", content=body).json()["detail"]
        assert detail.startswith("the body is not JSON: ")
        assert (hint in detail) is hinted
    assert client.post("/predict", content=b"").json()["detail"] == "the body is not JSON: it is empty"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"amount": NaN}', 400),
        (b'{"amount": Infinity}', 400),
        (b'{"amount": 1e999}', 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, 400),
        (b"[]", 422),
        (b'"text"', 422),
        (b"[1]", 422),
        (b'{"rows": []}', 422),
        (orjson.dumps([ROW] * 501), 413),
        (orjson.dumps({**ROW, "amount": "NaN"}), 422),
        (orjson.dumps({**ROW, "amount": True}), 422),
        (orjson.dumps({**ROW, "amount": 1e200}), 422),
        (orjson.dumps({**ROW, "carrier": ["AA"]}), 422),
        (b" " * (MAX_BYTES + 1), 413),
    ],
)
def test_bad_bodies_get_a_problem(client: httpx.Client, body: bytes, status: int) -> None:
    for path in ("/predict", "/feedback"):
        response = client.post(path, content=body)
        assert response.status_code == (status if path == "/predict" or status != 413 else response.status_code)
        assert 400 <= response.status_code < 500
        assert len(response.content) < 1_000
        assert response.json()["status"] == response.status_code
    assert client.post("/predict", json=ROW).status_code == 200


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"row": ROW}, "{'rows': [...]}, got the key 'row' (did you mean 'rows'?)"),
        ({"row": [ROW], "ids": ["a"]}, "got the key 'row' (did you mean 'rows'?)"),
        ({"column": {"amount": [1.0]}}, "got the key 'column' (did you mean 'columns'?)"),
        ({"rows": [ROW], "idz": ["a"]}, "expected no keys but rows, ids, got 'idz' (did you mean 'ids'?)"),
        ({"columns": {"amount": [1.0]}, "id": ["a"]}, "no keys but columns, ids, got 'id' (did you mean 'ids'?)"),
        ({"rows": None}, "rows: expected a list of rows, got null"),
        (None, "got null"),
        ([None], "row 0: expected an object of columns, got null"),
        ({**ROW, "amount": True}, "column 'amount': expected a number, got true"),
    ],
)
def test_what_is_misspelt_is_named_and_json_s_words_are_json_s(client: httpx.Client, body: Any, detail: str) -> None:
    response = client.post("/predict", content=orjson.dumps(body))
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_ten_megabytes_are_refused_unread(client: httpx.Client) -> None:
    for content in (b"x" * 10_000_000, (b"x" * 100_000 for _ in range(100))):
        response = client.post("/predict", content=content)
        assert response.status_code == 413
        assert f"at most {MAX_BYTES} bytes" in response.json()["detail"]


@pytest.mark.parametrize(
    "header", ["content-length: 100000000000", "content-length: 300000", "transfer-encoding: chunked"]
)
def test_a_body_that_lies_about_its_length(client: httpx.Client, header: str) -> None:
    """Refused by what is announced, or, when nothing is, by what came; never by waiting for the rest."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as one:
        one.sendall(f"POST /predict HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n".encode())
        if header.endswith("chunked"):
            for _ in range(30):
                one.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert one.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_halfway_harms_nobody(client: httpx.Client) -> None:
    for _ in range(3):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as one:
            one.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
    assert client.post("/predict", json=ROW).status_code == 200


def test_labels_without_a_time_in_data_of_the_past_are_told(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Monitoring stands at the newest row, where a label of now is not known."""
    bare = [{"id": "old", "label": "no"}, {"id": "old", "label": "no", "time": "2024-03-02"}]
    with endpoint_of(bundles["good"], tmp_path) as client:
        client.post("/predict", json={"rows": [ROW], "ids": ["old"]})
        (told,) = client.post("/feedback", json=bare).json()["warnings"]
        assert told.startswith(
            "labels without a time: 1; they count as of now, and the newest row logged is of 2024-03-01"
        )
        now = f"{datetime.now(UTC):%FT%T}"
        client.post("/predict", json={"rows": [{**ROW, "when": now}], "ids": ["new"]})
        assert "warnings" not in client.post("/feedback", json=bare).json()


@pytest.mark.parametrize("astray", ["2097-01-01T00:00:00", None])
def test_a_row_that_monitoring_passes_over_does_not_silence_the_warning(
    tmp_path: Path, bundles: dict[str, ModelBundle], astray: str | None
) -> None:
    """One after the clock, or without a moment, moves no clock of monitoring."""
    with endpoint_of(bundles["good"], tmp_path) as client:
        client.post("/predict", json=[ROW, {**ROW, "when": astray}])
        (told,) = client.post("/feedback", json={"id": "old", "label": "no"}).json()["warnings"]
    assert "the newest row logged is of 2024-03-01" in told


def test_feedback_late_repeated_corrected_and_unknown(client: httpx.Client, home: Path) -> None:
    (one,) = client.post("/predict", json=ROW).json()["predictions"]
    given = {"id": one["id"], "label": "yes", "time": "2024-03-02T00:00:00Z"}
    zero = {"stored": 0, "repeated": 0, "corrected": 0, "unknown": 0}
    assert client.post("/feedback", json=given).json() == zero | {"stored": 1}
    assert client.post("/feedback", json=[given]).json() == zero | {"repeated": 1}
    assert client.post("/feedback", json={"labels": [{**given, "label": "no"}]}).json() == zero | {"corrected": 1}
    later = {**given, "label": "no", "time": "2024-03-05T00:00:00Z"}
    assert client.post("/feedback", json=later).json() == zero | {"corrected": 1}
    both = [{"id": one["id"], "label": "no"}, {"id": "not-yet", "label": "no"}]
    told = client.post("/feedback", json=both).json()
    told.pop("warnings", None)  # whether rows of now were logged before depends on the tests before this one
    assert told == zero | {"repeated": 1, "unknown": 1}
    ahead = client.post("/feedback", json=[{"id": "some-day", "label": "no", "time": "2231-01-01"}]).json()
    assert ahead.pop("warnings")[0].startswith("row 0, time: 2231-01-01T00:00:00 is more than a day after now: ")
    assert ahead == zero | {"unknown": 1}
    strange = {"id": "x", "label": "no", "time": "2024-03-05"}
    assert client.post("/feedback", json=[given, later, strange]).json() == zero | {"repeated": 2, "unknown": 1}
    client.post("/predict", json={"rows": [ROW], "ids": ["not-yet"]})
    wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
    frame = log_of(home).frame().set_index("__id__")
    assert list(frame.loc[[one["id"], "not-yet"], "__label__"]) == ["no", "no"]
    assert frame.loc[one["id"], "__label_time__"] == datetime(2024, 3, 5)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"id": "a", "label": "perhaps"}, "row 0, label: expected one of no, yes, got 'perhaps'"),
        ([{"id": "a", "label": "no"}, {"id": "a"}], "row 1: expected an object with id and label"),
        ({"label": "no"}, 'got {"label": "no"}: id missing (id is that of the prediction, in its answer)'),
        ({"prediction_id": "a", "truth": "no"}, "id and label missing (id is that of the prediction, in its answer); "),
        ({"id": "a", "value": "no"}, "label missing; 'value': no field of a label, which has id, label"),
        ({"id": 7, "label": "no"}, "row 0: expected an id of 1 to 64 printable characters, in quotes, got 7"),
        ({"id": "a", "label": "no", "time": "soon"}, "row 0, time: expected an ISO 8601 date and time, got 'soon'"),
        ({"labels": []}, "labels: expected at least one, got none"),
        ({"labels": 3}, "expected a label, a list of labels"),
        ({"labels": None}, 'expected a label, a list of labels or {"labels": [...]}, got null'),
        ({"label": [{"id": "a", "label": "no"}]}, '{"labels": [...]}, got a list of them under "label"'),
        ({"labels": [{"id": "a", "label": "no"}], "lables": []}, "got 'lables' (did you mean 'labels'?)"),
        ({"id": "a", "label": "no", "tiem": "soon"}, "row 0: expected no keys but id, label, time, got 'tiem' (did"),
    ],
)
def test_bad_feedback_names_what_is_wrong(client: httpx.Client, body: Any, detail: str) -> None:
    response = client.post("/feedback", json=body)
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_health_and_model(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"live": True}
    ready = client.get("/health/ready").json()
    assert ready.pop("since") == client.get("/model").json()["since"]
    assert ready == {
        "ready": True,
        "version": "1",
        "registry": "ok",
        "log": "ok",
        "last_error": None,
    }
    model = client.get("/model").json()
    assert (model["task"], model["version"], model["swaps"], model["last_error"]) == ("handmade", "1", 0, None)
    assert [column["name"] for column in model["schema"]["columns"]] == list(ROW)
    assert model["metrics"]["champion"]["auc"] > 0.5


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    names = (
        'everfit_requests_total{route="/predict",status="200"',
        "everfit_predictions_total",
        'everfit_request_duration_seconds_count{route="/predict"',
    )
    before = [value(name) for name in (*names, "everfit_ignored_values_total", "everfit_outside_range_total")]
    client.post("/predict", json=[{**ROW, "more": 1, "amount": 50}] * 3)
    after = [value(name) for name in (*names, "everfit_ignored_values_total", "everfit_outside_range_total")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 3, 1, 3, 1]
    assert value("everfit_ready") == 1
    assert value("process_resident_memory_bytes") > 0


def test_other_routes_and_methods_are_problems(client: httpx.Client) -> None:
    """They say what there is instead."""
    response = client.post("/prdict", json=ROW)
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no path '/prdict' here (did you mean '/predict'?); GET / lists them",
        "request_id": response.headers["x-request-id"],
    }
    response = client.get("/predict")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["detail"] == "'/predict' is not for GET: expected POST"
    assert "did you mean" not in client.get("/%00%F0%9F%98%80").json()["detail"]
    assert client.get("/v2/modls/handmade").json()["error"].startswith("no path '/v2/modls/handmade' here (did you")
    assert len(client.get(f"/{'a' * 5_000}").json()["detail"]) < 200


def test_who_asks_for_the_head_alone_gets_that_of_a_get(client: httpx.Client) -> None:
    """As probes do; the connection goes on."""
    for path, status in (("/health/live", 200), ("/health/ready", 200), ("/", 200), ("/docs", 200), ("/nowhere", 404)):
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
    head, whole = client.head("/predict"), client.get("/predict")
    assert head.headers["allow"] == "POST"
    assert int(head.headers["content-length"]) == len(whole.content.replace(b"for GET", b"for HEAD"))
    assert client.post("/predict", json=ROW).status_code == 200


def test_the_index_names_what_there_is(client: httpx.Client) -> None:
    """Each path that it names is one; behind a proxy they begin as the proxy's do."""
    index = client.get("/").json()
    assert index["name"] == "everfit"
    for name in ("docs", "openapi", "live", "ready", "metrics", "models", "v2"):
        assert client.get(index[name]).status_code == 200, name
    short = index["short"]
    assert short.pop("task") == "handmade"
    for task in (short, index["tasks"]["handmade"]):
        assert client.get(task["model"]).status_code == 200
        assert client.post(task["predict"], json=ROW).status_code == 200
        assert client.post(task["invocations"], json={"dataframe_records": [ROW]}).status_code == 200
        assert client.post(task["feedback"], json={"id": "none", "label": "no"}).status_code == 200
    assert client.get(index["tasks"]["handmade"]["v2"]).status_code == 200


def test_the_documentation_page_needs_no_network(client: httpx.Client) -> None:
    """Whatever the page loads comes from the endpoint itself."""
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert {"/openapi.json", "/docs/static/swagger-ui-bundle.js", "/docs/static/swagger-ui.css"} <= set(loaded)
    assert all(one.startswith("/") and client.get(one).status_code == 200 for one in loaded), loaded
    assert "http" not in page.text


def test_examples_in_the_documentation_are_answered(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    hot = {
        f"{prefix}/{route}" for prefix in ("", "/models/handmade") for route in ("predict", "feedback", "invocations")
    }
    hot.add("/v2/models/handmade/infer")
    others = {path for path in document["paths"] if path.startswith("/v2") and path not in hot}
    assert len(others) == 12
    quiet = {"/health/live", "/health/ready", "/model", "/models", "/models/{task}", "/metrics", "/ping", "/version"}
    assert hot | quiet | others | {"/"} == set(document["paths"])
    for path in ("/predict", "/feedback", "/invocations", "/v2/models/handmade/infer"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"]
        for name, example in content["examples"].items():
            assert client.post(path, json=example["value"]).status_code == 200, (path, name)


def test_what_may_be_sent_to_predict_and_what_comes_back_is_described(client: httpx.Client) -> None:
    """Whoever writes a client by the document alone finds the other forms, the fields and each field of an answer."""
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    forms = {"application/json", STREAM, FILE, PARQUET}
    good = described["responses"]["200"]["content"]
    assert described["requestBody"]["content"].keys() == good.keys() == forms
    parameters = {one["name"]: one for one in described["parameters"]}
    assert parameters.keys() == {"fields", "x-everfit-key"}
    fields = parameters["fields"]["schema"]["items"]["enum"]
    answer = good["application/json"]["schema"]["properties"]
    (found,) = client.post(f"/predict?fields={','.join(fields)}", json=ROW).json()["predictions"]
    assert found.keys() == set(fields) == answer["predictions"]["items"]["properties"].keys()
    by_column = client.post("/predict", json={"columns": {name: [value] for name, value in ROW.items()}}).json()
    assert by_column.keys() <= answer.keys()
    problem = described["responses"]["422"]["content"]["application/problem+json"]["schema"]["properties"]
    assert client.post("/predict", json={**ROW, "amount": "many"}).json().keys() == problem.keys()


def test_the_schema_and_labels_are_those_of_the_served_version(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """From a regression to three classes, by a swap; with the journal synced to disk."""
    versions = FakeVersions(v1=bundles["regression"], v2=bundles["multiclass"])
    versions.champion = "1"
    with endpoint(tmp_path, versions, log_sync="disk") as client:
        (one,) = client.post("/predict", json=ROW).json()["predictions"]
        assert one["interval"][0] <= one["prediction"] <= one["interval"][1]
        assert client.post("/feedback", json={"id": one["id"], "label": 1.5}).json()["unknown"] == 0
        assert client.post("/feedback", json={"id": one["id"], "label": "high"}).status_code == 422
        versions.champion = "2"
        wait_for(lambda: client.get("/model").json()["version"] == "2")
        (one,) = client.post("/predict", json=ROW).json()["predictions"]
        assert set(one["probabilities"]) == {"low", "mid", "top"}
        assert client.post("/feedback", json={"id": one["id"], "label": "mid"}).json()["unknown"] == 0


def test_a_key_guards_all_but_health(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    with endpoint(tmp_path, versions, api_key="s3cret") as client:
        for path in ("/model", "/metrics", "/docs", "/openapi.json", "/predict"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
                response = client.get(path, headers=headers)
                assert response.status_code == 401
                assert "s3cret" not in response.text
        assert client.get("/health/ready").status_code == 200
        allowed = {"authorization": "Bearer s3cret"}
        assert client.post("/predict", json=ROW, headers=allowed).status_code == 200
        document = client.get("/openapi.json", headers=allowed).json()
        described = document["paths"]["/predict"]["post"]
        assert described["security"] == [{"key": []}]
        assert {"401", "403", "429"} <= described["responses"].keys()
        for path in ("/predict", "/invocations", "/v2/models/handmade/infer"):
            (kind,) = document["paths"][path]["post"]["responses"]["401"]["content"]
            assert client.post(path, json=ROW).headers["content-type"] == kind
        open_to_all = document["paths"]["/health/ready"]["get"]
        assert "security" not in open_to_all
        assert "401" not in open_to_all["responses"]


@pytest.mark.parametrize("name", ["", "../etc", "A", "a b"])
def test_a_name_no_task_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="expected lower-case letters"):
        create_app(Settings(home=tmp_path), name)
