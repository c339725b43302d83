"""What to expect of windows whose labels are still to come, after what came true in those before.

The estimate without labels (`estimated.py`) takes it that inputs and labels are related as they were; by how much it
missed (`gap.py`) in windows whose labels are there shows by how much that has failed. Misses are followed by a local
level model (Durbin & Koopman 2012, ch. 2),

    miss_t = level_t + N(0, s + e_t^2),    level_t = level_(t-1) + N(0, q),    level_0 = 0

e_t being the error of a window's miss. How fast concepts drift (q) and how much a window adds of its own (s) nobody
knows: both are averaged over a grid, each point weighted by a prior that prefers small ones and by how well it foretold
the misses so far, the newest most (dynamic model averaging, Raftery, Karny & Ettler 2010).

No model of drift is right, so its standard deviations are not taken at their word. An interval is m_t of them either
way, and m_t follows the misses that were outside (the quantile tracker of Angelopoulos, Candes & Tibshirani 2023,
arXiv 2307.16895, eq. 4, on the logarithm of the scores, so that it has no unit)

    log m_(t+1) = log m_t + STEP (outside_t - a),    a = 1 - coverage,    m_1 the normal law's

Summed up, the share outside is a + (log m_(T+1) - log m_1) / (STEP T): as m cannot leave the range of the scores by
more than a step, it comes to a whatever drifts, and however. Where labels come k windows late, forecasts are made k
windows ahead, and judged so; what was outside is known k windows later, and steps are smaller by the root of k, as
those made in the meantime add up. Before any label has come, the interval is the estimate's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from monitor.comparison import BY_NAME
from monitor.measurements import Measurement, WindowRecord
from registry.metrics import Array

STEPS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Standard deviations of the level's steps, in errors of the first estimate."""

OWN = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Those of what a window adds of its own."""

FORGET = 0.9
"""How much less what the windows before foretold counts, a window."""

STEP = 0.5
"""Of the logarithm of an interval's width, for a window outside of it."""

_Z = 1.96


class _State(NamedTuple):
    """What is known after a window, at all points of the grid: log weight, mean and variance of the level."""

    logs: Array
    means: Array
    variances: Array


class _Grid:
    """The model: variances of the level's steps, and of what a window adds of its own, (points,)."""

    def __init__(self, unit: float) -> None:
        steps, own = (part.ravel() ** 2 for part in np.meshgrid(STEPS, OWN))
        self._steps, self._own = steps * unit**2, own * unit**2
        self._prior: Array = -0.5 * (np.log1p(steps) + np.log1p(own))

    def after(self, state: _State | None, missed: Measurement | None) -> _State | None:
        """The state after one more window: it has moved a step, and takes in by how much the estimate missed, if that
        is known; None before the first."""
        if missed is None:
            return None if state is None else state._replace(variances=state.variances + self._steps)
        logs, means, before = state or _State(self._prior, np.zeros_like(self._steps), np.zeros_like(self._steps))
        variances = before + self._steps
        total = variances + self._own + (missed.error or 0.0) ** 2
        surprise = (missed.value or 0.0) - means
        told = -0.5 * (np.log(total) + surprise**2 / total)
        share = variances / total
        return _State(
            self._prior + FORGET * (logs - self._prior) + told, means + share * surprise, variances * (1 - share)
        )

    def foretell(self, state: _State, ahead: int) -> tuple[float, float]:
        """Mean and variance of the miss so many windows later, the error of that window apart."""
        weights = np.exp(state.logs - state.logs.max())
        weights /= weights.sum()
        mean = float(weights @ state.means)
        variances = state.variances + ahead * self._steps + self._own + (state.means - mean) ** 2
        return mean, float(weights @ variances)


@dataclass(frozen=True)
class _Forecasts:
    """Of n windows, from those `ahead` before and earlier: the miss that is expected, its standard deviation (NaN
    where no label had come), and how many of these either way the interval goes."""

    expected: Array
    spread: Array
    widths: Array


