"""Traces, sent by the real exporter to a collector that listens on a socket."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry.bundle import ModelBundle
from registry.errors import InputError
from registry.settings import Settings
from serving.app import create_app
from serving.tracing import traces_of
from tests.serving.conftest import ROW, FakeVersions, serve, wait_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent, with the attributes of their resource."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[dict, object]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = attributes(one.resource.attributes)
            self.server.spans += [(resource, span) for scope in one.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def attributes(given: object) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in given}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_span_a_request_with_the_graph_below_it(
    tmp_path: Path, bundles: dict[str, ModelBundle], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="needs everfit[otel]")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    versions = FakeVersions(v1=bundles["good"])
    versions.champion = "1"
    settings, traces = Settings(home=tmp_path, poll_seconds=0.05), traces_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "set"})
    assert traces is not None
    with serve(create_app(settings, "handmade", versions=versions, watchers=[traces]), settings) as client:
        wait_for(lambda: client.get("/health/ready").status_code == 200)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "order-17"}
        client.post("/models/handmade/predict", json=ROW, headers=headers)
        client.post("/predict", json=[ROW] * 3)
        client.post("/predict", json={**ROW, "amount": "much"})
        client.get("/model")
        wait_for(lambda: len(collector.spans) >= 5)
    assert len(collector.spans) == 5
    resource, _ = collector.spans[0]
    assert resource["service.name"] == "everfit"
    spans = [span for _, span in collector.spans]
    one, three, refused = (span for span in spans if span.kind == span.SPAN_KIND_SERVER)
    assert one.name == "POST /models/{task}/predict"
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, PARENT)
    told = attributes(one.attributes)
    expected = {"http.response.status_code": 200, "everfit.task": "handmade", "everfit.version": "1", "everfit.rows": 1}
    assert expected.items() <= told.items()
    assert told["everfit.request.id"] == "order-17"
    assert attributes(three.attributes)["everfit.rows"] == 3
    assert attributes(refused.attributes)["http.response.status_code"] == 422
    below = {span.parent_span_id: span for span in spans if span.name == "graph"}
    assert set(below) == {one.span_id, three.span_id}
    for parent, rows in ((one, 1), (three, 3)):
        graph = below[parent.span_id]
        assert attributes(graph.attributes) == {"everfit.batch.rows": rows}
        assert parent.start_time_unix_nano <= graph.start_time_unix_nano
        assert graph.start_time_unix_nano < graph.end_time_unix_nano <= parent.end_time_unix_nano


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_nothing_is_traced(environment: dict[str, str]) -> None:
    assert traces_of(environment) is None


def test_another_protocol_is_refused() -> None:
    with pytest.raises(InputError, match="expected http/protobuf, got 'grpc'"):
        traces_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
