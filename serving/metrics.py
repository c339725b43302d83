"""Counts of the endpoint, kept as plain integers and written for Prometheus only when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.catalogue import METRICS, Sample

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histograms, in seconds."""

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histogram of batches, in rows."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ROUTES = ("/predict", "/feedback", "/v2/infer", "/invocations")
OUTCOMES = ("stored", "repeated", "corrected", "unknown")


class Histogram(NamedTuple):
    """A histogram as Prometheus reads it: counts up to each bound, and the sum of the values."""

    name: str
    buckets: list[tuple[str, float]]
    total: float
    labels: tuple[str, ...] = ()


class Counts:
    """What happened since the start. Written by the event loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter({(route, 500): 0 for route in ROUTES})
        """Those that were not answered with 200: these are counted by how long they took. A rate sees the first failure
        only where there was a 0 before."""
        self.predictions: Counter[str] = Counter()
        self.feedback: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.ignored_values = 0
        self.outside_range = 0
        self.refused_images = 0
        self._latencies = {route: [0] * (len(BUCKETS) + 1) for route in ROUTES}
        self._seconds = dict.fromkeys(ROUTES, 0.0)

    def answered(self, route: str, seconds: float) -> None:
        """Count a request that was answered with 200."""
        self._latencies[route][bisect_left(BUCKETS, seconds)] += 1
        self._seconds[route] += seconds

    def samples(self) -> Iterator[Sample]:
        """The counters. Those that others add keys to meanwhile are read from a copy."""
        good = [((route, 200), sum(counts)) for route, counts in self._latencies.items()]
        for (route, status), number in (*good, *list(self.requests.items())):
            yield Sample("everfit_requests_total", number, (route, str(status)))
        for version, number in list(self.predictions.items()):
            yield Sample("everfit_predictions_total", number, (version,))
        for outcome, number in list(self.feedback.items()):
            yield Sample("everfit_feedback_total", number, (outcome,))
        yield Sample("everfit_ignored_values_total", self.ignored_values)
        yield Sample("everfit_outside_range_total", self.outside_range)
        yield Sample("everfit_refused_images_total", self.refused_images)

    def histograms(self) -> Iterator[Histogram]:
        """The latencies, by route."""
        for route, counts in self._latencies.items():
            buckets = _cumulative(BUCKETS, counts)
            yield Histogram("everfit_request_duration_seconds", buckets, self._seconds[route], (route,))


def batch_histogram(calls: Sequence[int]) -> Histogram:
    """The sizes of batches, from the number of calls with as many rows as the place in the list says.

    >>> batch_histogram([0, 5, 0, 2]).buckets[:3], batch_histogram([0, 5, 0, 2]).total
    ([('1.0', 5.0), ('2.0', 5.0), ('4.0', 7.0)], 11.0)
    """
    counts = [0] * (len(BATCHES) + 1)
    for rows, number in enumerate(calls):
        counts[bisect_left(BATCHES, rows)] += number
    total = sum(rows * number for rows, number in enumerate(calls))
    return Histogram("everfit_batch_rows", _cumulative(BATCHES, counts), float(total))


class Seen(NamedTuple):
    """A task's metrics at this moment, or with an empty name the server's."""

    task: str
    samples: Iterable[Sample]
    histograms: Iterable[Histogram] = ()


class Gauges(Collector):
    """The counts and the state of the moment, as Prometheus reads them."""

    def __init__(self, seen: Callable[[], Iterable[Seen]]) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        """The metrics of `METRICS` that have a value, in their order."""
        samples: dict[str, list[tuple[list[str], float]]] = defaultdict(list)
        histograms: dict[str, list[tuple[list[str], Histogram]]] = defaultdict(list)
        for task, found, more in self._seen():
            first = [task] if task else []
            for name, value, labels in found:
                samples[name].append(([*first, *labels], value))
            for one in more:
                histograms[one.name].append(([*first, *one.labels], one))
        for name in METRICS:
            if name in samples:
                yield _family(name, samples[name])
            elif name in histograms:
                yield _histogram(name, histograms[name])


class Exposition:
    """The text of `GET /metrics`."""

    def __init__(self, seen: Callable[[], Iterable[Seen]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Gauges(seen))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The metrics of this moment."""
        return generate_latest(self._registry)


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*(str(float(one)) for one in bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _family(name: str, samples: list[tuple[list[str], float]]) -> Metric:
    described = METRICS[name]
    kind = CounterMetricFamily if described.kind(name) == "counter" else GaugeMetricFamily
    family = kind(name, _sentence(described.help), labels=described.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, found: list[tuple[list[str], Histogram]]) -> Metric:
    described = METRICS[name]
    family = HistogramMetricFamily(name, _sentence(described.help), labels=described.labels)
    for labels, one in found:
        family.add_metric(labels, one.buckets, one.total)
    return family


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
