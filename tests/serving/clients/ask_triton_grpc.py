"""What Triton's own client makes of an endpoint over gRPC: `python ask_triton_grpc.py HOST:PORT`, in an environment
with it.

Fails on the first answer that is not as it should be; prints the ids of what was predicted, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.grpc as triton

MODEL = "handmade"
DATATYPES = {"when": "BYTES", "amount": "FP64", "weight": "FP64", "member": "BOOL", "carrier": "BYTES"}
COLUMNS = {
    "when": np.array([b"2024-03-01T10:00:00", b""], dtype=object),
    "amount": np.array([0.5, np.nan]),
    "weight": np.array([2.0, 3.0]),
    "member": np.array([True, False]),
    "carrier": np.array(["AA", "\N{SNOWMAN}"], dtype=object),
}


def inputs() -> list[triton.InferInput]:
    made = []
    for name, values in COLUMNS.items():
        one = triton.InferInput(name, [2, 1], DATATYPES[name])
        made.append(one.set_data_from_numpy(values.reshape(2, 1)))
    return made


def check_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nobody")
    about = client.get_server_metadata()
    assert (about.name, "binary_tensor_data" in about.extensions) == ("everfit", True)
    model = client.get_model_metadata(MODEL)
    assert {one.name: one.datatype for one in model.inputs} == DATATYPES
    assert all(list(one.shape) == [-1, 1] for one in model.inputs)
    config = client.get_model_config(MODEL, as_json=True)["config"]
    assert {one["name"]: one["data_type"] for one in config["input"]} == {
        name: "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}" for name, kind in DATATYPES.items()
    }
    assert config["version_policy"]["specific"]["versions"] == ["1"]
    assert config["parameters"]["problem"]["string_value"] == "binary"
    check_repository(client)


def check_repository(client: triton.InferenceServerClient) -> None:
    def loaded() -> list[tuple[str, str, str]]:
        return [(one.name, one.version, one.state) for one in client.get_model_repository_index().models]

    assert loaded() == [(MODEL, "1", "READY")]
    client.unload_model(MODEL)
    assert loaded() == []
    client.load_model(MODEL)
    assert loaded() == [(MODEL, "1", "READY")]


def check_refusals(client: triton.InferenceServerClient) -> None:
    for ask, status in (
        (lambda: client.infer("nobody", inputs()), "StatusCode.NOT_FOUND"),
        (lambda: client.infer(MODEL, inputs(), model_version="99"), "StatusCode.NOT_FOUND"),
        (lambda: client.infer(MODEL, inputs()[:3]), "StatusCode.INVALID_ARGUMENT"),
        (lambda: client.get_model_metadata("nobody"), "StatusCode.NOT_FOUND"),
        (lambda: client.get_inference_statistics(MODEL), "StatusCode.UNIMPLEMENTED"),
        (lambda: client.load_model(MODEL, config="{}"), "StatusCode.INVALID_ARGUMENT"),
    ):
        found, message = said(ask)
        assert found == status, (found, message)
        assert len(message) > 20


def said(ask: Callable[[], object]) -> tuple[str, str]:
    """The status and the message of a refusal."""
    try:
        ask()
    except triton.InferenceServerException as error:
        return str(error.status()), str(error.message())
    raise AssertionError("it should have been refused")


def predict(client: triton.InferenceServerClient) -> list[str]:
    ids: list[bytes] = []
    for more in ({}, {"model_version": "1"}, {"headers": {"x-request-id": "17"}}):
        result = client.infer(MODEL, inputs(), request_id="17", **more)
        shares = result.as_numpy("probabilities")
        assert shares.shape == (2, 2)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
        assert result.get_response().id == "17"
        ids += result.as_numpy("id").ravel().tolist()
    outputs = [triton.InferRequestedOutput("id"), triton.InferRequestedOutput("probabilities")]
    result = client.infer(MODEL, inputs(), outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), shares)
    assert result.as_numpy("prediction") is None
    ids += result.as_numpy("id").ravel().tolist()
    unique = client.infer(MODEL, inputs(), request_id="mine", parameters={"unique_id": True})
    assert unique.as_numpy("id").ravel().tolist() == [b"mine-0", b"mine-1"]
    return [one.decode() for one in ids] + ["mine-0", "mine-1"]


def main(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        check_server(client)
        ids = predict(client)
        check_refusals(client)
    print(json.dumps(ids))


if __name__ == "__main__":
    main(sys.argv[1])
