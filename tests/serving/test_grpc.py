"""gRPC on a real port, asked by a plain client and by Triton's: as HTTP answers, logs and refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from tests.serving.conftest import ROW, endpoint_of, wait_for
from tests.serving.observed import metrics_of

grpc = pytest.importorskip("grpc", reason="the extra `grpc` is not installed")

from google.protobuf.json_format import MessageToDict  # noqa: E402

from serving.grpc_messages import MESSAGES  # noqa: E402
from serving.grpc_methods import HEALTH  # noqa: E402
from tests.serving.grpc_client import MAX_BYTES, Client, asked, free_port  # noqa: E402

README = Path(__file__).parents[2] / "serving" / "README.md"
CLIENT = Path(__file__).parent / "clients" / "ask_triton_grpc.py"


@pytest.fixture(scope="module")
def both(home: Path, bundles: dict[str, ModelBundle]) -> Iterator[tuple[httpx.Client, Client]]:
    port = free_port()
    with endpoint_of(bundles["good"], home, grpc_port=port, max_body_bytes=MAX_BYTES, max_rows=1000) as http:
        yield http, Client(port)


def test_server_and_model(both: tuple[httpx.Client, Client]) -> None:
    http, client = both
    assert client.ask("ServerLive").live
    assert client.ask("ServerReady").ready
    server = client.ask("ServerMetadata")
    assert {"name": server.name, "version": server.version, "extensions": list(server.extensions)} == http.get(
        "/v2"
    ).json()
    about = MESSAGES["ModelMetadataRequest"](name="handmade", version="1")
    model, expected = client.ask("ModelMetadata", about), http.get("/v2/models/handmade").json()
    assert (model.name, list(model.versions), model.platform) == ("handmade", ["1"], "onnxruntime_onnx")
    for found, wanted in ((model.inputs, expected["inputs"]), (model.outputs, expected["outputs"])):
        assert [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in found] == wanted


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("handmade", "", True), ("handmade", "1", True), ("handmade", "9", False), ("", "", False)],
)
def test_a_model_is_ready_or_not(both: tuple[httpx.Client, Client], name: str, version: str, ready: bool) -> None:
    assert both[1].ask("ModelReady", MESSAGES["ModelReadyRequest"](name=name, version=version)).ready is ready


def test_a_models_configuration(both: tuple[httpx.Client, Client]) -> None:
    http, client = both
    about = MESSAGES["ModelConfigRequest"](name="handmade", version="1")
    found, expected = client.ask("ModelConfig", about).config, http.get("/v2/models/handmade/config").json()
    assert MessageToDict(found, preserving_proto_field_name=True) == as_protobuf(expected)
    error = client.refused("ModelConfig", MESSAGES["ModelConfigRequest"](name="nobody"))
    assert error.code() is grpc.StatusCode.NOT_FOUND


def as_protobuf(config: dict[str, Any]) -> dict[str, Any]:
    """Numbers of 64 bits are texts in protobuf's JSON."""
    tensors = {part: [{**one, "dims": list(map(str, one["dims"]))} for one in config[part]] for part in SIDES}
    return {**config, **tensors}


SIDES = ("input", "output")


def test_the_repository(both: tuple[httpx.Client, Client]) -> None:
    http, client = both
    index = client.ask("RepositoryIndex").models
    assert [(one.name, one.version, one.state) for one in index] == [("handmade", "1", "READY")]
    client.ask("RepositoryModelUnload", MESSAGES["RepositoryModelUnloadRequest"](model_name="handmade"))
    assert client.refused("ModelInfer", asked()).code() is grpc.StatusCode.NOT_FOUND
    assert http.get("/models").json() == {"models": []}
    order = MESSAGES["RepositoryModelLoadRequest"](model_name="handmade")
    client.ask("RepositoryModelLoad", order)
    wait_for(lambda: client.ask("ServerReady").ready)
    assert client.ask("ModelInfer", asked()).model_version == "1"
    order.parameters["config"].string_param = "{}"
    assert "expected no parameters" in client.refused("RepositoryModelLoad", order).details()


def test_an_orchestrators_probe(both: tuple[httpx.Client, Client]) -> None:
    assert both[1].ask("Check", MESSAGES["HealthCheckRequest"](service="inference"), service=HEALTH).status == 1


