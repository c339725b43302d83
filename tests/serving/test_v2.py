"""The Open Inference Protocol (V2) over real HTTP: what it answers is what `/predict` answers, logged alike."""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.scoring import Scorer
from tests.handmade import make_frame
from tests.serving.conftest import ROW, endpoint_of, wait_for
from tests.serving.test_tensors import binary, strings

MAX_BYTES = 400_000
INFER = "/v2/models/handmade/infer"
DATATYPES = {"when": "BYTES", "amount": "FP64", "weight": "FP64", "member": "BOOL", "carrier": "BYTES"}
OUTPUTS = ("id", "prediction", "probabilities", "set", "uncertainty", "disagreement", "out_of_distribution")


@pytest.fixture(scope="module")
def client(home: Path, bundles: dict[str, ModelBundle]) -> Iterator[httpx.Client]:
    with endpoint_of(bundles["good"], home, max_body_bytes=MAX_BYTES, max_rows=5000) as one:
        yield one


def asked(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A request in JSON for rows like `ROW`."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name, datatype in DATATYPES.items()
    ]
    return {"inputs": inputs, **more}


def asked_binary(rows: int = 1, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request in bytes for so many rows like `ROW`, and its headers: what Triton's client sends."""
    inputs = [
        ("when", "BYTES", [rows, 1], strings(*[b"2024-03-01T10:00:00"] * rows)),
        ("amount", "FP64", [rows, 1], struct.pack(f"<{rows}d", *[0.5] * rows)),
        ("weight", "FP64", [rows, 1], struct.pack(f"<{rows}d", *[2.0] * rows)),
        ("member", "BOOL", [rows, 1], b"\1" * rows),
        ("carrier", "BYTES", [rows, 1], strings(*[b"AA"] * rows)),
    ]
    body, header = binary(inputs, **more)
    return body, {"Inference-Header-Content-Length": header.decode()}


def read(response: httpx.Response) -> dict[str, list[Any]]:
    """The outputs of an answer as lists, row by row, whether they came as JSON or as bytes."""
    assert response.status_code == 200, response.text
    size = int(response.headers.get("inference-header-content-length", len(response.content)))
    head, at = orjson.loads(response.content[:size]), size
    found = {}
    for output in head["outputs"]:
        length = output.get("parameters", {}).get("binary_data_size")
        values = (
            output.get("data") if length is None else unpack(response.content[at : at + length], output["datatype"])
        )
        at += length or 0
        found[output["name"]] = np.array(values, dtype=object).reshape(output["shape"]).tolist()
    assert at == len(response.content)
    return found


def unpack(raw: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, {"FP64": np.float64, "BOOL": np.bool_}[datatype]).tolist()
    found = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


def test_server_and_health(client: httpx.Client) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "everfit"
    assert {"binary_tensor_data", "model_configuration", "model_repository"} <= set(server["extensions"])
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/handmade/ready", "/v2/models/handmade/versions/1/ready"):
        assert client.get(path).json() == {"name": "handmade", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/handmade", "/v2/models/handmade/versions/1"])
def test_metadata_and_configuration(client: httpx.Client, path: str) -> None:
    """A request written by the metadata alone is answered with the outputs that it lists, in their shapes."""
    about = client.get(path).json()
    assert (about["name"], about["versions"], about["platform"]) == ("handmade", ["1"], "onnxruntime_onnx")
    assert {one["name"]: one["datatype"] for one in about["inputs"]} == DATATYPES
    assert all(one["shape"] == [-1, 1] for one in about["inputs"])
    outputs = client.post(INFER, json=asked(ROW, ROW)).json()["outputs"]
    assert [(one["name"], one["datatype"], [-1, one["shape"][1]]) for one in outputs] == [
        (one["name"], one["datatype"], one["shape"]) for one in about["outputs"]
    ]
    config = client.get(f"{path}/config").json()
    assert [one["name"] for one in config["output"]] == list(OUTPUTS)
    assert config["input"][0] == {"name": "when", "data_type": "TYPE_STRING", "dims": [1]}
    assert orjson.loads(config["parameters"]["classes"]["string_value"]) == ["no", "yes"]


def test_json_answers_as_predict_does(client: httpx.Client) -> None:
    (expected,) = client.post("/predict", json=ROW).json()["predictions"]
    answer = client.post(INFER, json=asked(ROW, id="my request")).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("handmade", "1", "my request")
    assert "parameters" not in answer
    found = {one["name"]: one["data"] for one in answer["outputs"]}
    assert found["prediction"] == [expected["prediction"]]
    assert found["probabilities"] == list(expected["probabilities"].values())
    assert found["set"] == [name in expected["set"] for name in ("no", "yes")]
    assert (found["uncertainty"], found["disagreement"]) == ([expected["uncertainty"]], [expected["disagreement"]])


def test_rows_out_of_distribution_are_told(client: httpx.Client) -> None:
    """Of each row, as `/predict` tells it where it is asked for; not where other outputs are named."""
    rows = [ROW, {**ROW, "amount": 99.0}, {**ROW, "carrier": "never seen"}]
    expected = client.post("/predict?fields=out_of_distribution", json=rows).json()["predictions"]
    assert [one["out_of_distribution"] for one in expected] == [False, True, True]
    assert read(client.post(INFER, json=asked(*rows)))["out_of_distribution"] == [[False], [True], [True]]
    named = asked(*rows) | {"outputs": [{"name": "prediction"}]}
    assert read(client.post(INFER, json=named)).keys() == {"prediction"}


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_bytes_answer_as_json_does(client: httpx.Client, rows: int) -> None:
    body, headers = asked_binary(rows, parameters={"binary_data_output": True})
    response = client.post(INFER, content=body, headers=headers)
    assert response.headers["content-type"] == "application/octet-stream"
    found, expected = read(response), read(client.post(INFER, json=asked(*[ROW] * rows)))
    assert found.keys() == set(OUTPUTS)
    for name in OUTPUTS[1:]:
        assert found[name] == expected[name], name


def test_only_the_outputs_asked_for(client: httpx.Client) -> None:
    """Each as it is asked for, in that order; the ids go beside them when they are none of them."""
    outputs = [{"name": "set"}, {"name": "prediction", "parameters": {"binary_data": True}}]
    body, headers = asked_binary(2, outputs=outputs, id="7")
    response = client.post(INFER, content=body, headers=headers)
    assert list(read(response)) == ["set", "prediction"]
    head = orjson.loads(response.content[: int(response.headers["inference-header-content-length"])])
    assert head["outputs"][0]["data"] == read(client.post(INFER, json=asked(ROW)))["set"][0] * 2
    assert len(head["parameters"]["ids"].split(",")) == 2


def test_one_tensor_of_numbers(client: httpx.Client, bundles: dict[str, ModelBundle]) -> None:
    """Columns in the schema's order; moments in microseconds, no carrier, NaN where there is nothing."""
    micros = float(np.datetime64("2024-03-01T10:00:00", "us").astype(np.int64))
    matrix = np.array([[micros, 0.5, 2.0, 1.0, np.nan], [np.nan, np.nan, 2.0, 0.0, np.nan]])
    body, header = binary([("input", "FP64", [2, 5], matrix.tobytes())])
    found = read(client.post(INFER, content=body, headers={"Inference-Header-Content-Length": header.decode()}))
    rows = [ROW | {"carrier": None}, dict.fromkeys(ROW) | {"weight": 2.0, "member": False}]
    expected = [list(one["probabilities"].values()) for one in client.post("/predict", json=rows).json()["predictions"]]
    np.testing.assert_allclose(np.array(found["probabilities"], dtype=float), expected, atol=1e-9)


def test_many_rows_in_order(client: httpx.Client, bundles: dict[str, ModelBundle]) -> None:
    frame = make_frame(3000, seed=3).drop(columns="late")
    inputs = [
        ("when", "INT64", [3000], frame["when"].to_numpy("datetime64[us]").view(np.int64).tobytes()),
        ("amount", "FP64", [3000], frame["amount"].to_numpy().tobytes()),
        ("weight", "FP64", [3000], frame["weight"].to_numpy().tobytes()),
        ("member", "BOOL", [3000], frame["member"].to_numpy().tobytes()),
        ("carrier", "BYTES", [3000], strings(*(text.encode() for text in frame["carrier"]))),
    ]
    body, header = binary(inputs, parameters={"binary_data_output": True})
    found = read(client.post(INFER, content=body, headers={"Inference-Header-Content-Length": header.decode()}))
    expected = Scorer.load(bundles["good"]).predict(frame).scores
    np.testing.assert_allclose(np.array(found["probabilities"], dtype=float), expected, atol=1e-6)
    assert len({one for (one,) in found["id"]}) == 3000


def test_an_answer_by_a_path_with_a_version_is_for_nobody_to_keep(client: httpx.Client) -> None:
    """It comes through FastAPI, which writes headers of its own: no connection answers at once there."""
    answer = client.post("/v2/models/handmade/versions/1/infer", json=asked(ROW))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")


def test_compressed_requests(client: httpx.Client) -> None:
    """The header counts what was there before; what unpacks to too much is refused."""
    body, headers = asked_binary()
    answer = client.post(INFER, content=gzip.compress(body), headers=headers | {"Content-Encoding": "gzip"})
    assert read(answer)["prediction"] == read(client.post(INFER, json=asked(ROW)))["prediction"]
    for content, encoding, status in (
        (gzip.compress(b" " * (MAX_BYTES + 1)), "gzip", 413),
        (gzip.compress(body)[:-4], "gzip", 400),
        (body, "gzip", 400),
        (body, "br", 415),
    ):
        response = client.post(INFER, content=content, headers=headers | {"Content-Encoding": encoding})
        assert (response.status_code, list(response.json())) == (status, ["error"])


def test_predictions_are_logged_under_the_ids_that_were_answered(client: httpx.Client, home: Path) -> None:
    """What came as tensors is in the log as rows, NaN and "" as missing, and can be labelled."""
    body, headers = asked_binary(2)
    nothing = {"when": "", "amount": float("nan"), "weight": None, "member": None, "carrier": ""}
    sent = orjson.dumps(asked(ROW, nothing)).replace(b"null,null", b"NaN,null")
    ids = [
        one
        for response in (client.post(INFER, content=body, headers=headers), client.post(INFER, content=sent))
        for (one,) in read(response)["id"]
    ]
    (shares,) = read(client.post(INFER, json=asked(ROW)))["probabilities"]
    assert client.post("/feedback", json=[{"id": one, "label": "no"} for one in ids]).json()["unknown"] == 0
    log = InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade")
    frame = log.frame().set_index("__id__").loc[ids]
    assert list(frame["__label__"]) == ["no"] * 4
    assert list(frame["amount"][:3]) == [0.5] * 3
    assert frame.iloc[0]["__time__"] == datetime(2024, 3, 1, 10)
    assert frame.iloc[3][list(ROW)].isna().all()
    assert frame.iloc[3]["__time__"] == frame.iloc[3]["__received__"]
    assert client.post("/predict", json=ROW).json()["predictions"][0]["probabilities"]["no"] == shares[0]


def test_a_request_with_a_unique_id_may_come_twice(client: httpx.Client, home: Path) -> None:
    more = {"id": "order-17", "parameters": {"unique_id": True}}
    for _ in range(2):
        assert read(client.post(INFER, json=asked(ROW, ROW, **more)))["id"] == [["order-17-0"], ["order-17-1"]]
        assert read(client.post(INFER, json=asked(ROW, **more)))["id"] == [["order-17"]]
    wait_for(lambda: client.get("/model").json()["log_backlog"] == 0)
    frame = InferenceLog(open_engine(f"sqlite:///{home}/everfit.db"), "handmade").frame()
    assert frame["__id__"].str.startswith("order-17").sum() == 3
    assert "has none" in client.post(INFER, json=asked(ROW, parameters={"unique_id": True})).json()["error"]


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b'{"id":' + b"[" * 900 + b"]" * 900 + b"}", 400, "at most 64 lists and objects inside one another"),
        (b"{}", 400, "inputs: expected a list of tensors"),
        (orjson.dumps(asked(ROW | {"amount": "lots"})), 400, "row 0, input 'amount': expected FP64, got 'lots'"),
        (orjson.dumps(asked(ROW | {"when": "soon"})), 400, "row 0, column 'when': expected an ISO 8601 date and time"),
        (orjson.dumps({"inputs": asked(ROW)["inputs"][:4]}), 400, "row 0, column 'carrier': the row lacks it"),
        (orjson.dumps(asked(ROW, outputs=[{"name": "odds"}])), 400, "outputs: expected some of id, prediction"),
        (orjson.dumps(asked(ROW | {"amount": 1e300})), 400, "expected a number between"),
        (orjson.dumps(asked(*[ROW] * 5001)), 413, "at most"),
        (b" " * (MAX_BYTES + 1), 413, "at most 400000 bytes"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocol_s_form(
    client: httpx.Client, content: bytes, status: int, error: str
) -> None:
    response = client.post(INFER, content=content)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert error in response.json()["error"]
    assert len(response.content) < 1_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/handmad", 404),
        ("GET", "/v2/models/handmade/versions/9", 404),
        ("GET", "/v2/models/handmade/versions/9/ready", 404),
        ("GET", "/v2/models/handmade/stats", 404),
        ("POST", "/v2/models/handmad/infer", 404),
        ("POST", "/v2/models/handmade/versions/9/infer", 404),
        ("GET", "/v2/models/handmade/infer", 405),
        ("POST", "/v2/repository/models/handmad/unload", 404),
        ("POST", "/v2/repository/models/HANDMADE/load", 400),
        ("POST", "/v2/repository/models/third/load", 503),
    ],
)
def test_paths_that_lead_nowhere(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path, json=asked(ROW) if path.endswith("infer") else None)
    assert (response.status_code, list(response.json())) == (status, ["error"])


