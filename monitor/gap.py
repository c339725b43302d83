"""The gap between the performance that the champion's own answers lead one to expect and the one that came true.

The estimate of `estimated.py` sees what moved inputs do to performance; it cannot see that the relation of inputs to
labels has changed. So a gap on rows whose labels have arrived is itself the measure of concept drift.

Two kinds of change open it. If only the shares of the classes have changed, and each class looks as it did (prior
shift), answers adjusted to the new shares (Saerens et al. 2002, eq. 2.4)

    p'_k ~ p_k (new share of k) / (old share of k)

are calibrated again, and their own gap closes. If the relation has changed (concept drift), it stays open.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from monitor.dependence import Dependence
from monitor.estimated import estimate_of, expected, expected_of, experience_of
from monitor.evidence import tail
from monitor.measurements import Measurement
from monitor.performance import null_of, realised_of, task_metric
from monitor.values import spaced
from monitor.views import Measure, Side, View
from registry.metrics import Array, Metric, metrics_for
from registry.scoring import Scores

BIASED = 2.58
"""Standard errors by which the estimate's bias is taken to be larger than it seems: 99.5 %, one-sided. No harm is
tolerated here, so that a champion whose reference flatters it by more would lag behind it for ever."""

LOG_LOSS = "log_loss"

MOST_ROWS = 20_000
"""Rows of a window whose log loss is looked at, evenly spread: surer than the bias is known."""

_Z = 1.96


class Gap(Measure):
    """By how much the metric is worse than expected on the labelled rows; positive is worse."""

    name: ClassVar[str] = "gap"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement."""
        return [_gap_of(view)]


class Missed(Measure):
    """By how much the metric is worse on the labelled rows than `estimated` has it, what is taken off that for rows of
    the window's kind included; positive is worse. It is no test: it teaches what to expect next (`outlook.py`)."""

    name: ClassVar[str] = "missed"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement; without a value where there is no gap."""
        found, alone, metric = _gap_of(view), estimate_of(view), task_metric(view)
        if found.value is None or alone.value is None:
            return [Measurement(name=self.name, rows=found.rows, note=found.note)]
        usual = expected_of(view, metric).value - (experience_of(view, metric).bias or 0.0)
        value = found.value + metric.gain(alone.value, usual)
        return [Measurement(name=self.name, value=value, error=found.error, rows=found.rows, note=metric.name)]


class LogGap(Measure):
    """The gap of the log loss, where the task's metric is another one: labels that were given little probability weigh
    the most in it, so that a relation that has changed is told from fewer rows. Its noise is that of the long run
    (`Dependence.over_windows`): windows are held against one another (`past.gap_scores`), and luck that lasts for
    several is no change."""

    name: ClassVar[str] = "log_gap"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement for classification."""
        if view.manifest.target.problem == "regression" or task_metric(view).name == LOG_LOSS:
            return []
        metric = metrics_for(view.manifest.target.problem)[LOG_LOSS]
        window, all_rows = _thinned(view), len(view.window.labels)
        found = gap(self.name, view, metric, window).model_copy(update={"p_value": None})
        known = view.once(self.name, lambda: _surprises(view.reference, metric))
        if found.null_error is None or len(known) < 2:
            return [found]
        dependence = view.once(f"dependence of {self.name}", lambda: Dependence(known[:, None]))
        stride = view.stride * len(window.labels) / all_rows
        luck = dependence.over_windows(found.rows, stride=stride, lasting=True)
        noise = max(found.null_error, float(known.std()) * math.sqrt(luck.effect / found.rows))
        error, value = math.hypot(noise, experience_of(view, metric).bias_error), found.value or 0.0
        law = {"error": error, "null_error": noise, "low": value - _Z * error, "high": value + _Z * error}
        law["freedom"] = min(found.freedom or math.inf, luck.freedom)
        return [Measurement.model_validate(found.model_dump() | law)]