def test_what_is_not_here_is_told(both: tuple[httpx.Client, Client]) -> None:
    method = both[1].channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")
    with pytest.raises(grpc.RpcError) as found:
        method(b"", timeout=30)
    assert found.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelStatistics: not answered here; what is: ServerLive, " in found.value.details()


@pytest.mark.parametrize("rows", [1, 3, 500])
def test_typed_contents_answer_as_http_does(both: tuple[httpx.Client, Client], rows: int) -> None:
    http, client = both
    answer = client.ask("ModelInfer", asked(rows))
    assert (answer.model_name, answer.model_version, answer.id) == ("handmade", "1", "")
    outputs = {one.name: one for one in answer.outputs}
    (expected,) = http.post("/predict", json=ROW).json()["predictions"]
    assert list(outputs["prediction"].contents.bytes_contents) == [expected["prediction"].encode()] * rows
    shares = outputs["probabilities"]
    assert (shares.datatype, list(shares.shape)) == ("FP64", [rows, 2])
    assert list(shares.contents.fp64_contents) == pytest.approx(list(expected["probabilities"].values()) * rows)
    assert list(outputs["set"].contents.bool_contents) == [name in expected["set"] for name in ("no", "yes")] * rows
    assert not answer.raw_output_contents


def test_what_is_answered_is_logged(both: tuple[httpx.Client, Client], home: Path) -> None:
    http, client = both
    request = asked(2, carrier=[b"", b"BB"])
    request.id, request.parameters["unique_id"].bool_param = "grpc", True
    request.outputs.add(name="id")
    answer = client.ask("ModelInfer", request, x_request_id="7f3a")
    assert [one.name for one in answer.outputs] == ["id"]
    assert list(answer.outputs[0].contents.bytes_contents) == [b"grpc-0", b"grpc-1"]
    engine = open_engine(f"sqlite:///{home}/everfit.db")
    log = InferenceLog(engine, "handmade")
    wait_for(lambda: {"grpc-0", "grpc-1"} <= set(log.frame()["__id__"]))
    frame = log.frame().set_index("__id__")
    assert frame.loc["grpc-0", "carrier"] is None or frame["carrier"].isna()["grpc-0"]
    assert frame.loc["grpc-1", "carrier"] == "BB"
    engine.dispose()
    labels = {"labels": [{"id": "grpc-0", "label": "yes"}, {"id": "grpc-1", "label": "no"}]}
    assert http.post("/feedback", json=labels).json()["stored"] == 2


def raw(request: Any, *contents: bytes) -> Any:
    for one in request.inputs:
        one.ClearField("contents")
    request.raw_input_contents.extend(contents)
    return request


def test_raw_contents_are_answered_raw(both: tuple[httpx.Client, Client]) -> None:
    when = b"\x13\0\0\0" + b"2024-03-01T10:00:00"
    half = b"\0\0\0\0\0\0\xe0\x3f"
    answer = both[1].ask("ModelInfer", raw(asked(), when, half, b"\2\0\0\0", b"\1", b"\2\0\0\0AA"))
    typed = both[1].ask("ModelInfer", asked())
    names = [one.name for one in answer.outputs]
    shares = dict(zip(names, answer.raw_output_contents, strict=True))["probabilities"]
    (expected,) = [one.contents.fp64_contents for one in typed.outputs if one.name == "probabilities"]
    assert np.frombuffer(shares).tolist() == list(expected)
    assert not any(one.HasField("contents") for one in answer.outputs)


