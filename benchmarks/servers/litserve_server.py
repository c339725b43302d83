"""LitServe's form of the same graph: requests that arrive together are one batch, of rows from all of them.

python benchmarks/servers/litserve_server.py BUNDLE PORT
"""

import itertools
import sys
from typing import Any

import litserve
from graph import OnnxModel, Row

MOST_REQUESTS = 32
WAIT_SECONDS = 0.001


class GraphApi(litserve.LitAPI):
    """`{"rows": [...]}` to `{"predictions": [...]}`."""

    def __init__(self, bundle: str) -> None:
        super().__init__(max_batch_size=MOST_REQUESTS, batch_timeout=WAIT_SECONDS)
        self._bundle = bundle

    def setup(self, device: str) -> None:
        """Open the graph, in the worker."""
        self._model = OnnxModel(self._bundle)

    def decode_request(self, request) -> list[Row]:  # type: ignore[no-untyped-def]  # a type is taken for FastAPI's
        """The rows of one request."""
        rows: list[Row] = request["rows"]
        return rows

    def batch(self, inputs: list[list[Row]]) -> tuple[list[int], list[Row]]:
        """All rows, and how many each request has."""
        return [len(rows) for rows in inputs], list(itertools.chain(*inputs))

    def predict(self, x: tuple[list[int], list[Row]]) -> tuple[list[int], list[Row]]:
        """The answers to all rows."""
        return x[0], self._model.answers(x[1])

    def unbatch(self, output: tuple[list[int], list[Row]]) -> list[list[Row]]:
        """The answers by request."""
        answers = iter(output[1])
        return [list(itertools.islice(answers, count)) for count in output[0]]

    def encode_response(self, output: list[Row]) -> dict[str, Any]:
        """The body of one answer."""
        return {"predictions": output}


if __name__ == "__main__":
    server = litserve.LitServer(GraphApi(sys.argv[1]), accelerator="cpu", workers_per_device=1, track_requests=False)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