def _thinned(view: View) -> Side:
    """At most `MOST_ROWS` of the champion's rows of the window, evenly spread, made once; of the outputs of those of a
    larger one, classes' probabilities alone."""
    return view.window if len(view.window.labels) <= MOST_ROWS else view.here("thinned", lambda: _thin(view.window))


def _thin(side: Side) -> Side:
    rows = spaced(len(side.labels), MOST_ROWS)
    none, chances = np.full(len(rows), np.nan), side.scores.scores.take(rows, axis=0)
    scores = Scores(none, none, none, probabilities=chances)
    return replace(side, scores=scores, labels=side.labels[rows], labelled=side.labelled[rows])


def _surprises(side: Side, metric: Metric) -> Array:
    """By how much each labelled row is worse than its answers lead one to expect, (m,), with mean 0."""
    labels, scores = side.known
    if not len(labels):
        return np.empty(0)
    return np.asarray(
        metric.gain(0, 1) * (metric.influence(labels, scores.scores) - expected(metric, scores).influence)
    )


class PriorGap(Measure):
    """The gap of the log loss once the answers are adjusted to the labels' shares of the classes."""

    name: ClassVar[str] = "prior_gap"

    def measure(self, view: View) -> list[Measurement]:
        """One measurement for classification."""
        if view.manifest.target.problem == "regression":
            return []
        window = _thinned(view)
        metric, shares = metrics_for(view.manifest.target.problem)[LOG_LOSS], class_shares(window)
        if shares is None or (known := class_shares(view.reference)) is None:
            return [Measurement(name=self.name, note="no labels to know the classes' shares from")]
        adjusted = replace(window, scores=adjust(window.scores, shares / np.where(known > 0, known, 1.0)))
        return [gap(self.name, view, metric, adjusted)]


def _gap_of(view: View) -> Measurement:
    return view.here(Gap.name, lambda: gap(Gap.name, view, task_metric(view), view.window))


def gap(name: str, view: View, metric: Metric, window: Side) -> Measurement:
    """The gap of a metric on the labelled rows of a side, with the standard error it has while nothing changes.

    The bias of the estimate is the same in all windows, and so is its error: the p-value takes it to be larger by
    BIASED standard errors, so that it cannot add up.
    """
    labels, scores = window.known
    if (rows := len(labels)) < 2:
        return Measurement(name=name, rows=rows, note="too few labels")
    awaited = expected_of(view, metric) if scores is view.window.scores else expected(metric, scores)
    came = realised_of(view, metric)[0] if window is view.window else metric.value(labels, scores.scores)
    if not math.isfinite(came + awaited.value):
        return Measurement(name=name, rows=rows, note=f"{metric.name} is undefined on {rows} labels")
    known = experience_of(view, metric)
    value = metric.gain(awaited.value - (known.bias or 0.0), came)
    noise, skew = known.dispersion * awaited.noise, null_of(view, metric, rows).skew
    error, beyond = math.hypot(noise, known.bias_error), value - BIASED * known.bias_error
    return Measurement(
        name=name,
        value=value,
        low=value - _Z * error,
        high=value + _Z * error,
        error=error,
        null_error=noise,
        skew=skew,
        freedom=known.freedom,
        p_value=tail(beyond / noise, skew, known.freedom) if noise > 0 else None,
        rows=rows,
        note=metric.name,
    )


def class_shares(side: Side) -> Array | None:
    """Shares of the classes (k,) among the labels; None without any."""
    labels = side.known[0].astype(np.int64)
    if not len(labels):
        return None
    return np.bincount(labels, minlength=side.scores.scores.shape[1]) / len(labels)


def adjust(scores: Scores, weights: Array) -> Scores:
    """Class probabilities weighted by class, (k,), and brought back to a sum of 1; those that lose all stay."""
    weighted = np.ascontiguousarray(scores.scores.T) * weights[:, None]  # classes are few and rows are many
    total = weighted.sum(axis=0)
    lost = ~(total > 0)
    weighted /= np.where(lost, 1.0, total)
    if lost.any():
        weighted[:, lost] = scores.scores[lost].T
    return replace(scores, probabilities=weighted.T)