def changed(change: Any) -> Any:
    request = asked(2)
    change(request)
    return request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asked(2, amount=[1.0]), "input 'amount': expected 16 bytes for 2 of FP64, got 8"),
        (asked(2, amount=None), "column 'amount'"),
        (asked(when=[b"soon"]), "row 0, column 'when'"),
        (asked(carrier=[b"\xff"]), "expected UTF-8 text"),
        (asked(amount=[float("inf")]), "expected finite numbers"),
        (changed(lambda one: setattr(one.inputs[1], "datatype", "FP46")), "expected a datatype of the protocol"),
        (changed(lambda one: setattr(one.inputs[1], "datatype", "FP32")), "expected contents.fp32_contents for 'FP32'"),
        (changed(lambda one: setattr(one.inputs[1], "datatype", "FP16")), "a datatype with typed contents for 'FP16'"),
        (changed(lambda one: setattr(one.inputs[2], "datatype", "UINT8")), "expected contents.uint_contents"),
        (asked(weight=[300]), ""),
        (changed(lambda one: one.inputs[1].shape.append(7)), "expected a shape [rows] or [rows, columns]"),
        (changed(lambda one: one.raw_input_contents.append(b"")), "raw_input_contents: expected as many as inputs, 5"),
        (changed(lambda one: one.raw_input_contents.extend([b""] * 5)), "contents or raw_input_contents, got both"),
        (changed(lambda one: one.outputs.add(name="price")), "outputs: expected some of"),
        (
            changed(lambda one: one.parameters["sequence_id"].CopyFrom(MESSAGES["InferParameter"](int64_param=1))),
            "exten",
        ),
    ],
)
def test_what_is_wrong_is_told(both: tuple[httpx.Client, Client], request_: Any, words: str) -> None:
    if not words:
        request_.inputs[2].datatype = "INT8"
        words = "expected INT8, got a number out of its range"
    error = both[1].refused("ModelInfer", request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.details()


def test_refusals_that_are_not_of_values(both: tuple[httpx.Client, Client]) -> None:
    client = both[1]
    nobody = asked()
    nobody.model_name = "a/b"
    error = client.refused("ModelInfer", nobody, x_request_id="mine")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "is served here" in error.details()
    assert dict(error.trailing_metadata())["x-request-id"] == "mine"
    assert client.refused("ModelInfer", asked(1001)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    big = asked(carrier=[b"A" * MAX_BYTES])
    assert client.refused("ModelInfer", big).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.refused("ModelInfer", b"\x0a\xff").code() is grpc.StatusCode.INVALID_ARGUMENT
    client.ask("ServerLive")


def test_a_compressed_message_is_not_unpacked_beyond_the_bound(both: tuple[httpx.Client, Client]) -> None:
    client = both[1]
    method = client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    bomb = asked(carrier=[b"A" * 50_000_000]).SerializeToString()
    with pytest.raises(grpc.RpcError) as found:
        method(bomb, compression=grpc.Compression.Gzip, timeout=30)
    assert found.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    small = method(asked().SerializeToString(), compression=grpc.Compression.Gzip, timeout=30)
    assert MESSAGES["ModelInferResponse"].FromString(small).model_name == "handmade"


def test_calls_are_counted_as_requests(both: tuple[httpx.Client, Client]) -> None:
    http, client = both
    name = 'everfit_requests_total{route="/v2/infer",status="200",task="handmade"}'
    before = metrics_of(http)
    client.ask("ModelInfer", asked())
    client.refused("ModelInfer", asked(amount=None))
    after = metrics_of(http)
    assert after[name] == before[name] + 1
    refused = name.replace("200", "400")
    assert after[refused] == before.get(refused, 0) + 1


def test_tritons_client(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """And the README's example of it."""
    if (python := os.environ.get("EVERFIT_TRITON_PYTHON")) is None:
        pytest.skip("EVERFIT_TRITON_PYTHON names no interpreter with that client")
    port = free_port()
    (example,) = (one for one in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "triton" in one)
    changed = {"flights": "handmade", "localhost:8001": f"localhost:{port}"}
    example = re.sub("|".join(changed), lambda found: changed[found[0]], example)
    row = {name: value for name, value in ROW.items() if name != "member"}  # a truth value that is missing
    example = re.sub(r"rows = .*", f"rows = [{row!r}]", example)
    with endpoint_of(bundles["good"], tmp_path, grpc_port=port):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        shown = run(python, "-c", example, environment=environment)
        asked = run(python, str(CLIENT), f"localhost:{port}", environment=environment)
    assert asked.returncode == 0, asked.stderr
    assert re.fullmatch(r"(yes|no) [0-9a-f]{24}\n", shown.stdout), shown.stderr
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    ids = [*json.loads(asked.stdout.splitlines()[-1]), own := shown.stdout.split()[1]]
    logged = InferenceLog(engine, "handmade").frame(columns=["member"]).set_index("__id__")["member"]
    assert sorted(logged.index) == sorted(ids)
    assert logged.isna()[own]
    engine.dispose()


def run(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
