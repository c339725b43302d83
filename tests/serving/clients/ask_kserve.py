"""What KServe's own client makes of an endpoint: `python ask_kserve.py HOST:PORT`, in an environment with it.

Fails on the first answer that is not as it should be; prints the ids of what was predicted, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable

import httpx
import numpy as np
from kserve import InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceRESTClient

MODEL = "handmade"
DATATYPES = {"when": "BYTES", "amount": "FP64", "weight": "FP64", "member": "BOOL", "carrier": "BYTES"}
COLUMNS = {
    "when": np.array([b"2024-03-01T10:00:00", b""], dtype=object),
    "amount": np.array([0.5, -1.0]),
    "weight": np.array([2.0, 3.0]),
    "member": np.array([True, False]),
    "carrier": np.array([b"AA", b"BB"], dtype=object),
}


def request(*, binary: bool) -> InferRequest:
    made = []
    for name, values in COLUMNS.items():
        one = InferInput(name, [2, 1], DATATYPES[name])
        one.set_data_from_numpy(values.reshape(2, 1), binary_data=binary)
        made.append(one)
    return InferRequest(model_name=MODEL, infer_inputs=made, request_id="17")


async def said(asked: Awaitable[object]) -> str:
    """The message of a refusal."""
    try:
        await asked
    except httpx.HTTPStatusError as error:
        return str(error)
    raise AssertionError("it should have been refused")


async def main(address: str) -> None:
    url = f"http://{address}"
    ids: list[str] = []
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url) is True
        assert await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, MODEL) is True
        assert await client.is_model_ready(url, "nobody") is False
        for binary in (True, False):
            answer = await client.infer(url, request(binary=binary), model_name=MODEL)
            assert (answer.model_name, answer.id) == (MODEL, "17"), answer
            outputs = {one.name: one.as_numpy() for one in answer.outputs}
            np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-6)
            ids += [str(one) for one in outputs["id"].ravel()]
        refused = await said(client.infer(url, request(binary=True), model_name="nobody"))
        assert "no task 'nobody' is served here" in refused, refused
    print(json.dumps(ids))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