def outlook(
    records: Sequence[WindowRecord], *, coverage: float = 0.95, late: int = 1
) -> tuple[Measurement | None, ...]:
    """Of each window of a version, in time order, the metric that was to be expected after the newest labelled window
    before it, or, where labels are `late` windows, so many before; None where nothing is estimated. `reference` is the
    estimate, `error` the standard deviation of the model, `low` and `high` are to hold the realised metric with
    probability `coverage`; all are cut to the metric's range."""
    told = [(place, one) for place, record in enumerate(records) if (one := _estimate(record)) is not None]
    out: list[Measurement | None] = [None] * len(records)
    if not told:
        return tuple(out)
    grid, states, missed = _Grid(told[0][1].error or 0.0), list[_State | None](), [_missed(records[p]) for p, _ in told]
    for one in missed:
        states.append(grid.after(states[-1] if states else None, one))
    by_horizon: dict[int, _Forecasts] = {}
    ahead = late
    for t, (place, estimate) in enumerate(told):
        if ahead not in by_horizon:
            errors = np.array([one.error or 0.0 for _, one in told])
            by_horizon[ahead] = _forecasts(grid, states, missed, errors, ahead, coverage)
        out[place] = _measurement(records[place].metric, estimate, by_horizon[ahead], t)
        ahead = late if t + 1 < late or missed[t + 1 - late] is not None else ahead + 1
    return tuple(out)


def _estimate(record: WindowRecord) -> Measurement | None:
    return next((one for one in record.named("estimated") if one.value is not None and one.error), None)


def _missed(record: WindowRecord) -> Measurement | None:
    """By how much the estimate missed; of windows measured before that was, the gap."""
    return next((one for one in record.named("missed", "gap") if one.value is not None and one.error), None)


def _forecasts(
    grid: _Grid,
    states: Sequence[_State | None],
    missed: Sequence[Measurement | None],
    errors: Array,
    ahead: int,
    coverage: float,
) -> _Forecasts:
    expected, spread, scores = np.zeros(len(states)), np.full(len(states), math.nan), np.full(len(states), math.nan)
    for t, state in enumerate(states[: max(0, len(states) - ahead)], start=ahead):
        if state is None:
            continue
        expected[t], variance = grid.foretell(state, ahead)
        spread[t] = math.sqrt(variance + errors[t] ** 2)
        if (came := missed[t]) is not None:
            scores[t] = abs((came.value or 0.0) - expected[t]) / spread[t]
    return _Forecasts(expected, spread, widths(scores, coverage, ahead))


def widths(scores: Array, coverage: float, late: int = 1) -> Array:
    """How many standard deviations either way the interval of each of n windows goes, from scores (n,), the deviations
    that came true in standard deviations, each known `late` windows later; one that is NaN is never known.

    >>> found = widths(np.abs(np.random.default_rng(0).standard_t(2, 2_000)), 0.9)
    >>> bool(abs(np.median(found) - 2.92) < 0.5)  # Student's quantile, the normal law's being 1.64
    True
    """
    logs = np.full(len(scores), math.log(float(ndtri((1 + coverage) / 2))))
    for t in range(late, len(scores)):
        logs[t] = logs[t - 1]
        if not math.isnan(scores[t - late]):
            outside = float(scores[t - late] > math.exp(logs[t - late]))
            logs[t] += STEP / math.sqrt(late) * (outside - (1 - coverage))
    return np.asarray(np.exp(logs), dtype=np.float64)


def _measurement(metric: str, estimate: Measurement, forecasts: _Forecasts, t: int) -> Measurement:
    known, error = estimate.value or 0.0, float(forecasts.spread[t])
    value = known - BY_NAME[metric].gain(1.0, 0.0) * float(forecasts.expected[t])
    half = float(forecasts.widths[t]) * error
    if math.isnan(error):  # nothing has come: the estimate's own, which allows for a relation that moves
        error = estimate.error or 0.0
        bounds = [abs(end - known) for end in (estimate.low, estimate.high) if end is not None]
        half = float(forecasts.widths[t]) * max([error, *(bound / _Z for bound in bounds)])
    least, most = BY_NAME[metric].bounds
    low, middle, high = (float(np.clip(one, least, most)) for one in (value - half, value, value + half))
    return Measurement(
        name="outlook",
        value=middle,
        low=low,
        high=high,
        reference=estimate.value,
        error=error,
        rows=estimate.rows,
        note=metric,
    )
