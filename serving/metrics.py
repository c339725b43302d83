"""Counts of the endpoint, kept as plain integers and written for Prometheus only when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, in seconds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """What happened since the start. Written by the event loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.predictions: Counter[str] = Counter()
        self.feedback: Counter[str] = Counter()
        self.ignored_values = 0
        self.outside_range = 0
        self.refused_images = 0
        self._latencies = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def answered(self, seconds: float) -> None:
        """Count an answered prediction request."""
        self._latencies[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def latency(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative histogram, and the sum in seconds."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._latencies, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._seconds


TaskCounts: TypeAlias = tuple[str, Counts, Mapping[str, float]]
"""A task, what happened, and its state as numbers."""


class Gauges(Collector):
    """The counts and the state of the moment, as Prometheus reads them."""

    def __init__(self, tasks: Callable[[], Sequence[TaskCounts]]) -> None:
        """`tasks` gives each task's name, counts, and state: gauges and, with names that end in `_total`, counters."""
        self._tasks = tasks

    def collect(self) -> Iterable[Metric]:
        """The metrics, each labelled with its task."""
        tasks = self._tasks()
        requests = _counter("everfit_requests", "Requests answered", "route", "status")
        predictions = _counter("everfit_predictions", "Rows predicted and logged", "version")
        feedback = _counter("everfit_feedback", "Labels received", "outcome")
        latency = HistogramMetricFamily("everfit_predict_seconds", "Time to answer a prediction", labels=["task"])
        for task, counts, _ in tasks:
            _add(requests, task, counts.requests)
            _add(predictions, task, counts.predictions)
            _add(feedback, task, counts.feedback)
            buckets, seconds = counts.latency()
            latency.add_metric([task], buckets, seconds)
        yield from (requests, predictions, feedback, latency, *_states(tasks))


class Exposition:
    """The text of `GET /metrics`."""

    def __init__(self, tasks: Callable[[], Sequence[TaskCounts]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Gauges(tasks))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The metrics of this moment."""
        return generate_latest(self._registry)


def _states(tasks: Sequence[TaskCounts]) -> Iterable[Metric]:
    for name in dict.fromkeys(name for _, _, state in tasks for name in state):
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, name.removeprefix("everfit_").replace("_", " "), labels=["task"])
        for task, _, state in tasks:
            family.add_metric([task], state[name])
        yield family


def _counter(name: str, help_: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_, labels=["task", *labels])


def _add(family: CounterMetricFamily, task: str, values: Counter[tuple[str, int]] | Counter[str]) -> None:
    for key, value in list(values.items()):
        family.add_metric([task, *map(str, key if isinstance(key, tuple) else (key,))], value)
