"""What Triton's own client makes of an endpoint: `python ask_triton.py HOST:PORT`, in an environment with it.

Fails on the first answer that is not as it should be; prints the ids of what was predicted, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import tritonclient.http as triton

MODEL = "handmade"
DATATYPES = {"when": "BYTES", "amount": "FP64", "weight": "FP64", "member": "BOOL", "carrier": "BYTES"}
COLUMNS = {
    "when": np.array([b"2024-03-01T10:00:00", b""], dtype=object),
    "amount": np.array([0.5, np.nan]),
    "weight": np.array([2.0, 3.0]),
    "member": np.array([True, False]),
    "carrier": np.array(["AA", "\N{SNOWMAN}"], dtype=object),
}


def inputs(*, binary: bool) -> list[triton.InferInput]:
    made = []
    for name, values in COLUMNS.items():
        one = triton.InferInput(name, [2, 1], DATATYPES[name])
        made.append(one.set_data_from_numpy(values.reshape(2, 1), binary_data=binary))
    return made


def check_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert {one["name"]: one["datatype"] for one in client.get_model_metadata(MODEL)["inputs"]} == DATATYPES
    assert client.get_model_config(MODEL, "1")["max_batch_size"] > 1
    assert client.get_model_repository_index()[0]["state"] == "READY"


def check_refusals(client: triton.InferenceServerClient) -> None:
    for ask in (
        lambda: client.infer("nobody", inputs(binary=True)),
        lambda: client.infer(MODEL, inputs(binary=True), model_version="99"),
        lambda: client.infer(MODEL, inputs(binary=True)[:3]),
        lambda: client.load_model("nobody"),
        lambda: client.unload_model("nobody"),
    ):
        assert len(said(ask)) > 20


def said(ask: Callable[[], object]) -> str:
    """The message of a refusal."""
    try:
        ask()
    except triton.InferenceServerException as error:
        return str(error.message())
    raise AssertionError("it should have been refused")


def check_answer(result: triton.InferResult, expected: np.ndarray | None) -> np.ndarray:
    shares = result.as_numpy("probabilities")
    assert shares.shape == (2, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    if expected is not None:
        np.testing.assert_array_equal(shares, expected)
    return shares


def predict(client: triton.InferenceServerClient) -> list[str]:
    ids: list[bytes] = []
    shares = None
    for binary in (True, False):
        for more in ({}, {"request_compression_algorithm": "gzip"}, {"request_compression_algorithm": "deflate"}):
            result = client.infer(MODEL, inputs(binary=binary), request_id="17", **more)
            shares = check_answer(result, shares)
            assert result.get_response()["id"] == "17"
            ids += result.as_numpy("id").ravel().tolist()
    outputs = [triton.InferRequestedOutput("probabilities"), triton.InferRequestedOutput("id", binary_data=False)]
    result = client.infer(MODEL, inputs(binary=True), outputs=outputs, response_compression_algorithm="gzip")
    check_answer(result, shares)
    assert result.as_numpy("prediction") is None
    return [*(one.decode() for one in ids), *result.as_numpy("id").ravel().tolist()]


def predict_compressed(client: triton.InferenceServerClient) -> list[str]:
    """Answers of so many rows that they are compressed when that is asked for, as bytes and as JSON."""
    ids: list[str] = []
    answers = []
    for algorithm in ("gzip", "deflate", None):
        for binary in (True, False):
            outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("id", "probabilities")]
            many = [triton.InferInput("amount", [100], "FP64").set_data_from_numpy(np.linspace(-1, 1, 100))]
            many += [
                triton.InferInput(name, [100], DATATYPES[name]).set_data_from_numpy(np.repeat(values[:1], 100))
                for name, values in COLUMNS.items()
                if name != "amount"
            ]
            result = client.infer(MODEL, many, outputs=outputs, response_compression_algorithm=algorithm)
            answers.append(result.as_numpy("probabilities"))
            ids += [one if isinstance(one, str) else one.decode() for one in result.as_numpy("id").ravel().tolist()]
    assert all(answer.shape == (100, 2) and np.array_equal(answer, answers[0]) for answer in answers)
    return ids


def main(address: str) -> None:
    client = triton.InferenceServerClient(address)
    check_server(client)
    ids = [*predict(client), *predict_compressed(client)]
    check_refusals(client)
    client.load_model(MODEL)
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    print(json.dumps([one if isinstance(one, str) else one.decode() for one in ids]))


if __name__ == "__main__":
    main(sys.argv[1])
