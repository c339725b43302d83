"""Each window beside all windows before it, at once for all that are remembered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from monitor.evidence import scores_of, tails
from monitor.measurements import WindowRecord
from registry.metrics import Array

TINY = 1e-9
"""The least error that a level is taken to have."""


def before(tests: Array, levels: Array) -> tuple[Array, Array]:
    """Of each of k levels, given as value and error (k, 2), the mean and the error (k,) of its test (k, 2) and all
    levels before it, pooled by precision. One that happened to have no error is not taken to be exact.

    >>> means, _ = before(np.array([[0.5, 0.1], [0.5, 0.1]]), np.array([[0.7, 0.1], [0.9, 0.1]]))
    >>> means.round(3).tolist()
    [0.5, 0.6]
    """
    k = len(levels)
    (values, errors), first = levels.reshape(k, 2).T, tests.reshape(k, 2).T
    known = np.tri(k, k + 1, dtype=np.bool_)  # the test, and so many levels
    value = np.where(known, np.column_stack([first[0], np.tile(values, (k, 1))]), 0.0)
    error = np.where(known, np.column_stack([first[1], np.tile(errors, (k, 1))]), np.inf)
    least = np.sort(error, axis=1)[np.arange(k), (np.arange(k) + 1) // 2] / 2
    weights = 1 / np.maximum(np.maximum(least, TINY)[:, None], error) ** 2
    total = weights.sum(axis=1)
    return (weights * value).sum(axis=1) / total, total**-0.5


class _Gap(NamedTuple):
    """A gap with the law of its noise, and the error of the bias that all windows share; NaN without a gap."""

    value: float = math.nan
    noise: float = math.nan
    bias: float = math.nan
    skew: float = math.nan
    freedom: float = math.nan


def gap_scores(records: Sequence[WindowRecord], name: str) -> Array:
    """The standard score of each window's gap of this name against the gaps of all windows before (T,), NaN without a
    gap. The bias of the estimate is in them all: what the reference does not know of it the windows teach, and nothing
    has to be allowed for."""
    found = np.array([record.once(("gap", name), partial(_gap, record, name)) for record in records]).reshape(-1, 5)
    there = ~np.isnan(found[:, 0])
    values, noise, bias, skews, freedoms = found[there].T
    usual, errors = before(np.column_stack([np.zeros(len(bias)), bias]), np.column_stack([values, noise]))
    out = np.full(len(records), np.nan)
    out[there] = scores_of(tails((values - usual) / np.hypot(noise, errors), skews, freedoms))
    return out


def _gap(record: WindowRecord, name: str) -> _Gap:
    one = record.first(name)
    if one is None or not one.null_error:
        return _Gap()
    bias = math.sqrt(max(0.0, (one.error or 0.0) ** 2 - one.null_error**2))
    return _Gap(one.value or 0.0, one.null_error, bias, one.skew or 0.0, one.freedom or math.inf)