def test_whatever_comes_is_answered_or_refused(client: httpx.Client) -> None:
    """A good request with bytes changed, cut and doubled: never a failure of the endpoint, which goes on."""
    rng = random.Random(7)
    body, headers = asked_binary(2)
    seen = set()
    for _ in range(300):
        damaged = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(damaged))
            piece = rng.choice([bytes([rng.randrange(256)]), b"", damaged[at : at + 20] * 2, b"9999999999"])
            damaged[at : at + rng.randint(0, 3)] = piece
        size = rng.choice([headers["Inference-Header-Content-Length"], str(rng.randrange(len(body) * 2))])
        response = client.post(INFER, content=bytes(damaged), headers={"Inference-Header-Content-Length": size})
        seen.add(response.status_code)
        assert response.status_code < 500
        assert response.status_code == 200 or list(response.json()) == ["error"]
    assert {200, 400} <= seen
    assert client.post(INFER, json=asked(ROW)).status_code == 200


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_an_answer_is_compressed_for_who_asks_for_that_alone(client: httpx.Client, algorithm: str) -> None:
    """Not for libraries that name all they know, and not where it is small. What comes is the same."""
    body, headers = asked_binary(200, parameters={"binary_data_output": True}, outputs=[{"name": "probabilities"}])
    plain = client.post(INFER, content=body, headers=headers | {"Accept-Encoding": "identity"})
    packed = client.post(INFER, content=body, headers=headers | {"Accept-Encoding": algorithm})
    usual = client.post(INFER, content=body, headers=headers | {"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["content-encoding"] == algorithm
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.headers["inference-header-content-length"] == plain.headers["inference-header-content-length"]
    assert read(packed) == read(plain) == read(usual)
    text = client.post(INFER, json=asked(*[ROW] * 50), headers={"Accept-Encoding": algorithm})
    assert (text.headers["content-encoding"], text.headers["content-type"]) == (algorithm, "application/json")
    assert len(read(text)["id"]) == 50
    one = client.post(INFER, json=asked(ROW, outputs=[{"name": "id"}]), headers={"Accept-Encoding": algorithm})
    assert "content-encoding" not in {**usual.headers, **one.headers}
