"""OpenTelemetry traces of the hot routes, when an OTLP endpoint is named in the standard environment variables.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318    or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, which is the whole URL

The other variables of the SDK and the exporter hold too: OTEL_SERVICE_NAME (else `everfit`), OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, OTEL_PROPAGATORS, ... A span is made when its request is over, from
moments that were noted, so that a request waits for nothing; a thread of the SDK sends them in batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.errors import InputError
from serving.guard import task_of
from serving.watching import GONE, Watched

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"
_HOT = ("/predict", "/feedback", "/infer", "/invocations")
_CARRIED = (b"traceparent", b"tracestate", b"baggage")


def traces_of(environment: Mapping[str, str]) -> Traces | None:
    """Traces as the environment asks for them; None where it does not.

    Raises `InputError` where it asks for another protocol than OTLP over HTTP, or where the exporter is missing.
    """
    given = next((name for name in ENDPOINTS if environment.get(name)), None)
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if given is None or off or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _HTTP)
    if protocol != _HTTP:
        raise InputError(f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {_HTTP}, got {protocol!r}")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise InputError(f"{given} is set, and its exporter is missing: pip install 'everfit[otel]'") from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "everfit"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


class Traces:
    """A server span for each request of a hot route, with the graph's call below it."""

    dropped = 0

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace

        self._provider, self._extract, self._trace = provider, propagate.extract, trace
        self._tracer = provider.get_tracer("everfit.serving")

    def see(self, one: Watched) -> None:
        """Make the spans of a request."""
        scope, notes = one.scope, one.notes
        if scope["method"] != "POST" or not scope["path"].endswith(_HOT):
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        span = self._tracer.start_span(
            f"POST {route_of(scope['path'])}",
            context=self._extract(carrier),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes_of(one),
            start_time=notes.began_ns,
        )
        if one.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        if notes.graph is not None and span.is_recording():
            begin, end, rows = notes.graph
            below = self._trace.set_span_in_context(span)
            start = notes.moment(begin)
            graph = self._tracer.start_span("graph", below, attributes={"everfit.batch.rows": rows}, start_time=start)
            graph.end(notes.moment(end))
        span.end(notes.began_ns + round(one.seconds * 1e9))

    def close(self) -> None:
        """Send the spans that wait."""
        self._provider.shutdown()


def route_of(path: str) -> str:
    """The template of a hot route.

    >>> route_of("/models/flights/predict"), route_of("/v2/models/flights/versions/3/infer"), route_of("/predict")
    ('/models/{task}/predict', '/v2/models/{task}/versions/{version}/infer', '/predict')
    """
    parts = path.split("/")
    for name, below in (("models", "{task}"), ("versions", "{version}")):
        if name in parts[:-2]:
            parts[parts.index(name) + 1] = below
    return "/".join(parts)


def attributes_of(one: Watched) -> dict[str, Any]:
    """A request as attributes, by OpenTelemetry's conventions where there are some."""
    scope, notes = one.scope, one.notes
    found = {
        "http.request.method": scope["method"],
        "http.route": route_of(scope["path"]),
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "http.response.status_code": None if one.status == GONE else one.status,
        "error.type": str(one.status) if one.status >= 500 else None,
        "everfit.request.id": scope.get("request_id"),
        "everfit.task": task_of(scope["path"]),
        "everfit.version": notes.version,
        "everfit.rows": notes.rows,
    }
    return {name: value for name, value in found.items() if value is not None}
